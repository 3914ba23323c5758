/* The scheduler with a fake engine and the real rings: whatever is run together, in whatever order,
 * with however few blocks, every answer equals the one that its request gets alone. */
#include "tests/worker/bench.h"
#include "tests/test.h"

/* ---- single requests ---- */

static void an_answer_ends_with_the_model(void)
{
    struct bench *b = bench_open(bench_roomy);
    struct ask a = ask_text(1, "hello<copy>");
    bench_submit(b, &a);
    bench_run(b);
    CHECK_STR(peer_text(&b->peer, 1, 0), "hello");
    CHECK_INT(bench_choice(b, 1, 0)->reason, MSG_FINISH_STOP);
    CHECK_INT(bench_choice(b, 1, 0)->stop_index, -1);
    CHECK_INT(bench_choice(b, 1, 0)->n_tokens, 6);
    CHECK_INT(peer_answer(&b->peer, 1)->started.n_prompt, 7); /* BOS, five letters, <copy> */
    CHECK_INT(b->n_steps, 6);
    bench_close(b);
}

static void limits_end_an_answer(void)
{
    struct bench *b = bench_open((struct bench_shape){4, 64, 64, 100});
    struct ask a = ask_text(1, "hello<copy>");
    a.m.max_tokens = 3;
    bench_submit(b, &a);
    a = ask_text(2, "xyz"); /* goes on for ever */
    a.m.flags |= MSG_IGNORE_EOS;
    bench_submit(b, &a);
    a = ask_text(3, "ab<copy>");
    a.m.flags |= MSG_IGNORE_EOS;
    a.m.max_tokens = 20;
    bench_submit(b, &a);
    char longest[200] = "";
    memset(longest, 'x', 98);
    a = ask_text(4, longest); /* 99 with BOS: one more fits */
    bench_submit(b, &a);
    longest[98] = 'x';
    a = ask_text(5, longest);
    bench_submit(b, &a);
    bench_run(b);
    CHECK_STR(peer_text(&b->peer, 1, 0), "hel");
    CHECK_INT(bench_choice(b, 1, 0)->reason, MSG_FINISH_LENGTH);
    CHECK_INT(bench_choice(b, 2, 0)->n_ids, 96);
    CHECK_INT(bench_choice(b, 2, 0)->reason, MSG_FINISH_LENGTH);
    CHECK_INT(bench_choice(b, 3, 0)->n_ids, 20);
    CHECK(strncmp(peer_text(&b->peer, 3, 0), "ab", 2) == 0);
    CHECK_INT(bench_choice(b, 4, 0)->n_ids, 1);
    CHECK_INT(peer_answer(&b->peer, 5)->err, ERR_CONTEXT_LENGTH);
    CHECK(strstr(peer_answer(&b->peer, 5)->detail, "100 tokens, the context is 100"));
    bench_close(b);
}

static void bad_parameters_fail_the_request_alone(void)
{
    struct bench *b = bench_open(bench_roomy);
    struct ask a = ask_text(1, "x");
    a.m.temperature = 1000;
    bench_submit(b, &a);
    int32_t ids[] = {5, FAKE_VOCAB};
    a = ask_ids(2, ids, 2);
    bench_submit(b, &a);
    a = ask_ids(3, ids, 0);
    bench_submit(b, &a);
    a = ask_text(4, "ok<copy>");
    bench_submit(b, &a);
    bench_run(b);
    CHECK_INT(peer_answer(&b->peer, 1)->err, ERR_BAD_FIELD);
    CHECK_INT(peer_answer(&b->peer, 2)->err, ERR_BAD_TOKEN);
    CHECK_INT(peer_answer(&b->peer, 3)->err, ERR_BAD_FIELD);
    CHECK_STR(peer_text(&b->peer, 4, 0), "ok");
    bench_close(b);
}

