#include "tests/test.h"
#include "tests/worker/bench.h"

const struct bench_shape bench_roomy = {16, 512, 4096, 4096};

struct bench *bench_open(struct bench_shape s)
{
    struct models models;
    fake_models_init(&models, 1, s.n_seqs, s.chunk_rows, s.n_blocks, s.n_ctx);
    return bench_around(&models);
}

struct ask bench_mixed(const struct bench_mix *mix, uint64_t n)
{
    uint64_t rng = mix->seed * 1000003 + n;
    char text[700];
    size_t len = 1 + test_random(&rng) % (n % 5 ? 60 : 600);
    for (size_t i = 0; i < len; i++) {
        text[i] = (char)('a' + test_random(&rng) % 26);
    }
    text[len] = 0;
    if (n % 3 == 0) {
        strcat(text, "<copy>");
    }
    struct ask a = ask_text(n + 1, text);
    a.m.max_tokens = 1 + (uint32_t)(test_random(&rng) % 80);
    a.m.temperature = n % 2 ? 0.9f : 0;
    a.m.top_p = n % 4 == 1 ? 0.8f : 1;
    a.m.top_k = n % 4 == 3 ? 20 : 0;
    a.m.presence_penalty = n % 7 == 0 ? 0.5f : 0;
    a.m.repeat_penalty = n % 11 == 0 ? 1.2f : 1;
    if (n % 2) {
        a.m.flags |= MSG_LOGPROBS;
        a.m.top_logprobs = (uint32_t)(n % 4);
    }
    if (n % 4 == 0) {
        ask_stop(&a, "e");
        ask_stop(&a, "xy");
    }
    if (mix->with_choices && n % 3 == 1) {
        a.m.n_choices = 1 + (uint32_t)(test_random(&rng) % 5);
        a.m.choice_base = (uint32_t)(n % 3);
        a.m.flags |= n % 2 ? MSG_RANK : 0;
    }
    if (mix->with_echo && n % 5 == 2) {
        a.m.flags |= MSG_ECHO;
    }
    return a;
}

struct bench *bench_alone(const struct bench_mix *mix, uint64_t n)
{
    struct bench *b = bench_open(bench_roomy);
    for (uint64_t i = 0; i < n; i++) {
        struct ask a = bench_mixed(mix, i);
        bench_submit(b, &a);
        bench_run(b);
    }
    return b;
}

static void check_same_buf(const struct buf *a, const struct buf *b)
{
    CHECK_INT(a->len, b->len);
    CHECK(a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

void bench_check_same(struct bench *want, struct bench *got, uint64_t id)
{
    struct answer *x = peer_answer(&want->peer, id), *y = peer_answer(&got->peer, id);
    CHECK(x && y && x->is_over && y->is_over);
    CHECK_INT(x->err, y->err);
    for (int i = 0; i < LIMIT_CHOICES; i++) {
        const struct answer_choice *c = x->choices[i], *d = y->choices[i];
        CHECK(!c == !d);
        if (c) {
            CHECK_INT(c->n_ids, d->n_ids);
            CHECK(memcmp(c->ids, d->ids, c->n_ids * sizeof(c->ids[0])) == 0);
            CHECK(memcmp(c->text_at, d->text_at, c->n_ids * sizeof(c->text_at[0])) == 0);
            CHECK_INT(c->n_echo, d->n_echo);
            CHECK_INT(c->reason, d->reason);
            CHECK_INT(c->n_tokens, d->n_tokens);
            CHECK_INT(c->stop_index, d->stop_index);
            check_same_buf(&c->text, &d->text);
        }
    }
    if (y->choices[1] == NULL) { /* (several choices interleave) */
        check_same_buf(&x->logprobs, &y->logprobs);
        check_same_buf(&x->pieces, &y->pieces);
    }
}
