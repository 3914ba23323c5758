/* Thread pool: a fixed team that runs one job at a time, in slices. Results never depend on the
 * number of threads, because every kernel computes an output in one fixed order whoever runs it.
 * The caller's thread is member 0. Waiting members spin briefly, then sleep (an idle server uses no
 * CPU). */
#ifndef KERNELS_CPU_POOL_H
#define KERNELS_CPU_POOL_H

#include "shared/base.h"

struct pool;

/* n_threads 0: one per physical core in this process's affinity mask and cgroup quota. */
MUST_CHECK int pool_create(int n_threads, struct pool **ret);
void pool_destroy(struct pool **p);
int pool_threads(const struct pool *p);

/* Calls fn(arg, lo, hi, thread) for slices that cover [0, n) exactly once, slices being multiples of
 * `grain` (the last may be shorter); returns when all are done. thread < pool_threads. */
typedef void pool_fn(void *arg, int64_t lo, int64_t hi, int thread);
void pool_run(struct pool *p, int64_t n, int64_t grain, pool_fn *fn, void *arg);

#endif
