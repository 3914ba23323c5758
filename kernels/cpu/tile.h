/* The micro-kernels: rows of panels times a few tokens, for every type. Included by matmul_avx*.c
 * only, which names the target with compiler flags.
 *
 * Each output is one chain of float additions over the units (or columns) in ascending order,
 * whatever the tile's shape: a token alone and a token among five hundred get the same bits.
 *
 * Few tokens (tile_int): a unit's eight quads are unpacked from the packed form to registers and
 * meet 1 to 8 tokens. Memory is the limit: a unit of Q4_0 is 288 bytes for 16 rows.
 * Many tokens (tile_wide): panels are unpacked to bytes once, two of them meet 6 or 4 tokens. For
 * 16 rows and one token: 8 dot products (1,024 operations), a multiplication and a fused
 * multiply-add on the two wide pipes, a conversion beside them; 5.7 loads. */
#ifndef KERNELS_CPU_TILE_H
#define KERNELS_CPU_TILE_H

#include "kernels/cpu/matmul_kernel.h"
#include "kernels/cpu/unpack_iq.h"
#include "kernels/half.h"

enum {
    TILE_TOKENS = SIMD_ROWS == 16 ? 8 : 4, /* as the registers allow */
    TILE_SIDE = 4,                         /* tokens whose dot products run side by side */
    TILE_CHAINS = 8,                       /* sums of floats that run side by side */
    TILE_CACHE_BYTES = 256 * 1024,         /* of weights that stay in L2 while all tokens pass */
    TILE_WIDE_BYTES = 512 * 1024,          /* of wide panels; half of a common L2 */
    TILE_AHEAD_BYTES = 8192, /* what memory is asked for while a tile works */
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

/* From one vector of a tile's rows to the next: of panels side by side where a register holds a panel's
 * rows, else of halves. */
SIMD_INLINE size_t tile_step_bytes(const struct tile *t)
{
    return SIMD_HALVES == 1 ? t->stride : 4 * SIMD_ROWS;
}

static __attribute__((noinline)) void tile_put_some(const struct tile *t, int64_t row,
                                                    int64_t n_rows, int n, const simd_f *sums)
{
    const struct matmul *m = t->m;
    for (int i = 0; i < n; i++) {
        const int64_t at = (t->token + i) * m->y_stride + row;
        float tail[SIMD_ROWS];
        simd_store_f32(tail, sums[i]);
        for (int64_t r = 0; r < n_rows; r++) {
            float y = m->bias ? tail[r] + m->bias[row + r] : tail[r];
            m->y[at + r] = m->add ? y + m->add[at + r] : y;
        }
    }
}

/* Puts the sums of n tokens for the SIMD_ROWS rows from `row` on. */
SIMD_INLINE void tile_put(const struct tile *t, int64_t row, const int n, const simd_f *sums)
{
    const struct matmul *m = t->m;
    const int64_t n_rows = m->w->n_rows - row; /* none where a half is padding */
    simd_f y[TILE_TOKENS];                     /* what a call sees would live in memory all along */
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
        y[i] = sums[i];
    }
    if (n_rows < SIMD_ROWS) {
        tile_put_some(t, row, n_rows, n, y);
        return;
    }
    const int64_t at = t->token * m->y_stride + row;
    const simd_f bias = m->bias ? simd_load_f32(m->bias + row) : simd_set_f32(0);
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
        simd_f v = m->bias ? simd_add(sums[i], bias) : sums[i];
        v = m->add ? simd_add(v, simd_load_f32(m->add + at + i * m->y_stride)) : v;
        simd_store_f32(m->y + at + i * m->y_stride, v);
    }
}

/* Asks memory for part u of the block that comes TILE_AHEAD_BYTES after this one. A unit reads its
 * block in several places at once, which the machine does not foresee as it does a plain stream:
 * without this, one token got 30 GB/s through Q6_K where a plain stream gave 48. */