static void stop_sequences_end_an_answer(void)
{
    struct bench *b = bench_open(bench_roomy);
    struct ask a = ask_text(1, "one two three<copy>");
    ask_stop(&a, "twelve");
    ask_stop(&a, "o th");
    bench_submit(b, &a);
    bench_run(b);
    CHECK_STR(peer_text(&b->peer, 1, 0), "one tw");
    CHECK_INT(bench_choice(b, 1, 0)->stop_index, 1);
    CHECK_INT(bench_choice(b, 1, 0)->reason, MSG_FINISH_STOP);
    CHECK_INT(bench_choice(b, 1, 0)->n_ids, 10);
    /* Held back at the token that could begin "twelve" or "o th", shown when it does not. */
    CHECK_INT(bench_choice(b, 1, 0)->text_at[4], 4);
    CHECK_INT(bench_choice(b, 1, 0)->text_at[5], 4);
    CHECK_INT(bench_choice(b, 1, 0)->text_at[6], 6);
    bench_close(b);
}

/* ---- company ---- */

static void results_do_not_depend_on_company(void)
{
    static const struct bench_shape shapes[] = {
        {16, 512, 4096, 4096}, /* room for all */
        {16, 17, 4096, 4096},  /* small chunks */
        {3, 64, 4096, 4096},   /* few slots */
        {16, 64, 50, 800},     /* few blocks: preemption */
        {16, 1, 45, 720},      /* both */
        {1, 33, 45, 720},      /* one at a time */
        {64, 100, 60, 900},    /* many slots, few blocks: forks are preempted */
    };
    const struct bench_mix mix = {1, true, true};
    int64_t n_rows[COUNT_OF(shapes)];
    const uint64_t n = 40;
    struct bench *want = bench_alone(&mix, n);
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        struct bench *b = bench_open(shapes[i]);
        for (uint64_t k = 0; k < n; k++) {
            struct ask a = bench_mixed(&mix, k);
            bench_submit(b, &a);
            for (uint64_t s = 0; s < k % 4; s++) {
                bench_step(b);
            }
        }
        bench_run(b);
        for (uint64_t k = 0; k < n; k++) {
            bench_check_same(want, b, k + 1);
        }
        struct fake_stats stats = fake_stats(b->models.v[0].engine);
        CHECK(stats.max_rows <= shapes[i].n_seqs + shapes[i].chunk_rows);
        n_rows[i] = stats.n_rows;
        CHECK((scheduler_stats(b->scheduler).n_preempted > 0) == (i >= 3 && i != 5));
        bench_close(b);
    }
    CHECK_INT(n_rows[1], n_rows[0]); /* nothing twice */
    CHECK(n_rows[3] > n_rows[0]);    /* some was computed again */
    bench_close(want);
}

/* ---- slow readers, cancellation ---- */

static void a_paused_request_computes_nothing(void)
{
    struct bench *b = bench_open(bench_roomy);
    struct ask a = ask_text(1, "abcdefgh<copy>");
    bench_submit(b, &a);
    a = ask_text(2, "abcdefgh<copy>");
    bench_submit(b, &a);
    bench_step(b);
    bench_step(b);
    bench_pause(b, 1, true);
    size_t had = bench_choice(b, 1, 0)->n_ids;
    while (!peer_answer(&b->peer, 2)->is_over) {
        bench_step(b);
    }
    CHECK(!bench_step(b));
    CHECK_INT(bench_choice(b, 1, 0)->n_ids, had);
    bench_pause(b, 1, false);
    bench_run(b);
    peer_check_same(&b->peer, 1, 2, 0);
    bench_close(b);
}

static void a_long_pause_gives_its_slot_to_others(void)
{
    struct bench *b = bench_open((struct bench_shape){1, 64, 4096, 4096});
    struct ask a = ask_text(1, "abcdefgh<copy>");
    bench_submit(b, &a);
    bench_step(b);
    bench_step(b);
    bench_pause(b, 1, true);
    a = ask_text(2, "abcdefgh<copy>");
    bench_submit(b, &a);
    CHECK(!bench_step(b)); /* a short one keeps it */
    CHECK_INT(scheduler_n_waiting(b->scheduler), 1);
    b->time_ns += 2000000000u;
    while (!peer_answer(&b->peer, 2)->is_over) {
        CHECK(bench_step(b));
    }
    CHECK_INT(scheduler_n_waiting(b->scheduler), 0); /* owed nothing: its reader is slow */
    bench_pause(b, 1, false);
    bench_run(b);
    peer_check_same(&b->peer, 1, 2, 0);
    bench_close(b);
}

