/* The tiles of every type, the order in which a thread walks through them, and the packing of
 * activations: all of a matmul_avx*.c, which includes this once. */
#ifndef KERNELS_CPU_TILE_TABLE_H
#define KERNELS_CPU_TILE_TABLE_H

#include "kernels/cpu/tile.h"
#include "kernels/cpu/tile_words.h"

/* X(type, name, whose head, panel struct, units, group, is_affine, offset, limit, is_act16); from
 * units on as in tile_kind. */
#define TILE_INT_TYPES(X)                                                                          \
    X(Q4_0, q4_0, q4_0, q4_0, 1, 32, false, 3, 15, false)                                          \
    X(Q4_1, q4_1, q4_1, q4_1, 1, 32, true, 0, 15, true)                                            \
    X(Q5_0, q5_0, q5_0, q5_0, 1, 32, false, 4, 31, true)                                           \
    X(Q5_1, q5_1, q5_1, q5_1, 1, 32, true, 0, 31, true)                                            \
    X(Q8_0, q8_0, q8_0, q8_0, 1, 32, false, 7, 255, false)                                         \
    X(IQ4_NL, iq4_nl, q4_0, q4_0, 1, 32, false, 7, 255, false)                                     \
    X(MXFP4, mxfp4, mxfp4, mxfp4, 1, 32, false, 4, 31, false)                                      \
    X(NVFP4, nvfp4, nvfp4, nvfp4, 2, 16, false, 4, 31, true)                                       \
    X(Q2_0, q2_0, q2_0, q2_0, 2, 32, false, 0, 3, true)                                            \
    X(Q1_0, q1_0, q1_0, q1_0, 4, 32, false, 0, 3, true)                                            \
    X(TQ1_0, tq1_0, tq2_0, tq2_0, 8, 32, false, 0, 3, false)                                       \
    X(TQ2_0, tq2_0, tq2_0, tq2_0, 8, 32, false, 0, 3, false)                                       \
    X(Q2_K, q2_k, q2_k, q2_k, 8, 16, true, 0, 3, false)                                            \
    X(Q3_K, q3_k, q3_k, q3_k, 8, 16, false, 2, 7, false)                                           \
    X(Q4_K, q4_k, q4_k, q4_k, 8, 32, true, 0, 15, false)                                           \
    X(Q5_K, q5_k, q5_k, q5_k, 8, 32, true, 0, 31, false)                                           \
    X(Q6_K, q6_k, q6_k, q6_k, 8, 16, false, 5, 63, false)                                          \
    X(Q8_K, q8_k, q8_k, q8_k, 8, 32, false, 7, 255, false)                                         \
    X(IQ4_XS, iq4_xs, iq4_xs, iq4_xs, 8, 32, false, 7, 255, false)                                 \
    X(IQ2_XXS, iq2_xxs, iq2_xxs, iq2_xxs, 8, 32, false, 6, 127, false)                             \
    X(IQ2_XS, iq2_xs, iq2_xs, iq2_xs, 8, 16, false, 6, 127, false)                                 \
    X(IQ2_S, iq2_s, iq2_s, iq2_s, 8, 16, false, 6, 127, false)                                     \
    X(IQ3_XXS, iq3_xxs, iq3_xxs, iq3_xxs, 8, 32, false, 6, 127, false)                             \
    X(IQ3_S, iq3_s, iq3_s, iq3_s, 8, 32, false, 6, 127, false)                                     \
    X(IQ1_S, iq1_s, iq1_s, iq1_s, 8, 32, false, 4, 31, false)                                      \
    X(IQ1_M, iq1_m, iq1_m, iq1_m, 8, 16, false, 4, 31, false)

#define TILE_FLOAT_TYPES(X)                                                                        \
    X(F32, f32, 4)                                                                                 \
    X(F16, f16, 2)                                                                                 \
    X(BF16, bf16, 2)

typedef void tile_fn(const struct tile *t, int64_t n_panels);
typedef void tile_widen_fn(const void *panel, int64_t n_blocks, char *to);

#define TILE_INT(name, head, n)                                                                    \
    static void tile_##name##_##n(const struct tile *t, int64_t n_panels)                          \
    {                                                                                              \
        tile_int_panels(&kind_##name, unpack_##head##_head, unpack_##name##_unit, *t, n_panels,    \
                        n);                                                                        \
    }
