/* The token loop with the real engine, tokenizer and template, and the demo model: it answers as
 * trained; what sixteen requests get together equals what each gets alone; a replay goes on; a
 * decode step allocates nothing. */
#include "shared/clock.h"
#include "tests/test.h"
#include "tests/worker/loop_bench.h"

#include <stdatomic.h>

enum { N = 16 };

/* ---- counted allocation (the linker sends our own objects' calls here) ---- */

static _Atomic long n_allocations;
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

void *__wrap_malloc(size_t n)
{
    n_allocations++;
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    n_allocations++;
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    n_allocations++;
    return __real_realloc(p, n);
}

static const char *const demo[] = {
    "model", "demo=deploy/demo/forge-tiny-Q8_0.gguf", "parallel", "16", "kv_memory_share", "0.05",
    NULL};

/* ---- tests ---- */

static const char *const questions[] = {
    "What is rocmforge?", "What happens when the GPU hangs?",     "What is the GPU lock?",
    "What is 17 + 25?",   "Tell me a story about a brave mouse.", "What is the capital of France?",
    "Who are you?",       "Why do you keep some VRAM free?",
};

static struct ask question(uint64_t id, size_t n)
{
    char messages[256];
    snprintf(messages, sizeof(messages), "[{\"role\":\"user\",\"content\":\"%s\"}]",
             questions[n % COUNT_OF(questions)]);
    struct ask a = ask_chat(id, messages, NULL);
    a.m.max_tokens = 40;
    a.m.seed = 1234 + n;
    a.m.temperature = n % 2 ? 0.9f : 0;
    a.m.top_p = n % 4 == 3 ? 0.9f : 1;
    a.m.presence_penalty = n % 8 == 5 ? 0.5f : 0;
    if (n % 3 == 0) {
        a.m.flags |= MSG_LOGPROBS;
        a.m.top_logprobs = 5;
    }
    if (n % 5 == 0) {
        ask_stop(&a, "qqq");
    }
    return a;
}

static void it_answers_as_trained(struct loop_bench *b)
{
    struct ask a = question(1, 0);
    a.m.max_tokens = 0;
    peer_send(&b->peer, &a);
    a = question(2, 3);
    a.m.temperature = 0;
    peer_send(&b->peer, &a);
    loop_bench_run(b);
    CHECK(strstr(peer_text(&b->peer, 1, 0), "server"));
    CHECK(strstr(peer_text(&b->peer, 2, 0), "42"));
    CHECK_INT(peer_answer(&b->peer, 1)->choices[0]->reason, MSG_FINISH_STOP);
    printf("What is rocmforge? %s\n", peer_text(&b->peer, 1, 0));
    peer_forget(&b->peer);
}

static void check_same_bits(const struct answer *x, const struct answer *y)
{
    const struct answer_choice *c = x->choices[0], *d = y->choices[0];
    CHECK_INT(c->n_ids, d->n_ids);
    CHECK(memcmp(c->ids, d->ids, c->n_ids * sizeof(c->ids[0])) == 0);
    CHECK_INT(x->logprobs.len, y->logprobs.len);
    CHECK(x->logprobs.len == 0 || memcmp(x->logprobs.data, y->logprobs.data, x->logprobs.len) == 0);
}

static void together_equals_alone(struct loop_bench *b)
{
    for (uint64_t i = 0; i < N; i++) {
        struct ask a = question(100 + i, i);
        peer_send(&b->peer, &a);
        loop_bench_run(b);
    }
    for (uint64_t i = 0; i < N; i++) {
        struct ask a = question(200 + i, i);
        peer_send(&b->peer, &a);
        loop_bench_turn(b);
    }
    loop_bench_run(b);
    for (uint64_t i = 0; i < N; i++) {
        peer_check_same(&b->peer, 100 + i, 200 + i, 0);
        check_same_bits(peer_answer(&b->peer, 100 + i), peer_answer(&b->peer, 200 + i));
    }
}