SIMD_INLINE void tile_fetch(const struct tile_kind *k, const char *block, int u)
{
    const int lines = (k->bytes + 64 * k->units - 1) / (64 * k->units);
#pragma GCC unroll 16
    for (int i = 0; i < lines; i++) {
        _mm_prefetch(block + TILE_AHEAD_BYTES + (u * lines + i) * 64, _MM_HINT_T0);
    }
}

/* acc + the integer sums of a unit (of its halves sum[0] and sum[step]) times their scales. */
SIMD_INLINE simd_f tile_scale(const struct tile_kind *k, const simd_i *sum, const int step,
                              simd_f scale0, simd_f scale1, const struct matmul_unit *x, simd_f acc)
{
    simd_f first = simd_to_f32(sum[0]);
    if (k->group == 32 && !k->is_act16) {
        return simd_fma(first, simd_mul(scale0, simd_set_f32(x->d[0])), acc);
    }
    simd_f second = simd_to_f32(sum[step]);
    if (k->is_act16) {
        acc = simd_fma(first, simd_mul(scale0, simd_set_f32(x->d[0])), acc);
        return simd_fma(second, simd_mul(scale1, simd_set_f32(x->d[1])), acc);
    }
    first = simd_fma(second, scale1, simd_mul(first, scale0));
    return simd_fma(first, simd_set_f32(x->d[0]), acc);
}

/* acc + a unit's minima times the sums of x. */
SIMD_INLINE simd_f tile_min(const struct tile_kind *k, simd_f min0, simd_f min1,
                            const struct matmul_unit *x, simd_f acc)
{
    if (k->group == 32) {
        return simd_fma(min0, simd_set_f32(x->d_sum), acc);
    }
    acc = simd_fma(min0, simd_set_f32(x->d_sum16[0]), acc);
    return simd_fma(min1, simd_set_f32(x->d_sum16[1]), acc);
}

/* One unit of `tokens` tokens side by side: x has a scale for 32 (d[0]) or, is_act16, for each 16.
 */
SIMD_INLINE void tile_step(const struct tile_kind *k, const struct unpack_head *h, int u,
                           const simd_i *w, const char *x, size_t x_stride, const int tokens,
                           simd_f *acc)
{
    const bool has_offset = !k->is_affine && (k->limit < 255 || SIMD_HAS_WIDE_DOT);
    const int parts = k->group == 32 && !k->is_act16 ? 1 : 2, n = 8 / parts;
    const struct matmul_unit *xt[TILE_SIDE];
    const int8_t *q[2][TILE_SIDE];
    simd_i sum[TILE_SIDE][2];
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++) {
        xt[t] = (const void *)(x + (size_t)t * x_stride);
        __asm__("" : "+r"(xt[t])); /* else every quad's address becomes a value of its own */
#pragma GCC unroll 2
        for (int p = 0; p < parts; p++) {
            sum[t][p] = simd_set32(0);
            if (has_offset) {
                sum[t][p] = simd_set32(parts == 1 ? xt[t]->neg_sum : xt[t]->neg_sum16[p]);
                sum[t][p] = simd_shift_right_signed32(sum[t][p], 7 - k->offset);
            }
            q[p][t] = xt[t]->q + 4 * p * n;
        }
    }
#pragma GCC unroll 2
    for (int p = 0; p < parts; p++) {
        simd_dots(&sum[0][p], 2, w + p * n, q[p], tokens, n, k->limit);
    }
    const int g = k->group == 32 ? u : 2 * u, step = k->group == 32 ? 0 : 1;
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++) {
        acc[t] = tile_scale(k, sum[t], 1, h->scale[g], h->scale[g + step], xt[t], acc[t]);
        if (k->is_affine) {
            acc[t] = tile_min(k, h->min[g], h->min[g + step], xt[t], acc[t]);
        }
    }
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
                const char *xu = x + (size_t)u * sizeof(struct matmul_unit);
                if (a == 0) {
                    tile_fetch(k, block, u);
                }
                unit(block, u, half + a, w);
