/* The vector primitives in SIMD: one source, compiled once for AVX2 and once for AVX-512 (VEC_TABLE
 * names the table). Where a length is no multiple of the vector, the rest goes through one vector that
 * is partly filled, so an output's order of summation depends on its length only. */
#include "kernels/cpu/lane.h"
#include "kernels/cpu/kv_q8.h"
#include "kernels/cpu/vec.h"

#include <string.h>

static float sum(const float *x, int64_t n)
{
    LANE a = lane_zero(), b = lane_zero();
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        a = lane_add(a, lane_load(x + i));
        b = lane_add(b, lane_load(x + i + LANES));
    }
    for (; i < n; i += LANES) {
        a = lane_add(a, lane_load_n(x + i, n - i < LANES ? n - i : LANES, 0));
    }
    return lane_sum(lane_add(a, b));
}

static float sum_squares(const float *x, float shift, int64_t n)
{
    LANE a = lane_zero(), b = lane_zero(), s = lane_set(shift);
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        LANE d = lane_sub(lane_load(x + i), s), e = lane_sub(lane_load(x + i + LANES), s);
        a = lane_fma(d, d, a);
        b = lane_fma(e, e, b);
    }
    for (; i < n; i += LANES) {
        LANE d = lane_sub(lane_load_n(x + i, n - i < LANES ? n - i : LANES, shift), s);
        a = lane_fma(d, d, a);
    }
    return lane_sum(lane_add(a, b));
}

static void affine(float *y, const float *x, float shift, float scale, const float *w,
                   const float *b, int64_t n)
{
    LANE s = lane_set(shift), f = lane_set(scale);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        LANE v = lane_mul(lane_sub(lane_load(x + i), s), f);
        v = w ? lane_mul(v, lane_load(w + i)) : v;
        lane_store(y + i, b ? lane_add(v, lane_load(b + i)) : v);
    }
    for (; i < n; i++) {
        float v = (x[i] - shift) * scale;
        v = w ? v * w[i] : v;
        y[i] = b ? v + b[i] : v;
    }
}

static void add(float *y, const float *a, float a_scale, const float *b, float b_scale, int64_t n)
{
    LANE s = lane_set(a_scale), t = lane_set(b_scale);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        LANE v = lane_mul(s, lane_load(a + i));
        lane_store(y + i, lane_add(v, lane_mul(t, lane_load(b + i))));
    }
    for (; i < n; i++) {
        y[i] = a_scale * a[i] + b_scale * b[i];
    }
}

static void softcap(float *y, const float *x, float scale, float cap, int64_t n)
{
    LANE s = lane_set(scale), c = lane_set(cap);
    for (int64_t i = 0; i < n; i += LANES) {
        int64_t k = n - i < LANES ? n - i : LANES;
        LANE v = lane_div(lane_mul(lane_load_n(x + i, k, 0), s), c);
        lane_store_n(y + i, lane_mul(c, lane_tanh(v)), k);
    }
}

/* --- activations -----------------------------------------------------------------------------------*/

__attribute__((always_inline)) static inline LANE activate(enum op_glu_kind kind, LANE x,
                                                           float alpha, float limit)
{
    LANE half = lane_set(0.5f), one = lane_set(1.0f);
    switch (kind) {
    case OP_GLU_SILU:
        return lane_mul(x, lane_sigmoid(x));
    case OP_GLU_GELU: {
        LANE cubic = lane_fma(lane_mul(lane_set(0.044715f), x), x, one);
        LANE t = lane_tanh(lane_mul(lane_mul(lane_set(0.79788456080286536f), x), cubic));
        return lane_mul(lane_mul(half, x), lane_add(one, t));
    }
    case OP_GLU_GELU_ERF: {
        LANE t = lane_erf(lane_mul(x, lane_set(0.70710678118654752f)));
        return lane_mul(lane_mul(half, x), lane_add(one, t));
    }
    case OP_GLU_RELU:
        return lane_max(x, lane_zero());
    case OP_GLU_RELU2: {
        LANE v = lane_max(x, lane_zero());
        return lane_mul(v, v);
    }
    case OP_GLU_SIGMOID:
        return lane_sigmoid(x);
    case OP_GLU_SILU_CLAMPED: {
        LANE v = lane_min(x, lane_set(limit));
        return lane_mul(v, lane_sigmoid(lane_mul(lane_set(alpha), v)));
    }
    case OP_GLU_NONE:
    case OP_GLU_COUNT:
        break;
    }
    return x;
}

