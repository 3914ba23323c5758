/* Vector primitives of the ops, one table per instruction set: each op's logic is written once (norm.c,
 * attention.c, ...) and calls these for its inner loops. The scalar table is the reference: plain C,
 * the C library's functions, sums in double. The others are compiled from one source (vec_simd.c).
 *
 * Every primitive computes each of its outputs in an order that depends on its own arguments only,
 * so results never depend on batch or threads. No alignment is asked for but where stated. */
#ifndef KERNELS_CPU_VEC_H
#define KERNELS_CPU_VEC_H

#include "kernels/ops.h"

enum { VEC_PAD = 16 }; /* tiles that primitives share are padded to this many floats */

/* Tiles of KV_BLOCK keys or values, in order of positions. */
struct vec_tiles {
    const void *const *at;
    const void *const *ask; /* while a tile is used, memory is asked for the one named here */
    int64_t n;
    size_t bytes; /* of a tile */
    enum type type;
};
enum { VEC_SUMS = 32 }; /* a row is summed in so many parts, by position */

struct vec {
    float (*sum)(const float *x, int64_t n);
    /* sum of (x - shift)^2 */
    float (*sum_squares)(const float *x, float shift, int64_t n);
    /* y = (x - shift) * scale * w + b; w and b may be NULL */
    void (*affine)(float *y, const float *x, float shift, float scale, const float *w,
                   const float *b, int64_t n);
    /* y = a_scale * a + b_scale * b; y may be a or b */
    void (*add)(float *y, const float *a, float a_scale, const float *b, float b_scale, int64_t n);
    /* y = cap * tanh(scale * x / cap) */
    void (*softcap)(float *y, const float *x, float scale, float cap, int64_t n);
    /* as op glu; up may be NULL */
    void (*glu)(enum op_glu_kind kind, float *y, const float *gate, const float *up, int64_t n,
                float alpha, float limit);
    /* Pairs (x[i], x[i + n]) turned by cos[i], sin[i]; y may be x. */
    void (*rotate)(float *y, const float *x, const float *cos, const float *sin, int64_t n);
    /* Pairs (x[2i], x[2i + 1]). */
    void (*rotate_adjacent)(float *y, const float *x, const float *cos, const float *sin,
                            int64_t n);
    /* Tiles of a Q8_0 KV cache, see kv_q8.h. */
    void (*keys_q8)(float *kt, const void *tile, int64_t dim);
    void (*values_q8)(float *v, int64_t stride, const void *tile, int64_t n, int64_t dim);
    /* F32 from and to the other types of a KV cache. */
    void (*widen)(float *y, const void *x, enum type type, int64_t n);
    void (*narrow)(void *y, const float *x, enum type type, int64_t n);

    /* Attention reads tiles of the cache's type as they are for so many rows; for more it is
     * quicker to widen a tile once, and above 0 rows there is no other way where this is 0. */
    int64_t few_rows;
    /* scores[r][0..n * KV_BLOCK) = q[r][dim] . tiles kt[dim][KV_BLOCK], each one chain of additions
     * over the dimensions; q dense. */
    void (*scores)(float *scores, int64_t stride, const float *q, int64_t n_rows,
                   const struct vec_tiles *k, int64_t dim);
    /* The largest of x, at least floor; n is a multiple of VEC_PAD. */
    float (*greatest)(const float *x, int64_t n, float floor);
    /* For each row r of x, `stride` apart, of n values, a multiple of VEC_PAD:
     * peaks[r][i % VEC_SUMS] = the larger of it and x[i]. */
    void (*climb)(float *peaks, const float *x, int64_t stride, int64_t n_rows, int64_t n);
    /* Likewise x = exp(x - shift[r]), and sums[r][i % VEC_SUMS] += x[i] in ascending order. */
    void (*soften)(float *x, int64_t stride, int64_t n_rows, int64_t n, const float *shift,
                   float *sums);
    /* acc[r][dim] += sum over t < n_tokens of p[r][t] * v[t][dim], in order of t. dim is a multiple
     * of VEC_PAD; acc and tiles dense. */
    void (*values)(float *acc, const float *p, int64_t p_stride, int64_t n_rows,
                   const struct vec_tiles *v, int64_t n_tokens, int64_t dim);

    /* One token of a short convolution over n channels: past is [width - 1][n], oldest first, and moves on.
     * weight [width][n]. */
    void (*conv)(float *y, const float *x, float *past, const float *weight, const float *bias,
                 int64_t n, int64_t width, int64_t stride, bool silu);
    /* One token of one Mamba-2 head: state [dim][n_state]. */
    void (*ssm)(float *y, float *state, const float *x, const float *b, const float *c, float decay,
                float dt, float d, int64_t dim, int64_t n_state);
    /* One token of one delta-net head, for the value columns [0, n): state [dim_k][stride]. */
    void (*delta)(float *y, float *state, int64_t stride, const float *q, const float *k,
                  const float *v, float decay, float rate, float scale, int64_t dim_k, int64_t n);
};

extern const struct vec vec_scalar;
#if defined(__x86_64__)
extern const struct vec vec_avx2, vec_avx512;
#endif

static inline const struct vec *vec_get(enum isa isa)
{
#if defined(__x86_64__)
    return isa == ISA_AVX512 ? &vec_avx512 : isa == ISA_AVX2 ? &vec_avx2 : &vec_scalar;
#else
    (void)isa;
    return &vec_scalar;
#endif
}

#endif