#pragma GCC unroll 16
                for (int i = 0; i < n; i += TILE_SIDE) {
                    tile_step(k, &h, u, w, xu + (size_t)i * stride, stride, MIN(n - i, TILE_SIDE),
                              &acc[a][i]);
                }
            }
        }
        x += (size_t)k->units * sizeof(struct matmul_unit);
    }
#pragma GCC unroll 2
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

/* --- many tokens ------------------------------------------------------------------------------
 *
 * Where a panel meets many tokens, its codes are unpacked once into wide panels, which stay in L2:
 * for each unit eight planes of bytes, then the scales and the minima of its groups as floats. The
 * numbers are those that the tiles above unpack, so the results are the same bits. */

SIMD_INLINE int tile_wide_groups(const struct tile_kind *k)
{
    return 32 / k->group;
}
SIMD_INLINE size_t tile_wide_bytes(const struct tile_kind *k) /* of a unit */
{
    return 8 * 64 + (size_t)(tile_wide_groups(k) * (k->is_affine ? 2 : 1)) * 64;
}
SIMD_INLINE float *tile_wide_scales(char *unit, int group, int half)
{
    return (float *)(void *)(unit + (8 + group) * 64) + SIMD_ROWS * half;
}

/* Codes with an offset become code - 2^offset + 128, which spares the tile a shift; not where the
 * dot product wants small codes. */
SIMD_INLINE bool tile_is_lifted(const struct tile_kind *k)
{
    return SIMD_HAS_WIDE_DOT && !k->is_affine;
}

SIMD_INLINE void tile_widen(const struct tile_kind *k, tile_head_fn *head, tile_unit_fn *unit,
                            const char *block, int64_t n_blocks, char *to)
{
    const simd_i lift = simd_set8(tile_is_lifted(k) ? 128 - (1 << k->offset) : 0);
    const int groups = tile_wide_groups(k);
    for (; n_blocks > 0; n_blocks--, block += k->bytes) {
#pragma GCC unroll 2
        for (int half = 0; half < SIMD_HALVES; half++) {
            struct unpack_head h;
            char *at = to;
            head(block, half, &h);
#pragma GCC unroll 1
            for (int u = 0; u < k->units; u++, at += tile_wide_bytes(k)) {
                simd_i w[8];
                if (half == 0) {
                    tile_fetch(k, block, u);
                }
                unit(block, u, half, w);
#pragma GCC unroll 8
                for (int q = 0; q < 8; q++) {
                    simd_store(at + 64 * q + 4 * SIMD_ROWS * half, simd_add8(w[q], lift));
                }
#pragma GCC unroll 2
                for (int g = 0; g < groups; g++) {
                    simd_store_f32(tile_wide_scales(at, g, half), h.scale[groups * u + g]);
                    if (k->is_affine) {
                        simd_store_f32(tile_wide_scales(at, groups + g, half),
                                       h.min[groups * u + g]);
                    }
                }
            }
        }
        to += (size_t)k->units * tile_wide_bytes(k);
    }
}

/* Tokens of a tile of wide panels: what the registers hold. */
SIMD_INLINE int tile_wide_tokens(const struct tile_kind *k)
{
    return SIMD_ROWS == 16 && k->group == 32 && !k->is_act16 ? 6 : 4;
}