__attribute__((always_inline)) static inline void glu_loop(enum op_glu_kind kind, float *y,
                                                           const float *gate, const float *up,
                                                           int64_t n, float alpha, float limit)
{
    LANE most = lane_set(limit), least = lane_set(-limit), one = lane_set(1.0f);
    for (int64_t i = 0; i < n; i += LANES) {
        int64_t k = n - i < LANES ? n - i : LANES;
        LANE v = activate(kind, k == LANES ? lane_load(gate + i) : lane_load_n(gate + i, k, 0),
                          alpha, limit);
        if (up) {
            LANE u = k == LANES ? lane_load(up + i) : lane_load_n(up + i, k, 0);
            if (kind == OP_GLU_SILU_CLAMPED) {
                u = lane_add(lane_min(lane_max(u, least), most), one);
            }
            v = lane_mul(v, u);
        }
        if (k == LANES) {
            lane_store(y + i, v);
        } else {
            lane_store_n(y + i, v, k);
        }
    }
}

static void glu(enum op_glu_kind kind, float *y, const float *gate, const float *up, int64_t n,
                float alpha, float limit)
{
    switch (kind) { /* a loop for each, with its activation inside */
#define KIND(k)                                                                                    \
    case k:                                                                                        \
        glu_loop(k, y, gate, up, n, alpha, limit);                                                 \
        break;
        KIND(OP_GLU_NONE)
        KIND(OP_GLU_SILU)
        KIND(OP_GLU_GELU)
        KIND(OP_GLU_GELU_ERF)
        KIND(OP_GLU_RELU)
        KIND(OP_GLU_RELU2)
        KIND(OP_GLU_SIGMOID)
        KIND(OP_GLU_SILU_CLAMPED)
#undef KIND
    case OP_GLU_COUNT:
        break;
    }
}

/* --- rotation --------------------------------------------------------------------------------------*/

static void rotate(float *y, const float *x, const float *cos, const float *sin, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        LANE a = lane_load(x + i), b = lane_load(x + i + n);
        LANE c = lane_load(cos + i), s = lane_load(sin + i);
        lane_store(y + i, lane_sub(lane_mul(a, c), lane_mul(b, s)));
        lane_store(y + i + n, lane_add(lane_mul(a, s), lane_mul(b, c)));
    }
    for (; i < n; i++) {
        float a = x[i], b = x[i + n];
        y[i] = a * cos[i] - b * sin[i];
        y[i + n] = a * sin[i] + b * cos[i];
    }
}

static void rotate_adjacent(float *y, const float *x, const float *cos, const float *sin, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES / 2 <= n; i += LANES / 2) {
        LANE v = lane_load(x + 2 * i);
        LANE turned = lane_mul(lane_swap_pairs(v), lane_load_doubled(sin + i));
        lane_store(y + 2 * i, lane_addsub_fma(v, lane_load_doubled(cos + i), turned));
    }
    for (; i < n; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        y[2 * i] = a * cos[i] - b * sin[i];
        y[2 * i + 1] = b * cos[i] + a * sin[i];
    }
}

/* --- types of the KV cache -------------------------------------------------------------------------*/

