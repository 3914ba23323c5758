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

enum { FEW_ROWS = LANES == 16 ? 8 : 4 }; /* rows computed together: their sums stay in registers */

/* Even and odd dimensions are summed apart: two chains hide the latency of the multiply-add. The chains of
 * a row are the same however many rows go together. */
__attribute__((always_inline)) static inline void score_rows(float *s, int64_t stride,
                                                             const float *q, const void *kt,
                                                             const enum type type, int64_t dim,
                                                             const int rows)
{
    for (int64_t v = 0; v < KV_BLOCK; v += LANES) {
        LANE even[FEW_ROWS], odd[FEW_ROWS];
        for (int r = 0; r < rows; r++) {
            even[r] = odd[r] = lane_zero();
        }
        int64_t d = 0;
        for (; d + 2 <= dim; d += 2) {
            LANE k0 = load_as(kt, d * KV_BLOCK + v, type);
            LANE k1 = load_as(kt, (d + 1) * KV_BLOCK + v, type);
            for (int r = 0; r < rows; r++) {
                even[r] = lane_fma(lane_set(q[r * dim + d]), k0, even[r]);
                odd[r] = lane_fma(lane_set(q[r * dim + d + 1]), k1, odd[r]);
            }
        }
        if (d < dim) {
            LANE k0 = load_as(kt, d * KV_BLOCK + v, type);
            for (int r = 0; r < rows; r++) {
                even[r] = lane_fma(lane_set(q[r * dim + d]), k0, even[r]);
            }
        }
        for (int r = 0; r < rows; r++) {
            lane_store(s + r * stride + v, lane_add(even[r], odd[r]));
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
                                                            const void *kt, const enum type type,
                                                            int64_t dim)
{
    for (int64_t r = 0; r < n_rows; r += FEW_ROWS) {
        FOR_ROWS(MIN(n_rows - r, (int64_t)FEW_ROWS), score_rows, s + r * stride, stride,
                 q + r * dim, kt, type, dim)
    }
}

static void scores(float *s, int64_t stride, const float *q, int64_t n_rows, const void *kt,
                   enum type type, int64_t dim)
{
    if (type == TYPE_F16) {
        scores_as(s, stride, q, n_rows, kt, TYPE_F16, dim);
    } else if (type == TYPE_BF16) {
        scores_as(s, stride, q, n_rows, kt, TYPE_BF16, dim);
    } else {
        scores_as(s, stride, q, n_rows, kt, TYPE_F32, dim);
    }
}

static float softmax(float *x, int64_t n, float floor, float *ret_max)
{
    LANE m = lane_set(floor), s = lane_zero();
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        m = lane_max(lane_load(x + i), m);
    }
    if (i < n) {
        m = lane_max(lane_load_n(x + i, n - i, floor), m);
    }
    float max = lane_greatest(m);
    m = lane_set(max);
    for (i = 0; i + LANES <= n; i += LANES) {
        LANE e = lane_exp(lane_sub(lane_load(x + i), m));
        lane_store(x + i, e);
        s = lane_add(s, e);
    }
    if (i < n) {
        LANE e = lane_exp(lane_sub(lane_load_n(x + i, n - i, -INFINITY), m));
        lane_store_n(x + i, e, n - i);
        s = lane_add(s, e);
    }
    *ret_max = max;
    return lane_sum(s);
}

enum { VALUE_LANES = 2 }; /* vectors of a row of values that are summed together */

__attribute__((always_inline)) static inline void value_tile(float *acc, const float *p,
                                                             int64_t p_stride, const void *v,
                                                             int64_t at, const enum type type,
                                                             int64_t n, int64_t dim,
                                                             const int lanes, const int rows)
{
    LANE a[FEW_ROWS][VALUE_LANES];
    for (int r = 0; r < rows; r++) {
        for (int k = 0; k < lanes; k++) {
            a[r][k] = lane_load(acc + r * dim + at + k * LANES);
        }
    }
    for (int64_t t = 0; t < n; t++) {
        LANE row[VALUE_LANES];
        for (int k = 0; k < lanes; k++) {
            row[k] = load_as(v, t * dim + at + k * LANES, type);
        }
        for (int r = 0; r < rows; r++) {
            LANE w = lane_set(p[r * p_stride + t]);
            for (int k = 0; k < lanes; k++) {
                a[r][k] = lane_fma(w, row[k], a[r][k]);
            }
        }
    }
    for (int r = 0; r < rows; r++) {
        for (int k = 0; k < lanes; k++) {
            lane_store(acc + r * dim + at + k * LANES, a[r][k]);
        }
    }
}

__attribute__((always_inline)) static inline void values_as(float *acc, const float *p,
                                                            int64_t p_stride, int64_t n_rows,
                                                            const void *v, const enum type type,
                                                            int64_t n, int64_t dim)
{
    for (int64_t r = 0; r < n_rows; r += FEW_ROWS) {
        int64_t rows = MIN(n_rows - r, (int64_t)FEW_ROWS), at = 0;
        float *to = acc + r * dim;
        const float *weights = p + r * p_stride;
        for (; at + VALUE_LANES * LANES <= dim; at += VALUE_LANES * LANES) {
            FOR_ROWS(rows, value_tile, to, weights, p_stride, v, at, type, n, dim, VALUE_LANES)
        }
        for (; at < dim; at += LANES) {
            FOR_ROWS(rows, value_tile, to, weights, p_stride, v, at, type, n, dim, 1)
        }
    }
}

static void values(float *acc, const float *p, int64_t p_stride, int64_t n_rows, const void *v,
                   enum type type, int64_t n, int64_t dim)
{
    if (type == TYPE_F16) {
        values_as(acc, p, p_stride, n_rows, v, TYPE_F16, n, dim);
    } else if (type == TYPE_BF16) {
        values_as(acc, p, p_stride, n_rows, v, TYPE_BF16, n, dim);
    } else {
        values_as(acc, p, p_stride, n_rows, v, TYPE_F32, n, dim);
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
    .softmax = softmax,
    .values = values,
    .conv = conv,
    .ssm = ssm,
    .delta = delta,
};