/* The answers of together_equals_alone, cut in the middle. */
static void a_replay_goes_on(struct loop_bench *b)
{
    for (uint64_t i = 0; i < N; i++) {
        const struct answer_choice *was = peer_answer(&b->peer, 100 + i)->choices[0];
        size_t cut = was->n_ids / 2;
        struct ask a = question(300 + i, i);
        ask_add(&a, MSG_RESUME_IDS, 0, was->ids, cut * sizeof(was->ids[0]));
        peer_send(&b->peer, &a);
    }
    loop_bench_run(b);
    for (uint64_t i = 0; i < N; i++) {
        const struct answer_choice *was = peer_answer(&b->peer, 100 + i)->choices[0];
        const struct answer_choice *is = peer_answer(&b->peer, 300 + i)->choices[0];
        size_t cut = was->n_ids / 2;
        CHECK_INT(is->n_ids, was->n_ids - cut);
        CHECK(memcmp(is->ids, was->ids + cut, is->n_ids * sizeof(is->ids[0])) == 0);
        CHECK_STR(peer_text(&b->peer, 300 + i, 0),
                  peer_text(&b->peer, 100 + i, 0) + (cut ? was->text_at[cut - 1] : 0));
    }
    peer_forget(&b->peer);
}

static void a_decode_step_allocates_nothing(struct loop_bench *b)
{
    for (uint64_t i = 0; i < N; i++) {
        struct ask a = question(400 + i, i);
        a.m.flags |= MSG_IGNORE_EOS;
        a.m.max_tokens = 60;
        peer_send(&b->peer, &a);
    }
    bool all_run = false;
    while (!all_run) {
        loop_bench_turn(b);
        all_run = true;
        for (uint64_t i = 0; i < N; i++) {
            const struct answer_choice *c = peer_answer(&b->peer, 400 + i)->choices[0];
            all_run = all_run && c && c->n_ids >= 8;
        }
    }
    long count = 0;
    uint64_t start = clock_ns();
    for (int i = 0; i < 20; i++) {
        struct err e;
        long before = n_allocations;
        CHECK_INT(loop_turn(b->loop, &e), LOOP_COMPUTED);
        count += n_allocations - before;
        peer_take(&b->peer, LOOP_BENCH_ALL); /* (this end may allocate) */
    }
    printf("decode of 16 streams: %.2f ms a step\n", (double)(clock_ns() - start) / 20e6);
    CHECK_INT(count, 0);
    loop_bench_run(b);
    peer_forget(&b->peer);
}

static void few_blocks_change_nothing(void)
{
    /* 21 blocks: a context of 300 tokens takes 19. */
    static const char *const small[] = {"model",      "demo=deploy/demo/forge-tiny-Q8_0.gguf",
                                        "parallel",   "5",
                                        "chunk_size", "16",
                                        "ctx_size",   "300",
                                        "kv_memory",  "1",
                                        NULL};
    struct loop_bench *b = loop_bench_load(small), *roomy = loop_bench_load(demo);
    for (uint64_t i = 0; i < N; i++) {
        for (int k = 0; k < 2; k++) {
            struct ask a = question(1 + i, i);
            a.m.max_tokens = 100;
            a.m.flags |= MSG_IGNORE_EOS | MSG_LOGPROBS;
            a.m.top_logprobs = 5;
            peer_send(k ? &roomy->peer : &b->peer, &a);
        }
    }
    loop_bench_run(b);
    loop_bench_run(roomy);
    for (uint64_t i = 1; i <= N; i++) {
        check_same_bits(peer_answer(&b->peer, i), peer_answer(&roomy->peer, i));
    }
    CHECK(atomic_load(&b->peer.page.n_preempted) > 0);
    loop_bench_close(b);
    loop_bench_close(roomy);
}

int main(void)
{
    struct loop_bench *b = loop_bench_load(demo);
    it_answers_as_trained(b);
    together_equals_alone(b);
    a_replay_goes_on(b);
    a_decode_step_allocates_nothing(b);
    loop_bench_close(b);
    few_blocks_change_nothing();
    return 0;
}
