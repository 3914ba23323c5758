#include "tests/worker/loop_bench.h"
#include "shared/clock.h"
#include "tests/test.h"

static void no_progress(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    CHECK(done <= total);
}

struct loop_bench *loop_bench_load(const char *const *settings)
{
    struct loop_bench *b = calloc(1, sizeof(*b));
    struct err e = {0};
    CHECK(b);
    config_init(&b->config);
    for (; *settings; settings += 2) {
        CHECK_INT(config_set(&b->config, settings[0], settings[1], CONFIG_FROM_FLAG, &e), 0);
    }
    if (models_load(&b->models, &b->config, NULL, NULL, no_progress, NULL, &e) < 0) {
        TEST_FAIL("loading: %s", e.detail);
    }
    loop_bench_start(b, 1 << 20, 100);
    return b;
}

void loop_bench_start(struct loop_bench *b, size_t ring_bytes, size_t queue_size)
{
    int fds[2];
    peer_init(&b->peer, ring_bytes);
    CHECK_INT(channel_pair(fds), 0);
    channel_init(&b->supervisor, fds[0], MSG_SUPERVISOR, MSG_WORKER);
    channel_init(&b->worker, fds[1], MSG_WORKER, MSG_SUPERVISOR);
    b->supervisor.state = b->worker.state = MSG_STATE_RUNNING;
    CHECK_INT(loop_create(&b->models, &b->worker, &b->peer.attach, queue_size, 0, &b->loop), 0);
    peer_take(&b->peer, LOOP_BENCH_ALL);
    CHECK_INT(b->peer.n_models, b->models.n);
}

void loop_bench_close(struct loop_bench *b)
{
    loop_destroy(&b->loop);
    models_finish(&b->models);
    config_finish(&b->config);
    peer_finish(&b->peer);
    channel_close(&b->supervisor);
    channel_close(&b->worker);
    free(b);
}

void loop_bench_turn(struct loop_bench *b)
{
    struct err e = {0};
    int got = loop_turn(b->loop, &e);
    if (got < 0) {
        TEST_FAIL("the loop ended: %s: %s", err_text(got), e.detail);
    }
    peer_take(&b->peer, LOOP_BENCH_ALL);
    if (got == 0 && !peer_all_over(&b->peer)) {
        loop_sleep(b->loop);
    }
}

void loop_bench_run(struct loop_bench *b)
{
    uint64_t end = clock_ns() + 60000000000u;
    while (!peer_all_over(&b->peer)) {
        loop_bench_turn(b);
        CHECK(clock_ns() < end);
    }
}