static void widen(float *y, const void *x, enum type type, int64_t n)
{
    const uint16_t *h = x;
    int64_t i = 0;
    if (type == TYPE_F16) {
        for (; i + LANES <= n; i += LANES) {
            lane_store(y + i, lane_load_f16(h + i));
        }
    } else if (type == TYPE_BF16) {
        for (; i + LANES <= n; i += LANES) {
            lane_store(y + i, lane_load_bf16(h + i));
        }
    } else {
        memcpy(y, x, (size_t)n * sizeof *y);
        return;
    }
    vec_scalar.widen(y + i, h + i, type, n - i);
}

static void narrow(void *y, const float *x, enum type type, int64_t n)
{
    uint16_t *h = y;
    int64_t i = 0;
    if (type == TYPE_F16) {
        for (; i + LANES <= n; i += LANES) {
            lane_store_f16(h + i, lane_load(x + i));
        }
        vec_scalar.narrow(h + i, x + i, type, n - i);
    } else {
        vec_scalar.narrow(y, x, type, n);
    }
}

/* --- attention -------------------------------------------------------------------------------------*/

/* One vector of a tile, whatever its type. */
__attribute__((always_inline)) static inline LANE load_as(const void *p, int64_t at,
                                                          const enum type type)
{
    return type == TYPE_F32   ? lane_load((const float *)p + at)
           : type == TYPE_F16 ? lane_load_f16((const uint16_t *)p + at)
                              : lane_load_bf16((const uint16_t *)p + at);
}

enum {
    FEW_ROWS = LANES == 16 ? 8 : 6,  /* rows computed together: with two vectors of keys or values */
    TILE_VECS = 2,                   /* their sums fill the registers and hide the latency */
    SCORE_TILES = TILE_VECS * LANES / KV_BLOCK,
    VALUE_TILES = 2 /* sums return to memory after so many */
};

