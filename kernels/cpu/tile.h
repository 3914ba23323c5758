/* The micro-kernels: SIMD_ROWS rows of a panel times a few tokens, for every type. Included by
 * matmul_avx*.c only, which names the target with compiler flags.
 *
 * Each output is one chain of float additions over the units (or columns) in ascending order,
 * whatever the tile's shape: a token alone and a token among sixteen get the same bits. Integer
 * types: a unit's eight quads are unpacked once for all tokens of the tile; for each token 8 dot
 * products of 4 (or 8 instructions of 64 multiply-adds), a conversion and a fused multiply-add with
 * both scales. */
#ifndef KERNELS_CPU_TILE_H
#define KERNELS_CPU_TILE_H

#include "kernels/cpu/matmul_kernel.h"
#include "kernels/cpu/unpack_iq.h"
#include "kernels/half.h"

enum {
    TILE_TOKENS = SIMD_ROWS == 16 ? 16 : 4, /* as the registers allow */
    TILE_CHAINS = 8,                        /* sums of floats that run side by side */
    TILE_CACHE_BYTES = 256 * 1024,          /* of weights that stay in L2 while all tokens pass */
};

/* How a type's codes become weights: scale * (code - 2^offset) or, is_affine, scale * code + min.
 */
struct tile_kind {
    int units; /* of a block */
    int bytes; /* of a panel block */
    int group; /* columns with one scale: 16 or 32 */
    bool is_affine;
    int offset;    /* log2 */
    int limit;     /* the largest code; see simd_dot */
    bool is_act16; /* MATMUL_ACT_Q8_16 */
};
typedef void tile_head_fn(const void *block, int half, struct unpack_head *h);
typedef void tile_unit_fn(const void *block, int u, int half, simd_i *w);

/* Where a tile stands. */
struct tile {
    const struct matmul *m;
    const char *panel;
    size_t stride; /* from panel to panel */
    int64_t row;   /* the panel's first */
    int64_t token; /* the first */
};

SIMD_INLINE struct tile tile_next(struct tile t)
{
    t.panel += t.stride;
    t.row += PANEL_ROWS;
    return t;
}

/* Puts the sums of n tokens for the SIMD_ROWS rows from `row` on. Out of line: a tile's code is its
 * loop. */
static __attribute__((noinline)) void tile_put(const struct tile *t, int64_t row, int n,
                                               const simd_f *sums)
{
    const struct matmul *m = t->m;
    const int64_t n_rows = MIN(m->w->n_rows - row, SIMD_ROWS); /* none where a half is padding */
    for (int i = 0; i < n; i++) {
        const int64_t at = (t->token + i) * m->y_stride + row;
        if (n_rows == SIMD_ROWS) {
            simd_f y = sums[i];
            y = m->bias ? simd_add(y, simd_load_f32(m->bias + row)) : y;
            y = m->add ? simd_add(y, simd_load_f32(m->add + at)) : y;
            simd_store_f32(m->y + at, y);
            continue;
        }
        float tail[SIMD_ROWS];
        simd_store_f32(tail, sums[i]);
        for (int64_t r = 0; r < n_rows; r++) {
            float y = m->bias ? tail[r] + m->bias[row + r] : tail[r];
            m->y[at + r] = m->add ? y + m->add[at + r] : y;
        }
    }
}

/* The integer sum over n quads from quad q on; neg_sum is that of the activations there. */
SIMD_INLINE simd_i tile_sum(const struct tile_kind *k, const simd_i *w, const struct matmul_unit *x,
                            const int q, const int n, const int32_t *neg_sum)
{
    const bool has_offset = !k->is_affine && (k->limit < 255 || SIMD_HAS_WIDE_DOT);
    simd_i sum = has_offset ? simd_shift_left32(simd_set32(*neg_sum), k->offset) : simd_set32(0);
    return simd_dot(sum, w + q, x->q + 4 * q, n, k->limit);
}

/* One unit of one token: x has a scale for 32 (d[0]) or, is_act16, for each 16. */
SIMD_INLINE simd_f tile_step(const struct tile_kind *k, const struct unpack_head *h, int u,
                             const simd_i *w, const struct matmul_unit *x, simd_f acc)
{
    if (k->group == 32 && !k->is_act16) {
        simd_i sum = tile_sum(k, w, x, 0, 8, &x->neg_sum);
        acc = simd_fma(simd_to_f32(sum), simd_mul(h->scale[u], simd_set_f32(x->d[0])), acc);
        return k->is_affine ? simd_fma(h->min[u], simd_set_f32(x->d_sum), acc) : acc;
    }
    const int g = k->group == 32 ? u : 2 * u, step = k->group == 32 ? 0 : 1;
    simd_f first = simd_to_f32(tile_sum(k, w, x, 0, 4, &x->neg_sum16[0]));
    simd_f second = simd_to_f32(tile_sum(k, w, x, 4, 4, &x->neg_sum16[1]));
    if (k->is_act16) {
        acc = simd_fma(first, simd_mul(h->scale[g], simd_set_f32(x->d[0])), acc);
        acc = simd_fma(second, simd_mul(h->scale[g + step], simd_set_f32(x->d[1])), acc);
    } else {
        first = simd_fma(second, h->scale[g + step], simd_mul(first, h->scale[g]));
        acc = simd_fma(first, simd_set_f32(x->d[0]), acc);
    }
    if (k->is_affine && k->group == 32) {
        acc = simd_fma(h->min[u], simd_set_f32(x->d_sum), acc);
    } else if (k->is_affine) {
        acc = simd_fma(h->min[g], simd_set_f32(x->d_sum16[0]), acc);
        acc = simd_fma(h->min[g + 1], simd_set_f32(x->d_sum16[1]), acc);
    }
    return acc;
}

