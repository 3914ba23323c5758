/* The token loop with the real engine, tokenizer and template, and the demo model: it answers as
 * trained; what sixteen requests get together equals what each gets alone; a replay goes on; a
 * decode step allocates nothing. */
#include "shared/clock.h"
#include "tests/test.h"
#include "tests/worker/peer.h"
#include "worker/loop.h"

#include <stdatomic.h>

enum { NO_LIMIT = 1000 * 1000, N = 16 };

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

/* ---- a worker in this process ---- */

struct bench {
    struct config config;
    struct models models;
    struct peer peer;
    struct channel supervisor, worker;
    struct loop *loop;
};

static void no_progress(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    CHECK(done <= total);
}

static struct bench *open_bench(const char *const *settings)
{
    struct bench *b = calloc(1, sizeof(*b));
    struct err e = {0};
    int fds[2];
    CHECK(b);
    config_init(&b->config);
    for (; *settings; settings += 2) {
        CHECK_INT(config_set(&b->config, settings[0], settings[1], CONFIG_FROM_FLAG, &e), 0);
    }
    if (models_load(&b->models, &b->config, NULL, NULL, no_progress, NULL, &e) < 0) {
        TEST_FAIL("loading: %s", e.detail);
    }
    peer_init(&b->peer, 1 << 20);
    CHECK_INT(channel_pair(fds), 0);
    channel_init(&b->supervisor, fds[0], MSG_SUPERVISOR, MSG_WORKER);
    channel_init(&b->worker, fds[1], MSG_WORKER, MSG_SUPERVISOR);
    b->supervisor.state = b->worker.state = MSG_STATE_RUNNING;
    CHECK_INT(loop_create(&b->models, &b->worker, &b->peer.attach, 100, 0, &b->loop), 0);
    return b;
}

static void close_bench(struct bench *b)
{
    loop_destroy(&b->loop);
    models_finish(&b->models);
    config_finish(&b->config);
    peer_finish(&b->peer);
    channel_close(&b->supervisor);
    channel_close(&b->worker);
    free(b);
}

static void turn(struct bench *b)
{
    struct err e = {0};
    int got = loop_turn(b->loop, &e);
    if (got < 0) {
        TEST_FAIL("the loop ended: %s: %s", err_text(got), e.detail);
    }
    peer_take(&b->peer, NO_LIMIT);
    if (got == 0 && !peer_all_over(&b->peer)) {
        loop_sleep(b->loop);
    }
}

static void run_all(struct bench *b)
{
    while (!peer_all_over(&b->peer)) {
        turn(b);
    }
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

static void it_answers_as_trained(struct bench *b)
{
    struct ask a = question(1, 0);
    a.m.max_tokens = 0;
    peer_send(&b->peer, &a);
    a = question(2, 3);
    a.m.temperature = 0;
    peer_send(&b->peer, &a);
    run_all(b);
    CHECK(strstr(peer_text(&b->peer, 1, 0), "server"));
    CHECK(strstr(peer_text(&b->peer, 2, 0), "42"));
    CHECK_INT(peer_answer(&b->peer, 1)->choices[0]->reason, MSG_FINISH_STOP);
    printf("What is rocmforge? %s\n", peer_text(&b->peer, 1, 0));
    peer_forget(&b->peer);
}

static void together_equals_alone(struct bench *b)
{
    for (uint64_t i = 0; i < N; i++) {
        struct ask a = question(100 + i, i);
        peer_send(&b->peer, &a);
        run_all(b);
    }
    for (uint64_t i = 0; i < N; i++) {
        struct ask a = question(200 + i, i);
        peer_send(&b->peer, &a);
        turn(b);
    }
    run_all(b);
    for (uint64_t i = 0; i < N; i++) {
        peer_check_same(&b->peer, 100 + i, 200 + i, 0);
        struct answer *x = peer_answer(&b->peer, 100 + i), *y = peer_answer(&b->peer, 200 + i);
        CHECK_INT(x->logprobs.len, y->logprobs.len); /* to the last bit */
        CHECK(x->logprobs.len == 0 ||
              memcmp(x->logprobs.data, y->logprobs.data, x->logprobs.len) == 0);
    }
}

/* The answers of together_equals_alone, cut in the middle. */
static void a_replay_goes_on(struct bench *b)
{
    for (uint64_t i = 0; i < N; i++) {
        const struct answer_choice *was = peer_answer(&b->peer, 100 + i)->choices[0];
        size_t cut = was->n_ids / 2;
        struct ask a = question(300 + i, i);
        ask_add(&a, MSG_RESUME_IDS, 0, was->ids, cut * sizeof(was->ids[0]));
        peer_send(&b->peer, &a);
    }
    run_all(b);
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

static void a_decode_step_allocates_nothing(struct bench *b)
{
    for (uint64_t i = 0; i < N; i++) {
        struct ask a = question(400 + i, i);
        a.m.flags |= MSG_IGNORE_EOS;
        a.m.max_tokens = 60;
        peer_send(&b->peer, &a);
    }
    bool all_run = false;
    while (!all_run) {
        turn(b);
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
        peer_take(&b->peer, NO_LIMIT); /* (this end may allocate) */
    }
    printf("decode of 16 streams: %.2f ms a step\n", (double)(clock_ns() - start) / 20e6);
    CHECK_INT(count, 0);
    run_all(b);
    peer_forget(&b->peer);
}

static void few_blocks_change_nothing(void)
{
    /* A context of 300 tokens; the pool holds what the configuration's smallest share gives. */
    static const char *const small[] = {"model",
                                        "demo=deploy/demo/forge-tiny-Q8_0.gguf",
                                        "parallel",
                                        "5",
                                        "chunk_size",
                                        "16",
                                        "ctx_size",
                                        "300",
                                        "kv_memory_share",
                                        "0.05",
                                        NULL};
    struct bench *b = open_bench(small);
    struct bench *roomy = open_bench(demo);
    for (uint64_t i = 0; i < N; i++) {
        struct ask a = question(1 + i, i);
        peer_send(&b->peer, &a);
        a = question(1 + i, i);
        peer_send(&roomy->peer, &a);
    }
    run_all(b);
    run_all(roomy);
    for (uint64_t i = 1; i <= N; i++) {
        CHECK_STR(peer_text(&b->peer, i, 0), peer_text(&roomy->peer, i, 0));
    }
    close_bench(b);
    close_bench(roomy);
}

int main(void)
{
    struct bench *b = open_bench(demo);
    it_answers_as_trained(b);
    together_equals_alone(b);
    a_replay_goes_on(b);
    a_decode_step_allocates_nothing(b);
    close_bench(b);
    few_blocks_change_nothing();
    return 0;
}
