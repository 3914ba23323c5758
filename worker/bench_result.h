/* Results of `bench`: one line each, as a table or JSON, beside the machine's ceilings and beside
 * an earlier run (the baseline). */
#ifndef WORKER_BENCH_RESULT_H
#define WORKER_BENCH_RESULT_H

#include "shared/buf.h"
#include "shared/err.h"

struct bench_result {
    bool is_decode;
    int64_t n_tokens, depth, batch, n_threads;
    const char *kv_type;        /* static */
    double median, least, most; /* tokens per second */
    int64_t repeats;
    double bytes_per_s;         /* weights and KV that decoding read; 0 for prefill */
    double plain_bytes_per_s;   /* what a plain loop read in the same seconds; likewise */
    double ops_per_s;           /* multiplications and additions of the matrices */
};

struct bench_machine { /* with so many threads */
    int64_t n_threads;
    double dot_ops_per_s;
};

struct bench_baseline; /* an earlier run */

/* Reads what an earlier `bench --json` printed. Errors: ERR_CONFIG with path and place; -errno. */
MUST_CHECK int bench_baseline_open(const char *path, struct bench_baseline **ret, struct err *e);
void bench_baseline_close(struct bench_baseline **b);
/* The earlier median of the same test; 0: it was not in that run. */
double bench_baseline_find(const struct bench_baseline *b, const struct bench_result *r);

void bench_put_head(struct buf *b, bool has_baseline);
/* earlier: the baseline's median, or 0. */
void bench_put_line(struct buf *b, const struct bench_result *r, const struct bench_machine *m,
                    double earlier);
void bench_put_json(struct buf *b, const struct bench_result *r, const struct bench_machine *m);

#endif