static void a_full_ring_pauses_and_loses_nothing(void)
{
    const struct bench_mix mix = {3, true, true};
    struct bench *want = bench_alone(&mix, 20);
    struct bench *b = bench_open((struct bench_shape){16, 64, 4096, 4096});
    peer_finish(&b->peer);
    peer_init(&b->peer, 32768); /* two large records */
    b->events.ring = &b->peer.attach.events;
    uint64_t rng = 9;
    for (uint64_t k = 0; k < 20; k++) {
        struct ask a = bench_mixed(&mix, k);
        bench_submit(b, &a);
    }
    size_t most_pending = 0;
    while (b->live) {
        b->take = test_random(&rng) % 4 ? 0 : test_random(&rng) % 40;
        bench_step(b);
        for (struct request *r = b->live; r; r = r->next_live) {
            most_pending = MAX(most_pending, r->pending.len);
        }
    }
    peer_take(&b->peer, BENCH_ALL);
    CHECK(most_pending > 0 && most_pending < 64 * 1024);
    for (uint64_t k = 0; k < 20; k++) {
        bench_check_same(want, b, k + 1);
    }
    bench_close(b);
    bench_close(want);
}

static void cancellation_takes_effect_at_once(void)
{
    for (int when = 0; when < 8; when++) {
        struct bench *b = bench_open((struct bench_shape){4, 8, 4096, 4096});
        struct ask a = ask_text(1, "a prompt of some length<copy>");
        a.m.n_choices = when % 2 ? 3 : 1;
        bench_submit(b, &a);
        a = ask_text(2, "other<copy>");
        bench_submit(b, &a);
        for (int i = 0; i < when; i++) {
            bench_step(b);
        }
        bench_cancel(b, 1);
        int64_t rows = fake_stats(b->models.v[0].engine).n_rows;
        peer_take(&b->peer, BENCH_ALL);
        CHECK(peer_answer(&b->peer, 1)->is_over);
        CHECK(fake_stats(b->models.v[0].engine).n_seqs <= 1);
        bench_run(b);
        CHECK_STR(peer_text(&b->peer, 2, 0), "other");
        CHECK(fake_stats(b->models.v[0].engine).n_rows - rows <= 12);
        bench_close(b);
    }
}

/* ---- faults ---- */

static void a_step_that_fails_fails_its_culprit_alone(void)
{
    const struct bench_mix mix = {4, true, false};
    struct bench *want = bench_alone(&mix, 12);
    struct bench *b = bench_open((struct bench_shape){16, 64, 4096, 4096});
    int32_t poison = FAKE_NEVER;
    fake_poison = poison;
    for (uint64_t k = 0; k < 12; k++) {
        struct ask a = bench_mixed(&mix, k);
        bench_submit(b, &a);
        if (k == 5) {
            int32_t ids[] = {FAKE_BYTE + 'x', poison, FAKE_BYTE + 'y'};
            a = ask_ids(100, ids, 3);
            bench_submit(b, &a);
        }
    }
    bench_run(b);
    fake_poison = -1;
    CHECK_INT(peer_answer(&b->peer, 100)->err, ERR_NUMERIC);
    for (uint64_t k = 0; k < 12; k++) {
        bench_check_same(want, b, k + 1);
    }
    bench_close(b);
    bench_close(want);
}

