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

/* Joined products, see ops_run. */
void op_products_run(const struct op *op, const struct op_step *s, int64_t n);

/* The content of an order buffer. */
struct ops_order {
    int32_t *offsets; /* n_expert + 1: where each expert's rows begin */
    int32_t *slot_at; /* of each sorted place */
    int32_t *place_of;
};
static inline struct ops_order ops_order_at(const struct op_rows *r, int64_t n_expert,
                                            int64_t n_slots)
{
    int32_t *p = (int32_t *)(void *)r->data;
    return (struct ops_order){p, p + n_expert + 1, p + n_expert + 1 + n_slots};
}

size_t op_embed_scratch(const struct op_embed *o, int n_threads);
size_t op_attention_scratch(const struct op_attention *o, const struct kv_layer *kv, int64_t n_ctx,
                            int n_threads);
size_t op_heads_scratch(const struct op_heads *o, int64_t max_rows, int n_threads);

#endif