#define TILE_FLOAT(name, elem_bytes, n)                                                            \
    static void tile_##name##_##n(const struct tile *t, int64_t n_panels)                          \
    {                                                                                              \
        tile_float_panels(elem_bytes, tile_load_##name, *t, n_panels, n);                          \
    }

#if defined(__AVX512F__)
#define TILE_EIGHT(DEFINE, ...) DEFINE(__VA_ARGS__, 8)
#define TILE_NAMES(name)                                                                           \
    {                                                                                              \
        tile_##name##_1, tile_##name##_2, tile_##name##_4, tile_##name##_8                         \
    }
#else
#define TILE_EIGHT(DEFINE, ...)
#define TILE_NAMES(name)                                                                           \
    {                                                                                              \
        tile_##name##_1, tile_##name##_2, tile_##name##_4                                          \
    }
#endif

#define DEFINE_INT(type, name, head, panel, units, group, is_affine, offset, limit, is_act16)      \
    static const struct tile_kind kind_##name = {                                                  \
        units, sizeof(struct panel_##panel), group, is_affine, offset, limit, is_act16};           \
    TILE_INT(name, head, 1)                                                                        \
    TILE_INT(name, head, 2)                                                                        \
    TILE_INT(name, head, 4)                                                                        \
    TILE_EIGHT(TILE_INT, name, head)                                                               \
    static void tile_##name##_widen(const void *panel, int64_t n_blocks, char *to)                 \
    {                                                                                              \
        tile_widen(&kind_##name, unpack_##head##_head, unpack_##name##_unit, panel, n_blocks, to); \
    }                                                                                              \
    static void tile_##name##_wide(const struct tile *t, int64_t n_panels)                         \
    {                                                                                              \
        tile_wide_panels(&kind_##name, *t, n_panels);                                              \
    }
TILE_INT_TYPES(DEFINE_INT)

#define DEFINE_FLOAT(type, name, bytes)                                                            \
    TILE_FLOAT(name, bytes, 1)                                                                     \
    TILE_FLOAT(name, bytes, 2)                                                                     \
    TILE_FLOAT(name, bytes, 4)                                                                     \
    TILE_EIGHT(TILE_FLOAT, name, bytes)
TILE_FLOAT_TYPES(DEFINE_FLOAT)

static const struct tile_type {
    tile_fn *few[4]; /* for 1, 2, 4, 8 tokens; NULL where there is none */
    tile_widen_fn *widen;
    tile_fn *wide; /* for tile_wide_tokens; NULL for float types */
    const struct tile_kind *kind;
} tile_table[TYPE_ID_END] = {
#define ENTRY_INT(type, name, ...)                                                                 \
    [TYPE_##type] = {TILE_NAMES(name), tile_##name##_widen, tile_##name##_wide, &kind_##name},
#define ENTRY_FLOAT(type, name, bytes) [TYPE_##type] = {TILE_NAMES(name), NULL, NULL, NULL},
    TILE_INT_TYPES(ENTRY_INT) TILE_FLOAT_TYPES(ENTRY_FLOAT)};

#define DEFINE_WORDS(name, unused, n)                                                              \
    static void tile_words_##n(const struct tile *t, int64_t n_panels)                             \
    {                                                                                              \
        tile_words_few(*t, n_panels, n);                                                           \
    }
DEFINE_WORDS(, , 1)
DEFINE_WORDS(, , 2)
DEFINE_WORDS(, , 4)
TILE_EIGHT(DEFINE_WORDS, , )
static tile_fn *const tile_words_table[4] = TILE_NAMES(words);

/* Tokens from `token` on and panels [lo, hi). All tokens meet a group of panels while its weights
 * are in the cache: memory gives every weight once. */
static void tile_run_few(const struct matmul *m, int64_t lo, int64_t hi, int64_t token)
{
    const struct matmul_weight *w = m->w;
    tile_fn *const *fn = w->act == MATMUL_ACT_Q16 ? tile_words_table : tile_table[w->type].few;
    const size_t stride = panel_stride(w->type, w->n_cols);
    const int64_t together = MAX((int64_t)(TILE_CACHE_BYTES / stride), 1);
    for (int64_t first = lo; first < hi; first += together) {
        int64_t end = MIN(first + together, hi);
        for (int64_t at = token, log; at < m->n_tokens; at += INT64_C(1) << log) {
            log = 3;
            while (!fn[log] || INT64_C(1) << log > m->n_tokens - at) {
                log--;
            }
            const char *panel = (const char *)w->packed + (size_t)first * stride;
            fn[log](&(struct tile){m, panel, stride, first * PANEL_ROWS, at}, end - first);
        }
    }
}

/* Out of line for its buffer. */
static __attribute__((noinline)) void tile_run_wide(const struct matmul *m, int64_t lo, int64_t hi,
                                                    size_t wide_bytes)
{
    _Alignas(64) char wide[TILE_WIDE_BYTES];
    const struct matmul_weight *w = m->w;
    const struct tile_type *type = &tile_table[w->type];
    const size_t stride = panel_stride(w->type, w->n_cols);
    const int64_t together = (int64_t)(TILE_WIDE_BYTES / wide_bytes);
    for (int64_t first = lo; first < hi; first += together) {
        int64_t end = MIN(first + together, hi), token = 0;
        for (int64_t p = first; p < end; p++) {
            type->widen((const char *)w->packed + (size_t)p * stride,
                        w->n_cols / PANEL_UNIT / type->kind->units,
                        wide + (size_t)(p - first) * wide_bytes);
        }
        const int64_t step = tile_wide_tokens(type->kind);
        for (; token + step <= m->n_tokens; token += step) {
            type->wide(&(struct tile){m, wide, wide_bytes, first * PANEL_ROWS, token}, end - first);
        }
        tile_run_few(m, first, end, token);
    }
}

/* Panels of words are wide as they are. */
static void tile_run_words(const struct matmul *m, int64_t lo, int64_t hi)
{
    const struct matmul_weight *w = m->w;
    const size_t stride = panel_stride(w->type, w->n_cols);
    const int64_t together = MAX((int64_t)(TILE_WIDE_BYTES / stride), INT64_C(2));
    for (int64_t first = lo; first < hi; first += together) {
        int64_t end = MIN(first + together, hi), token = 0;
        const char *panel = (const char *)w->packed + (size_t)first * stride;
        for (; token + TILE_WORDS_TOKENS <= m->n_tokens; token += TILE_WORDS_TOKENS) {
            tile_words_many((struct tile){m, panel, stride, first * PANEL_ROWS, token},
                            end - first);
        }
        tile_run_few(m, first, end, token);
    }
}

static void tile_run(const struct matmul *m, int64_t lo, int64_t hi)
{
    if (m->w->act == MATMUL_ACT_Q16 && m->n_tokens >= MATMUL_MANY_TOKENS) {
        tile_run_words(m, lo, hi);
        return;
    }
    const struct tile_type *type = &tile_table[m->w->type];
    if (type->wide && m->n_tokens >= MATMUL_MANY_TOKENS) {
        size_t bytes = (size_t)(m->w->n_cols / PANEL_UNIT) * tile_wide_bytes(type->kind);
        if (bytes <= TILE_WIDE_BYTES) {
            tile_run_wide(m, lo, hi, bytes);
            return;
        }
    }
    tile_run_few(m, lo, hi, 0);
}

static void tile_act(enum matmul_act act, const float *x, void *ret, int64_t n_units)
{
    if (act == MATMUL_ACT_Q16) {
        tile_words_act(x, ret, n_units);
        return;
    }
    struct matmul_unit *y = ret;
    for (int64_t u = 0; u < n_units; u++, x += 32, y++) {
        int32_t peak[2], sum[2]; /* peaks as bits: a NaN is larger than anything */
        for (int g = 0; g < 2; g++) {
            peak[g] = simd_peak_bits16(x + 16 * g);
        }
        if (act == MATMUL_ACT_Q8) {
            peak[0] = peak[1] = MAX(peak[0], peak[1]);
        }
        for (int g = 0; g < 2; g++) {
            float p = half_from_bits((uint32_t)peak[g]);
            bool is_zero = p < 1e-35f; /* the reciprocal would overflow */
            y->d[g] = is_zero ? 0 : p / 127.0f;
            sum[g] = simd_quantize16(x + 16 * g, is_zero ? 0 : 127.0f / p, y->q + 16 * g);
            y->neg_sum16[g] = -128 * sum[g];
            y->d_sum16[g] = y->d[g] * (float)sum[g];
        }
        y->neg_sum = -128 * (sum[0] + sum[1]);
        y->d_sum = act == MATMUL_ACT_Q8 ? y->d[0] * (float)(sum[0] + sum[1])
                                        : y->d_sum16[0] + y->d_sum16[1];
    }
}

#endif