/* `vecs` vectors of rows and tile_wide_tokens tokens. */
SIMD_INLINE void tile_wide(const struct tile_kind *k, const struct tile *t, const int vecs)
{
    enum { STEP = 2, TOKENS = 6 };
    const size_t step = tile_step_bytes(t);
    const int tokens = tile_wide_tokens(k), groups = tile_wide_groups(k);
    const int parts = groups == 1 && !k->is_act16 ? 1 : 2, n = 8 / parts;
    const int shift = SIMD_HAS_WIDE_DOT ? 0 : 7 - k->offset;
    const bool has_offset = !k->is_affine && (k->limit < 255 || SIMD_HAS_WIDE_DOT);
    const size_t x_stride = matmul_act_bytes(MATMUL_ACT_Q8, t->m->w->n_cols);
    const char *x = (const char *)t->m->x + (size_t)t->token * x_stride;
    const char *w = t->panel;
    simd_f acc[TOKENS * STEP];
#pragma GCC unroll 16
    for (int i = 0; i < tokens * STEP; i++) {
        acc[i] = simd_set_f32(0);
    }
    for (int64_t u = t->m->w->n_cols / PANEL_UNIT; u > 0; u--) {
        const struct matmul_unit *xt[TOKENS];
        const int8_t *q[2][TOKENS];
        simd_i sum[2][TOKENS * STEP];
#pragma GCC unroll 8
        for (int i = 0; i < tokens; i++) {
            xt[i] = (const void *)(x + (size_t)i * x_stride);
#pragma GCC unroll 2
            for (int p = 0; p < parts; p++) {
                simd_i start = simd_set32(0);
                if (has_offset) {
                    start = simd_set32(parts == 1 ? xt[i]->neg_sum : xt[i]->neg_sum16[p]);
                    start = shift ? simd_shift_right_signed32(start, shift) : start;
                }
#pragma GCC unroll 2
                for (int v = 0; v < vecs; v++) {
                    sum[p][i * STEP + v] = start;
                }
                q[p][i] = xt[i]->q + 4 * n * p;
            }
        }
#pragma GCC unroll 2
        for (int p = 0; p < parts; p++) {
            simd_dots_wide(sum[p], STEP, w + 64 * n * p, step, vecs, q[p], tokens, n, k->limit);
        }
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) {
            const char *scales = w + (size_t)v * step + 8 * 64, *mins = scales + 64 * groups;
            const simd_f scale0 = simd_load_f32(scales);
            const simd_f scale1 = groups == 2 ? simd_load_f32(scales + 64) : scale0;
#pragma GCC unroll 8
            for (int i = 0; i < tokens; i++) {
                acc[i * STEP + v] = tile_scale(k, &sum[0][i * STEP + v], TOKENS * STEP, scale0,
                                               scale1, xt[i], acc[i * STEP + v]);
                if (k->is_affine) {
                    acc[i * STEP + v] =
                        tile_min(k, simd_load_f32(mins), simd_load_f32(mins + 64 * (groups - 1)),
                                 xt[i], acc[i * STEP + v]);
                }
            }
        }
        x += sizeof(struct matmul_unit);
        w += tile_wide_bytes(k);
    }
#pragma GCC unroll 2
    for (int v = 0; v < vecs; v++) {
        simd_f sums[TOKENS];
#pragma GCC unroll 8
        for (int i = 0; i < tokens; i++) {
            sums[i] = acc[i * STEP + v];
        }
        tile_put(t, t->row + SIMD_ROWS * v, tokens, sums);
    }
}

SIMD_INLINE void tile_wide_panels(const struct tile_kind *k, struct tile t, int64_t n_panels)
{
    for (; SIMD_HALVES == 1 && n_panels >= 2; n_panels -= 2, t = tile_next(tile_next(t))) {
        tile_wide(k, &t, 2);
    }
    for (; n_panels > 0; n_panels--, t = tile_next(t)) {
        tile_wide(k, &t, SIMD_HALVES);
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
            const char *at = w + (size_t)(v / SIMD_HALVES) * t->stride;
            wk[v] = load(at + v % SIMD_HALVES * SIMD_ROWS * elem_bytes);
            if (n > 2 && v % SIMD_HALVES == 0) { /* fewer keep up without */
                _mm_prefetch(at + TILE_AHEAD_BYTES, _MM_HINT_T0);
            }
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
#pragma GCC unroll 8
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
