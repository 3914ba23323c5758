/* A token loop in this process, with real rings and a real control channel, for tests. */
#ifndef TESTS_WORKER_LOOP_BENCH_H
#define TESTS_WORKER_LOOP_BENCH_H

#include "tests/worker/peer.h"
#include "worker/loop.h"

enum { LOOP_BENCH_ALL = 1000 * 1000 };

struct loop_bench {
    struct config config; /* of models that were loaded; else unused */
    struct models models;
    struct peer peer;
    struct channel supervisor, worker;
    struct loop *loop;
};

/* The models of these settings (key, value, ..., NULL), loaded from their files. */
struct loop_bench *loop_bench_load(const char *const *settings);
/* Around b->models, which the caller has filled in. */
void loop_bench_start(struct loop_bench *b, size_t ring_bytes, size_t queue_size);
void loop_bench_close(struct loop_bench *b);

/* One turn; sleeps where nothing was computed and an answer is still due. */
void loop_bench_turn(struct loop_bench *b);
void loop_bench_run(struct loop_bench *b); /* until every answer is over; a minute at most */

#endif