static void a_step_that_another_way_computes_fails_nobody(void)
{
    struct answer_choice *c[2];
    for (int n = 0; n < 2; n++) {
        struct bench *b = bench_open((struct bench_shape){4, 8, 4096, 4096});
        int32_t ids[] = {FAKE_BYTE + 'x', FAKE_NEVER, FAKE_BYTE + 'y'};
        struct ask a = ask_ids(1, ids, 3);
        a.m.max_tokens = 8;
        fake_poison = n == 0 ? -1 : FAKE_NEVER;
        fake_has_ways = true;
        bench_submit(b, &a);
        bench_run(b);
        fake_poison = -1;
        fake_has_ways = false;
        CHECK_INT(peer_answer(&b->peer, 1)->err, 0);
        c[n] = malloc(sizeof *c[n]);
        CHECK(c[n]);
        *c[n] = *bench_choice(b, 1, 0);
        bench_close(b);
    }
    CHECK(c[0]->n_ids > 0 && c[0]->n_ids == c[1]->n_ids);
    CHECK(memcmp(c[0]->ids, c[1]->ids, (size_t)c[0]->n_ids * sizeof c[0]->ids[0]) == 0);
    free(c[0]);
    free(c[1]);
}

/* ---- echo and logprobs ---- */

static void prompt_logprobs_are_those_of_the_model(void)
{
    static const int64_t chunks[] = {1, 7, 16, 512};
    static const char text[] = "what is a prompt";
    for (size_t k = 0; k < COUNT_OF(chunks); k++) {
        struct bench *b = bench_open((struct bench_shape){2, chunks[k], 4096, 4096});
        struct ask a = ask_text(1, text);
        a.m.flags |= MSG_ECHO | MSG_LOGPROBS;
        a.m.top_logprobs = 3;
        a.m.max_tokens = 4;
        a.m.n_choices = 2;
        bench_submit(b, &a);
        bench_run(b);
        int32_t tokens[64] = {FAKE_BOS};
        int64_t n = 1 + (int64_t)strlen(text);
        for (int64_t i = 1; i < n; i++) {
            tokens[i] = FAKE_BYTE + text[i - 1];
        }
        const struct answer_choice *c = bench_choice(b, 1, 0);
        CHECK_INT(c->n_echo, n);
        CHECK_INT(bench_choice(b, 1, 1)->n_echo, n);
        CHECK(strncmp(peer_text(&b->peer, 1, 0), text, strlen(text)) == 0);
        CHECK(strncmp(peer_text(&b->peer, 1, 1), text, strlen(text)) == 0);
        memcpy(tokens + n, c->ids, c->n_ids * sizeof(c->ids[0]));
        const struct answer *an = peer_answer(&b->peer, 1);
        /* Two choices, four entries for every prompt token but the first, and for each sampled one.
         */
        CHECK_INT(an->logprobs.len / sizeof(struct msg_logprob), 2 * 4 * (n - 1 + 4));
        for (int64_t i = 1; i < n; i++) {
            float x[FAKE_VOCAB];
            double total = 0;
            fake_logits(tokens, i, x);
            for (int v = 0; v < FAKE_VOCAB; v++) {
                total += exp((double)x[v]);
            }
            struct msg_logprob got[8];
            memcpy(got, an->logprobs.data + (size_t)(i - 1) * sizeof(got), sizeof(got));
            CHECK_INT(got[0].id, tokens[i]);
            CHECK(fabs((double)got[0].logprob - ((double)x[tokens[i]] - log(total))) < 1e-5);
            CHECK(got[1].logprob >= got[2].logprob && got[2].logprob >= got[3].logprob);
            CHECK(memcmp(got, got + 4, sizeof(got) / 2) == 0);
        }
        bench_close(b);
    }
}

int main(void)
{
    an_answer_ends_with_the_model();
    limits_end_an_answer();
    bad_parameters_fail_the_request_alone();
    stop_sequences_end_an_answer();
    results_do_not_depend_on_company();
    a_paused_request_computes_nothing();
    a_long_pause_gives_its_slot_to_others();
    a_full_ring_pauses_and_loses_nothing();
    cancellation_takes_effect_at_once();
    a_step_that_fails_fails_its_culprit_alone();
    a_step_that_another_way_computes_fails_nobody();
    prompt_logprobs_are_those_of_the_model();
    return 0;
}
