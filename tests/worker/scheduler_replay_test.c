/* Requests that come again with ids of an earlier epoch: what comes is the rest, a divergence is
 * told. */
#include "tests/worker/bench.h"
#include "tests/test.h"

/* ---- replay ---- */

/* Every request of a mixture, cut after some of its ids and sent again with them: what comes is the
 * rest. */
static void a_replay_goes_on_where_the_answer_was(void)
{
    const struct bench_mix mix = {5, true, true};
    const uint64_t n = 60;
    struct bench *want = bench_alone(&mix, n);
    struct bench *b = bench_open((struct bench_shape){16, 64, 200, 2000});
    uint64_t rng = 21;
    for (uint64_t k = 0; k < n; k++) {
        struct ask a = bench_mixed(&mix, k);
        struct answer *was = peer_answer(&want->peer, k + 1);
        size_t cuts[LIMIT_CHOICES] = {0};
        bool any = false;
        for (uint32_t i = 0; i < LIMIT_CHOICES; i++) {
            const struct answer_choice *c = was->choices[i];
            if (c) {
                cuts[i] = k % 7 == 0 ? c->n_ids : test_random(&rng) % (c->n_ids + 1);
                any = any || cuts[i] > 0;
                ask_add(&a, MSG_RESUME_IDS, i, c->ids, cuts[i] * sizeof(c->ids[0]));
            }
        }
        a.m.flags |= k % 5 < 4 ? MSG_VERIFY | MSG_AGAIN : MSG_AGAIN;
        bench_submit(b, &a);
        bench_run(b);
        struct answer *is = peer_answer(&b->peer, k + 1);
        CHECK_INT(is->err, 0);
        for (uint32_t i = 0; i < LIMIT_CHOICES; i++) {
            const struct answer_choice *c = was->choices[i], *d = is->choices[i];
            if (!c) {
                continue;
            }
            CHECK(d && d->is_finished);
            CHECK_INT(d->n_ids, c->n_ids - cuts[i]);
            CHECK(memcmp(d->ids, c->ids + cuts[i], d->n_ids * sizeof(d->ids[0])) == 0);
            CHECK_INT(d->reason, c->reason);
            CHECK_INT(d->n_tokens, c->n_tokens);
            CHECK_INT(d->stop_index, c->stop_index);
            CHECK(d->logprob_sum == c->logprob_sum); /* 0 without MSG_RANK */
            if (any) { /* nothing that was shown comes again */
                size_t shown = cuts[i] ? c->text_at[cuts[i] - 1] : 0;
                size_t echoed = c->n_echo && !cuts[i] ? c->n_echo - 1 : 0;
                CHECK_INT(d->n_echo, 0);
                CHECK_STR(peer_text(&b->peer, k + 1, i),
                          peer_text(&want->peer, k + 1, i) + (cuts[i] ? shown : echoed));
            }
        }
        CHECK_INT(is->done.n_completion, was->done.n_completion);
    }
    bench_close(b);
    bench_close(want);
}

/* Of three choices the second had ended: nothing of it comes again, the others go on, and the end
 * counts them all. With all three at their end only the count is left to say. */
static void what_had_ended_is_over(void)
{
    struct bench *b = bench_open(bench_roomy);
    struct ask a = ask_text(1, "some words");
    a.m.seed = 1;
    a.m.n_choices = 3;
    a.m.max_tokens = 12;
    a.m.temperature = 0.9f;
    bench_submit(b, &a);
    bench_run(b);
    for (uint64_t id = 2; id < 4; id++) {
        a = ask_text(id, "some words");
        a.m.n_choices = 3;
        a.m.max_tokens = 12;
        a.m.temperature = 0.9f;
        a.m.flags |= MSG_VERIFY;
        a.m.seed = 1; /* as of the first */
        uint32_t n_before = 0;
        for (uint32_t i = 0; i < 3; i++) {
            const struct answer_choice *c = bench_choice(b, 1, i);
            struct msg_resume_end end = {.n_tokens = c->n_tokens};
            bool is_over = i == 1 || id == 3;
            ask_add(&a, MSG_RESUME_IDS, i, c->ids, (is_over ? c->n_ids : 2) * sizeof(c->ids[0]));
            if (is_over) {
                ask_add(&a, MSG_RESUME_END, i, &end, sizeof(end));
                n_before += c->n_tokens;
            }
        }
        bench_submit(b, &a);
        peer_answer(&b->peer, id)->n_before = n_before;
        bench_run(b);
        struct answer *is = peer_answer(&b->peer, id);
        CHECK_INT(is->err, 0);
        CHECK_INT(is->done.n_completion, peer_answer(&b->peer, 1)->done.n_completion);
        for (uint32_t i = 0; i < 3; i++) {
            CHECK((is->choices[i] != NULL) == (i != 1 && id == 2));
        }
    }
    bench_close(b);
}

/* An id that the model would not give again, anywhere in the answer, is found; unless it is to be
 * believed. */
static void a_replay_that_diverges_is_told(void)
{
    static const float temperatures[] = {0, 0.9f};
    for (int t = 0; t < 2; t++) {
        for (size_t wrong = 0; wrong < 9; wrong++) {
            struct bench *b = bench_open((struct bench_shape){2, 16, 4096, 4096});
            for (uint64_t id = 1; id < 4; id++) {
                struct ask a = ask_text(id, "some words");
                a.m.flags |= MSG_IGNORE_EOS;
                a.m.max_tokens = 12;
                a.m.n_choices = 2;
                a.m.temperature = temperatures[t];
                a.m.seed = 1;
                if (id > 1) {
                    const struct answer_choice *c = bench_choice(b, 1, 1);
                    int32_t ids[10];
                    memcpy(ids, c->ids, sizeof(ids));
                    ids[wrong] = ids[wrong] == FAKE_BYTE + 'q' ? FAKE_BYTE + 'z' : FAKE_BYTE + 'q';
                    ask_add(&a, MSG_RESUME_IDS, 1, ids, sizeof(ids));
                    a.m.flags |= id == 2 ? MSG_VERIFY : 0;
                }
                bench_submit(b, &a);
                bench_run(b);
            }
            CHECK_INT(peer_answer(&b->peer, 2)->err, ERR_REPLAY_DIVERGENCE);
            CHECK_INT(peer_answer(&b->peer, 3)->err, 0);
            bench_close(b);
        }
    }
}

static void a_replay_that_cannot_be_is_refused(void)
{
    struct bench *b = bench_open(bench_roomy);
    int32_t ids[] = {FAKE_BYTE + 'a', FAKE_BYTE + 'b', FAKE_BYTE + 'c'};
    struct ask a = ask_text(1, "x");
    a.m.max_tokens = 2;
    ask_add(&a, MSG_RESUME_IDS, 0, ids, sizeof(ids));
    bench_submit(b, &a);
    a = ask_text(2, "x");
    ids[1] = FAKE_VOCAB;
    ask_add(&a, MSG_RESUME_IDS, 0, ids, sizeof(ids));
    bench_submit(b, &a);
    bench_run(b);
    CHECK_INT(peer_answer(&b->peer, 1)->err, ERR_INTERNAL);
    CHECK_INT(peer_answer(&b->peer, 2)->err, ERR_BAD_TOKEN);
    bench_close(b);
}

int main(void)
{
    a_replay_goes_on_where_the_answer_was();
    what_had_ended_is_over();
    a_replay_that_diverges_is_told();
    a_replay_that_cannot_be_is_refused();
    return 0;
}
