/* What the CPU forms of the ops share: how work is cut for the pool. */
#ifndef KERNELS_CPU_OPS_JOB_H
#define KERNELS_CPU_OPS_JOB_H

#include "kernels/ops.h"

/* Handing a job to the pool and waiting for it costs about as much as computing this many values. */
enum { OPS_JOB_VALUES = 8192 };

/* pool_run, but small work (n items of `values` values each) stays on the calling thread. */
static inline void ops_job(const struct op_step *s, int64_t n, int64_t values, pool_fn *fn, void *arg)
{
    if (n * values <= OPS_JOB_VALUES) {
        fn(arg, 0, n, 0);
    } else {
        pool_run(s->pool, n, 1, fn, arg);
    }
}

static inline float *op_row(const struct op_rows *r, int64_t i)
{
    return r->data + i * r->stride;
}

size_t op_attention_scratch(const struct op_attention *o, const struct kv_layer *kv, int64_t n_ctx,
                            int n_threads);
size_t op_heads_scratch(const struct op_heads *o, int64_t max_rows, int n_threads);

#endif