/* n tokens and `halves` halves of the panel from `half` on; n and halves are constants wherever
 * this is inlined. */
SIMD_INLINE void tile_int(const struct tile_kind *k, tile_head_fn *head, tile_unit_fn *unit,
                          const struct tile *t, const int n, const int half, const int halves)
{
    const struct matmul *m = t->m;
    const size_t stride = matmul_act_bytes(MATMUL_ACT_Q8, m->w->n_cols);
    const char *x = (const char *)m->x + (size_t)t->token * stride;
    const char *block = t->panel;
    simd_f acc[2][TILE_TOKENS];
#pragma GCC unroll 32
    for (int i = 0; i < n * halves; i++) {
        acc[i / n][i % n] = simd_set_f32(0);
    }
    for (int64_t b = m->w->n_cols / PANEL_UNIT / k->units; b > 0; b--, block += k->bytes) {
#pragma GCC unroll 2
        for (int a = 0; a < halves; a++) {
            struct unpack_head h;
            head(block, half + a, &h);
#pragma GCC unroll 1
            for (int u = 0; u < k->units; u++) {
                simd_i w[8];
                unit(block, u, half + a, w);
#pragma GCC unroll 16
                for (int i = 0; i < n; i++) {
                    const struct matmul_unit *xi = (const void *)(x + (size_t)i * stride);
                    acc[a][i] = tile_step(k, &h, u, w, xi + u, acc[a][i]);
                }
            }
        }
        x += (size_t)k->units * sizeof(struct matmul_unit);
    }
    for (int a = 0; a < halves; a++) {
        tile_put(t, t->row + SIMD_ROWS * (half + a), n, acc[a]);
    }
}

/* Whole panels times n tokens. A single token takes both halves in one pass, so that memory is read
 * in order. */
SIMD_INLINE void tile_int_panels(const struct tile_kind *k, tile_head_fn *head, tile_unit_fn *unit,
                                 struct tile t, int64_t n_panels, const int n)
{
    for (; n_panels > 0; n_panels--, t = tile_next(t)) {
        if (SIMD_HALVES == 1 || n == 1) {
            tile_int(k, head, unit, &t, n, 0, SIMD_HALVES);
        } else {
            tile_int(k, head, unit, &t, n, 0, 1);
            tile_int(k, head, unit, &t, n, 1, 1);
        }
    }
}

/* --- F32, F16, BF16 -------------------------------------------------------------------------- */

typedef simd_f tile_load_fn(const char *p);

SIMD_INLINE simd_f tile_load_f32(const char *p)
{
    return simd_load_f32(p);
}
SIMD_INLINE simd_f tile_load_f16(const char *p)
{
    return simd_load_f16(p);
}
SIMD_INLINE simd_f tile_load_bf16(const char *p)
{
    return simd_as_f32(simd_shift_left32(simd_load_u16(p), 16));
}

/* `panels` panels times n tokens. */
SIMD_INLINE void tile_float(const int elem_bytes, tile_load_fn *load, const struct tile *t,
                            const int n, const int panels)
{
    const int64_t n_cols = t->m->w->n_cols;
    const float *x = (const float *)t->m->x + t->token * n_cols;
    const char *w = t->panel;
    simd_f acc[TILE_CHAINS][TILE_CHAINS]; /* by panel and half, then token */
#pragma GCC unroll 16
    for (int i = 0; i < n * panels * SIMD_HALVES; i++) {
        acc[i / n][i % n] = simd_set_f32(0);
    }
    for (int64_t k = 0; k < n_cols; k++, w += PANEL_ROWS * elem_bytes, x++) {
        simd_f wk[TILE_CHAINS];
#pragma GCC unroll 8
        for (int v = 0; v < panels * SIMD_HALVES; v++) {
            wk[v] = load(w + (size_t)(v / SIMD_HALVES) * t->stride +
                         v % SIMD_HALVES * SIMD_ROWS * elem_bytes);
        }
#pragma GCC unroll 16
        for (int i = 0; i < n; i++) {
            simd_f xi = simd_set_f32(x[i * n_cols]);
#pragma GCC unroll 8
            for (int v = 0; v < panels * SIMD_HALVES; v++) {
                acc[v][i] = simd_fma(wk[v], xi, acc[v][i]);
            }
        }
    }
    for (int v = 0; v < panels * SIMD_HALVES; v++) {
        tile_put(t, t->row + SIMD_ROWS * v, n, acc[v]);
    }
}

/* Whole panels times n tokens. A chain of additions waits for itself, so several run side by side.
 */
SIMD_INLINE void tile_float_panels(const int elem_bytes, tile_load_fn *load, struct tile t,
                                   int64_t n_panels, const int n)
{
    const int together = MAX(TILE_CHAINS / (n * SIMD_HALVES), 1);
    for (; n_panels >= together; n_panels -= together) {
        tile_float(elem_bytes, load, &t, n, together);
        for (int i = 0; i < together; i++) {
            t = tile_next(t);
        }
    }
    for (; together > 1 && n_panels > 0; n_panels--, t = tile_next(t)) {
        tile_float(elem_bytes, load, &t, n, 1);
    }
}

#endif
