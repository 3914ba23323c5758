/* A scheduler with real rings, for tests; no loop and no threads around it. */
#ifndef TESTS_WORKER_BENCH_H
#define TESTS_WORKER_BENCH_H

#include "tests/worker/fake_engine.h"
#include "tests/worker/fake_tokenizer.h"
#include "tests/worker/peer.h"
#include "worker/scheduler.h"

enum { BENCH_ALL = 1000 * 1000 };

struct bench {
    struct models models;
    struct peer peer;
    struct events events;
    struct scheduler *scheduler;
    struct request *live; /* linked by next_live */
    uint64_t n_arrived;
    uint64_t n_steps;
    uint64_t time_ns; /* added to the clock */
    size_t take;      /* events that the reader takes after a step */
};

struct bench_shape {
    int64_t n_seqs, chunk_rows, n_blocks, n_ctx;
};
extern const struct bench_shape bench_roomy;

struct bench *bench_around(struct models *m); /* of the first model; takes them over */
struct bench *bench_open(struct bench_shape s); /* around a fake engine (bench_mix.c) */
void bench_close(struct bench *b); /* nothing may be live */

struct request *bench_submit(struct bench *b, struct ask *a);
struct request *bench_find(struct bench *b, uint64_t id);
void bench_pause(struct bench *b, uint64_t id, bool is_paused);
void bench_cancel(struct bench *b, uint64_t id);
/* What the loop does in a turn. True when something was computed. */
bool bench_step(struct bench *b);
void bench_run(struct bench *b); /* until all have ended */

const struct answer_choice *bench_choice(struct bench *b, uint64_t id, uint32_t number);

struct bench_mix { /* the n-th request of a mixture is always the same, and has the id n + 1 */
    uint64_t seed;
    bool with_choices, with_echo;
};
struct ask bench_mixed(const struct bench_mix *mix, uint64_t n);
/* The first n, one after the other, in a bench with room. */
struct bench *bench_alone(const struct bench_mix *mix, uint64_t n);
/* Everything that was said of a request in two benches. */
void bench_check_same(struct bench *want, struct bench *got, uint64_t id);

#endif
