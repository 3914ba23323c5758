/* Between the files that launch ops (gpu_emit*.c): what they all ask of a value, and what each
 * does. ops: a group of n that are launched together; convert: the op that brings the group's last
 * value to the form of the next product, or NULL. */
#ifndef WORKER_GPU_GPU_EMIT_OP_H
#define WORKER_GPU_GPU_EMIT_OP_H

#include "worker/gpu/gpu_emit.h"

/* Rows of the value in this step. */
static inline int64_t gpu_emit_rows(const struct gpu_emit *t, const struct op_rows *y)
{
    const struct program_buffer *b = &t->p->bufs[y->buf];
    return (b->is_out ? t->n_out : t->n_rows) * b->mult;
}

/* Nobody reads the value but the ops that were joined with its own: NULL. */
static inline float *gpu_emit_unless_unread(const struct gpu_emit *t, const struct op_rows *y)
{
    return t->is_unread[y->buf] ? NULL : y->data;
}

static inline int8_t *gpu_emit_act(const struct op_rows *y)
{
    return (int8_t *)(void *)y->data;
}

static inline int64_t gpu_emit_bytes(const struct op_rows *x)
{
    return x->stride * (int64_t)sizeof(float);
}

/* The rotation's table, which the host made. */
static inline const float *gpu_emit_rope_table(const struct gpu_emit *t, const struct op_rows *x)
{
    return t->in.rope[t->rope_of[x->buf]];
}

void gpu_emit_glu(const struct gpu_emit *t, const struct op_glu *o, const struct op *convert);
void gpu_emit_convert(const struct gpu_emit *t, const struct op_convert *o);

struct norm_args gpu_emit_norm_args(const struct gpu_emit *t, const struct op_norm *o);

/* gpu_emit_matmul.c: products that share an input, and what is joined with them; norm: that makes
 * their input in their launches, NULL: it is there. */
void gpu_emit_matmul(const struct gpu_emit *t, const struct op *ops, size_t n,
                     const struct op_norm *norm);
/* A norm, its conversion and such products at once, where the products' kernels can; else
 * nothing. */
bool gpu_emit_normed_matmul(const struct gpu_emit *t, const struct op *ops, size_t n);

/* gpu_emit_experts.c */
void gpu_emit_route(const struct gpu_emit *t, const struct op_route *o);
void gpu_emit_order(const struct gpu_emit *t, const struct op_order *o);
void gpu_emit_experts(const struct gpu_emit *t, const struct op *ops, size_t n);
void gpu_emit_combine(const struct gpu_emit *t, const struct op_combine *o);
void gpu_emit_heads(const struct gpu_emit *t, const struct op *op);

/* gpu_emit_attention.c. kv_write with the rotations of queries and keys before it where they were
 * joined (n = 3); attention with those three before it, or NULL. */
void gpu_emit_kv_write(const struct gpu_emit *t, const struct op *ops, size_t n);
void gpu_emit_attention(const struct gpu_emit *t, const struct op *writes, const struct op *op,
                        const struct op *convert);

/* gpu_emit_recurrent.c: conv, ssm, delta. */
void gpu_emit_recurrent(const struct gpu_emit *t, const struct op *op);

#endif
