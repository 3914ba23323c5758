/* The micro-kernel of F16 and BF16: panels of 16-bit integers (struct panel_words) times activations
 * of 16 bits (struct matmul_words). Included by tile_table.h only.
 *
 * A dot product of 64 columns is exact in 32 bits (MATMUL_WORDS_LENGTH says why), so the order within
 * it is free; then one fused multiply-add a unit, units in ascending order, as tile.h has it.
 * For 16 rows, a unit (2,048 bytes) and a token: 32 dot products (2,048 operations), a
 * multiplication and a fused multiply-add, where F32 needs 64 fused multiply-adds. */
#ifndef KERNELS_CPU_TILE_WORDS_H
#define KERNELS_CPU_TILE_WORDS_H

#include "kernels/cpu/tile.h"

enum {
    TILE_WORDS_TOKENS = SIMD_ROWS == 16 ? 6 : 4, /* of many */
    TILE_WORDS_UNROLL = 32,
    TILE_WORDS_PLANES = PANEL_WORDS_UNIT / 2,
    TILE_WORDS_MAX = 2 * TILE_TOKENS, /* outputs of a tile, or parts of them */
};

/* n tokens and `vecs` vectors of rows; in `chains` parts, since a chain of dot products waits for
 * itself. is_stream: the panel comes from memory. All are constants wherever this is inlined. */
SIMD_INLINE void tile_words(const struct tile *t, const int n, const int vecs, const int chains,
                            const bool is_stream)
{
    const size_t x_stride = matmul_act_bytes(MATMUL_ACT_Q16, t->m->w->n_cols);
    const size_t step = tile_step_bytes(t);
    const char *x = (const char *)t->m->x + (size_t)t->token * x_stride;
    const char *w = t->panel;
    simd_f acc[TILE_WORDS_MAX];
#pragma GCC unroll 16
    for (int i = 0; i < n * vecs; i++) {
        acc[i] = simd_set_f32(0);
    }
    for (int64_t left = panel_words_units(t->m->w->n_cols); left > 0; left -= PANEL_WORDS_UNITS) {
        const char *head = w;
        w += 64;
#pragma GCC unroll 1
        for (int64_t u = 0; u < MIN(left, (int64_t)PANEL_WORDS_UNITS); u++) {
            const struct matmul_words *xt[TILE_TOKENS];
            simd_i sum[TILE_WORDS_MAX];
#pragma GCC unroll 8
            for (int i = 0; i < n; i++) {
                xt[i] = (const void *)(x + (size_t)i * x_stride);
            }
#pragma GCC unroll 16
            for (int i = 0; i < n * vecs * chains; i++) {
                sum[i] = simd_set32(0);
            }
#pragma GCC unroll 1
            for (int first = 0; first < TILE_WORDS_PLANES; first += TILE_WORDS_UNROLL) {
#pragma GCC unroll 32
                for (int p = 0; p < TILE_WORDS_UNROLL; p++, w += 64) {
                    simd_i plane[2];
#pragma GCC unroll 2
                    for (int v = 0; v < vecs; v++) {
                        plane[v] = simd_load(w + (size_t)v * step);
                    }
                    if (is_stream) {
                        _mm_prefetch(w + TILE_AHEAD_BYTES, _MM_HINT_T0);
                    }
#pragma GCC unroll 8
                    for (int i = 0; i < n; i++) {
                        const simd_i pair = simd_set32(simd_word(&xt[i]->q[u][2 * (first + p)]));
#pragma GCC unroll 2
                        for (int v = 0; v < vecs; v++) {
                            const int at = (i * vecs + v) * chains + p % chains;
                            sum[at] = simd_dot2(sum[at], plane[v], pair);
                        }
                    }
                }
            }
#pragma GCC unroll 2
            for (int v = 0; v < vecs; v++) {
                const simd_f scale = simd_load_f32(head + (size_t)v * step);
#pragma GCC unroll 8
                for (int i = 0; i < n; i++) {
                    const int at = (i * vecs + v) * chains;
#pragma GCC unroll 4
                    for (int c = 1; c < chains; c++) {
                        sum[at] = simd_add32(sum[at], sum[at + c]);
                    }
                    const simd_f d = simd_mul(scale, simd_set_f32(xt[i]->d[u]));
                    acc[i * vecs + v] = simd_fma(simd_to_f32(sum[at]), d, acc[i * vecs + v]);
                }
            }
        }
        x += sizeof(struct matmul_words);
    }
#pragma GCC unroll 2
    for (int v = 0; v < vecs; v++) {
        simd_f sums[TILE_TOKENS];
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) {
            sums[i] = acc[i * vecs + v];
        }
        tile_put(t, t->row + SIMD_ROWS * v, n, sums);
    }
}

/* Whole panels times 1, 2, 4 or 8 tokens. AVX2 takes both halves of a panel in one pass: memory is read
 * in order, and an x fetched serves both. */
SIMD_INLINE void tile_words_few(struct tile t, int64_t n_panels, const int n)
{
    for (; n_panels > 0; n_panels--, t = tile_next(t)) {
        tile_words(&t, n, SIMD_HALVES, SIMD_HALVES == 1 ? MAX(4 / n, 1) : 1, true);
    }
}

/* Whole panels times TILE_WORDS_TOKENS tokens, two vectors of rows at a time. */
SIMD_INLINE void tile_words_many(struct tile t, int64_t n_panels)
{
    for (; SIMD_HALVES == 1 && n_panels >= 2; n_panels -= 2, t = tile_next(tile_next(t))) {
        tile_words(&t, TILE_WORDS_TOKENS, 2, 1, false);
    }
    for (; n_panels > 0; n_panels--, t = tile_next(t)) {
        tile_words(&t, TILE_WORDS_TOKENS, SIMD_HALVES, 1, false);
    }
}

/* A row of activations: n_parts of 32. */
SIMD_INLINE void tile_words_act(const float *x, struct matmul_words *y, int64_t n_parts)
{
    for (int64_t u = 0; u < n_parts; u += 2, x += PANEL_WORDS_UNIT) {
        const int64_t at = u / 2 % PANEL_WORDS_UNITS, n = MIN(n_parts - u, (int64_t)2) * 32;
        struct matmul_words *b = &y[u / 2 / PANEL_WORDS_UNITS];
        int32_t bits = 0;
        float square = 0;
        for (int64_t i = 0; i < n; i += 16) {
            bits = MAX(bits, simd_peak_bits16(x + i));
        }
        const float peak = half_from_bits((uint32_t)bits);
        const bool is_zero = peak < MATMUL_WORDS_ZERO;
        for (int64_t i = 0; i < n; i += 16) {
            square += simd_square16(x + i, is_zero ? 0 : 1 / peak);
        }
        float limit = MATMUL_WORDS_LENGTH / __builtin_sqrtf(square); /* not a number where x is not */
        limit = limit > 32767.0f ? 32767.0f : limit;
        b->d[at] = is_zero ? 0 : peak / limit;
        for (int64_t i = 0; i < n; i += 16) {
            simd_quantize_words16(x + i, is_zero ? 0 : limit / peak, b->q[at] + i);
        }
        memset(b->q[at] + n, 0, (size_t)(PANEL_WORDS_UNIT - n) * sizeof *b->q[at]);
    }
}

#endif