/* Tiles [i, i + tiles) and `rows` rows: a load of q serves all tiles, one of a key all rows. */
__attribute__((always_inline)) static inline void
score_rows(float *s, int64_t stride, const float *q, const struct vec_tiles *k, int64_t i,
           const enum type type, int64_t dim, const int tiles, const int rows)
{
    enum { TILE = KV_BLOCK / LANES };
    const size_t step = k->bytes / (size_t)dim;
    const void *kt[SCORE_TILES];
    const char *ask[SCORE_TILES];
    LANE acc[FEW_ROWS][TILE_VECS];
    for (int t = 0; t < tiles; t++) {
        kt[t] = k->at[i + t];
        ask[t] = k->ask[i + t];
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 2
        for (int v = 0; v < tiles * TILE; v++) {
            acc[r][v] = lane_zero();
        }
    }
    for (int64_t d = 0; d < dim; d++) {
        LANE row[TILE_VECS];
#pragma GCC unroll 2
        for (int v = 0; v < tiles * TILE; v++) {
            row[v] = load_as(kt[v / TILE], d * KV_BLOCK + v % TILE * LANES, type);
        }
#pragma GCC unroll 2
        for (int t = 0; t < tiles; t++) {
            _mm_prefetch(ask[t] + (size_t)d * step, _MM_HINT_T0);
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            LANE x = lane_set(q[r * dim + d]);
#pragma GCC unroll 2
            for (int v = 0; v < tiles * TILE; v++) {
                acc[r][v] = lane_fma(x, row[v], acc[r][v]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 2
        for (int v = 0; v < tiles * TILE; v++) {
            lane_store(s + r * stride + v * LANES, acc[r][v]);
        }
    }
}

/* Calls form(..., rows) with `rows` a constant: the loops over rows are unrolled. */
#define FOR_ROWS(rows, form, ...)                                                                  \
    switch (rows) {                                                                                \
    case 1:                                                                                        \
        form(__VA_ARGS__, 1);                                                                      \
        break;                                                                                     \
    case 2:                                                                                        \
        form(__VA_ARGS__, 2);                                                                      \
        break;                                                                                     \
    case 3:                                                                                        \
        form(__VA_ARGS__, 3);                                                                      \
        break;                                                                                     \
    case 4:                                                                                        \
        form(__VA_ARGS__, 4);                                                                      \
        break;                                                                                     \
    case 5:                                                                                        \
        form(__VA_ARGS__, MIN(5, FEW_ROWS));                                                       \
        break;                                                                                     \
    case 6:                                                                                        \
        form(__VA_ARGS__, MIN(6, FEW_ROWS));                                                       \
        break;                                                                                     \
    case 7:                                                                                        \
        form(__VA_ARGS__, MIN(7, FEW_ROWS));                                                       \
        break;                                                                                     \
    default:                                                                                       \
        form(__VA_ARGS__, FEW_ROWS);                                                               \
        break;                                                                                     \
    }

__attribute__((always_inline)) static inline void scores_as(float *s, int64_t stride,
                                                            const float *q, int64_t n_rows,
                                                            const struct vec_tiles *k,
                                                            const enum type type, int64_t dim)
{
    for (int64_t i = 0; i < k->n; i += SCORE_TILES, s += SCORE_TILES * KV_BLOCK) {
        for (int64_t r = 0; r < n_rows; r += FEW_ROWS) {
            int64_t rows = MIN(n_rows - r, (int64_t)FEW_ROWS);
            float *to = s + r * stride;
            if (i + SCORE_TILES <= k->n) {
                FOR_ROWS(rows, score_rows, to, stride, q + r * dim, k, i, type, dim, SCORE_TILES)
            } else {
                FOR_ROWS(rows, score_rows, to, stride, q + r * dim, k, i, type, dim, 1)
            }
        }
    }
}

static void scores(float *s, int64_t stride, const float *q, int64_t n_rows,
                   const struct vec_tiles *k, int64_t dim)
{
    if (k->type == TYPE_F16) {
        scores_as(s, stride, q, n_rows, k, TYPE_F16, dim);
    } else if (k->type == TYPE_BF16) {
        scores_as(s, stride, q, n_rows, k, TYPE_BF16, dim);
    } else {
        scores_as(s, stride, q, n_rows, k, TYPE_F32, dim);
    }
}

static float greatest(const float *x, int64_t n, float floor)
{
    LANE m = lane_set(floor), m2 = m;
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        m = lane_max(lane_load(x + i), m);
        m2 = lane_max(lane_load(x + i + LANES), m2);
    }
    m = i < n ? lane_max(lane_load(x + i), m) : m;
    return lane_greatest(lane_max(m, m2));
}

/* x = exp(x - m), added to s; `vecs` vectors. */
__attribute__((always_inline)) static inline void soften_some(float *x, LANE m, LANE *s,
                                                              const int vecs)
{
#pragma GCC unroll 4
    for (int k = 0; k < vecs; k++) {
        LANE e = lane_exp_down(lane_sub(lane_load(x + k * LANES), m));
        lane_store(x + k * LANES, e);
        s[k] = lane_add(s[k], e);
    }
}

/* One row; the first `vecs` vectors of its sums, which are all that n values reach. */
__attribute__((always_inline)) static inline void soften_row(float *x, int64_t n, float shift,
                                                             float *sums, const int vecs)
{
    LANE m = lane_set(shift), s[VEC_SUMS / LANES];
#pragma GCC unroll 4
    for (int k = 0; k < vecs; k++) {
        s[k] = lane_load(sums + k * LANES);
    }
    for (; n >= vecs * LANES; n -= vecs * LANES, x += vecs * LANES) {
        soften_some(x, m, s, vecs);
    }
    if (n > 0) {
        soften_some(x, m, s, VEC_PAD / LANES);
    }
#pragma GCC unroll 4
    for (int k = 0; k < vecs; k++) {
        lane_store(sums + k * LANES, s[k]);
    }
}

static void soften(float *x, int64_t stride, int64_t n_rows, int64_t n, const float *shift,
                   float *sums)
{
    for (int64_t r = 0; r < n_rows; r++, x += stride, sums += VEC_SUMS) {
        if (n >= VEC_SUMS) {
            soften_row(x, n, shift[r], sums, VEC_SUMS / LANES);
        } else {
            soften_row(x, n, shift[r], sums, VEC_PAD / LANES);
        }
    }
}

static void climb(float *peaks, const float *x, int64_t stride, int64_t n_rows, int64_t n)
{
    for (int64_t r = 0; r < n_rows; r++, x += stride, peaks += VEC_SUMS) {
        for (int64_t i = 0; i < n; i += LANES) {
            float *p = peaks + i % VEC_SUMS;
            lane_store(p, lane_max(lane_load(x + i), lane_load(p)));
        }
    }
}

/* acc[rows][vecs vectors from column `at`] += the first n tokens of tiles from i on. */
__attribute__((always_inline)) static inline void
value_rows(float *acc, const float *p, int64_t p_stride, const struct vec_tiles *v, int64_t i,
           int64_t at, const enum type type, int64_t n, int64_t dim, const int vecs, const int rows)
{
    const size_t step = v->bytes / KV_BLOCK;
    LANE a[FEW_ROWS][TILE_VECS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 2
        for (int k = 0; k < vecs; k++) {
            a[r][k] = lane_load(acc + r * dim + at + k * LANES);
        }
    }
    for (int64_t first = 0; first < n; first += KV_BLOCK, i++) {
        const void *tile = v->at[i];
        const char *ask = v->ask[i];
        for (int64_t t = 0; t < MIN(n - first, (int64_t)KV_BLOCK); t++) {
            LANE row[TILE_VECS];
#pragma GCC unroll 2
            for (int k = 0; k < vecs; k++) {
                row[k] = load_as(tile, t * dim + at + k * LANES, type);
            }
            for (size_t o = 0; at == 0 && o < step; o += 64) {
                _mm_prefetch(ask + (size_t)t * step + o, _MM_HINT_T0);
            }
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                LANE w = lane_set(p[r * p_stride + first + t]);
#pragma GCC unroll 2
                for (int k = 0; k < vecs; k++) {
                    a[r][k] = lane_fma(w, row[k], a[r][k]);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 2
        for (int k = 0; k < vecs; k++) {
            lane_store(acc + r * dim + at + k * LANES, a[r][k]);
        }
    }
}

__attribute__((always_inline)) static inline void values_as(float *acc, const float *p,
                                                            int64_t p_stride, int64_t n_rows,
                                                            const struct vec_tiles *v,
                                                            const enum type type, int64_t n_tokens,
                                                            int64_t dim)
{
    for (int64_t i = 0; i < v->n; i += VALUE_TILES, p += VALUE_TILES * KV_BLOCK) {
        int64_t n = MIN(n_tokens - i * KV_BLOCK, (int64_t)VALUE_TILES * KV_BLOCK);
        for (int64_t r = 0; r < n_rows; r += FEW_ROWS) {
            int64_t rows = MIN(n_rows - r, (int64_t)FEW_ROWS), at = 0;
            float *to = acc + r * dim;
            const float *weights = p + r * p_stride;
            for (; at + TILE_VECS * LANES <= dim; at += TILE_VECS * LANES) {
                FOR_ROWS(rows, value_rows, to, weights, p_stride, v, i, at, type, n, dim,
                         TILE_VECS)
            }
            for (; at < dim; at += LANES) {
                FOR_ROWS(rows, value_rows, to, weights, p_stride, v, i, at, type, n, dim, 1)
            }
        }
    }
}

static void values(float *acc, const float *p, int64_t p_stride, int64_t n_rows,
                   const struct vec_tiles *v, int64_t n_tokens, int64_t dim)
{
    if (v->type == TYPE_F16) {
        values_as(acc, p, p_stride, n_rows, v, TYPE_F16, n_tokens, dim);
    } else if (v->type == TYPE_BF16) {
        values_as(acc, p, p_stride, n_rows, v, TYPE_BF16, n_tokens, dim);
    } else {
        values_as(acc, p, p_stride, n_rows, v, TYPE_F32, n_tokens, dim);
    }
}

/* --- recurrences -----------------------------------------------------------------------------------*/

static void conv(float *y, const float *x, float *past, const float *weight, const float *bias,
                 int64_t n, int64_t width, int64_t stride, bool silu)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        LANE s = bias ? lane_load(bias + i) : lane_zero(), now = lane_load(x + i);
        for (int64_t j = 0; j + 1 < width; j++) {
            LANE old = lane_load(past + j * stride + i);
            s = lane_fma(lane_load(weight + j * stride + i), old, s);
            if (j > 0) {
                lane_store(past + (j - 1) * stride + i, old);
            }
        }
        if (width > 1) {
            lane_store(past + (width - 2) * stride + i, now);
        }
        s = lane_fma(lane_load(weight + (width - 1) * stride + i), now, s);
        lane_store(y + i, silu ? lane_mul(s, lane_sigmoid(s)) : s);
    }
    if (i < n) {
        vec_scalar.conv(y + i, x + i, past + i, weight + i, bias ? bias + i : NULL, n - i, width,
                        stride, silu);
    }
}

static void ssm(float *y, float *state, const float *x, const float *b, const float *c, float decay,
                float dt, float d, int64_t dim, int64_t n_state)
{
    if (n_state % LANES != 0) {
        vec_scalar.ssm(y, state, x, b, c, decay, dt, d, dim, n_state);
        return;
    }
    LANE f = lane_set(decay);
    for (int64_t i = 0; i < dim; i++) {
        float *row = state + i * n_state;
        LANE in = lane_set(dt * x[i]), s = lane_zero();
        for (int64_t j = 0; j < n_state; j += LANES) {
            LANE v = lane_fma(lane_load(row + j), f, lane_mul(in, lane_load(b + j)));
            lane_store(row + j, v);
            s = lane_fma(v, lane_load(c + j), s);
        }
        y[i] = lane_sum(s) + d * x[i];
    }
}

static void delta(float *y, float *state, int64_t stride, const float *q, const float *k,
                  const float *v, float decay, float rate, float scale, int64_t dim_k, int64_t n)
{
    LANE f = lane_set(decay), r = lane_set(rate);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        LANE even = lane_zero(), odd = lane_zero(), out = lane_zero();
        int64_t j = 0;
        for (; j + 2 <= dim_k; j += 2) {
            even = lane_fma(lane_set(k[j]), lane_load(state + j * stride + i), even);
            odd = lane_fma(lane_set(k[j + 1]), lane_load(state + (j + 1) * stride + i), odd);
        }
        if (j < dim_k) {
            even = lane_fma(lane_set(k[j]), lane_load(state + j * stride + i), even);
        }
        LANE seen = lane_mul(f, lane_add(even, odd));
        LANE change = lane_mul(r, lane_sub(lane_load(v + i), seen));
        for (j = 0; j < dim_k; j++) {
            LANE s = lane_mul(f, lane_load(state + j * stride + i));
            s = lane_fma(lane_set(k[j]), change, s);
            lane_store(state + j * stride + i, s);
            out = lane_fma(lane_set(q[j]), s, out);
        }
        lane_store(y + i, lane_mul(out, lane_set(scale)));
    }
    if (i < n) {
        vec_scalar.delta(y + i, state + i, stride, q, k, v + i, decay, rate, scale, dim_k, n - i);
    }
}

const struct vec VEC_TABLE = {
    .sum = sum,
    .sum_squares = sum_squares,
    .affine = affine,
    .add = add,
    .softcap = softcap,
    .glu = glu,
    .rotate = rotate,
    .rotate_adjacent = rotate_adjacent,
    .keys_q8 = kv_q8_keys,
    .values_q8 = kv_q8_values,
    .widen = widen,
    .narrow = narrow,
    .few_rows = FEW_ROWS,
    .scores = scores,
    .greatest = greatest,
    .climb = climb,
    .soften = soften,
    .values = values,
    .conv = conv,
    .ssm = ssm,
    .delta = delta,
};
