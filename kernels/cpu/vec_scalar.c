/* The reference forms of the vector primitives: plain C, one value after the other. */
#include "kernels/cpu/kv_q8.h"
#include "kernels/cpu/vec.h"
#include "kernels/half.h"

#include <math.h>
#include <string.h>

static float sum(const float *x, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) {
        s += (double)x[i];
    }
    return (float)s;
}

static float sum_squares(const float *x, float shift, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)(x[i] - shift);
        s += d * d;
    }
    return (float)s;
}

static void affine(float *y, const float *x, float shift, float scale, const float *w,
                   const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float v = (x[i] - shift) * scale;
        v = w ? v * w[i] : v;
        y[i] = b ? v + b[i] : v;
    }
}

static void add(float *y, const float *a, float a_scale, const float *b, float b_scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = a_scale * a[i] + b_scale * b[i];
    }
}

static void softcap(float *y, const float *x, float scale, float cap, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = cap * tanhf(scale * x[i] / cap);
    }
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

/* Through half precision between -10 and 10: the implementation that reference logits come from looks
 * this function up by the half-precision argument, and only the same rounding lets a whole model be
 * compared with it to 1e-9. The other forms compute in single precision throughout. */
static float gelu(float x)
{
    if (x <= -10.0f || x >= 10.0f) {
        return x > 0 ? x : 0;
    }
    float h = half_to_f32(half_from_f32(x));
    float t = tanhf(0.79788456080286536f * h * (1.0f + 0.044715f * h * h));
    return half_to_f32(half_from_f32(0.5f * h * (1.0f + t)));
}

static float activate(enum op_glu_kind kind, float x, float alpha)
{
    switch (kind) {
    case OP_GLU_SILU:
        return x * sigmoid(x);
    case OP_GLU_GELU:
        return gelu(x);
    case OP_GLU_GELU_ERF:
        return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case OP_GLU_RELU:
        return x > 0 ? x : 0;
    case OP_GLU_RELU2:
        return x > 0 ? x * x : 0;
    case OP_GLU_SIGMOID:
        return sigmoid(x);
    case OP_GLU_SILU_CLAMPED:
        return x * sigmoid(alpha * x);
    case OP_GLU_NONE:
    case OP_GLU_COUNT:
        break;
    }
    return x;
}

static void glu(enum op_glu_kind kind, float *y, const float *gate, const float *up, int64_t n,
                float alpha, float limit)
{
    if (kind == OP_GLU_SILU_CLAMPED) {
        for (int64_t i = 0; i < n; i++) {
            float u = fminf(fmaxf(up[i], -limit), limit);
            y[i] = activate(kind, fminf(gate[i], limit), alpha) * (u + 1.0f);
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float f = activate(kind, gate[i], alpha);
        y[i] = up ? f * up[i] : f;
    }
}

static void rotate(float *y, const float *x, const float *cos, const float *sin, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float a = x[i], b = x[i + n];
        y[i] = a * cos[i] - b * sin[i];
        y[i + n] = a * sin[i] + b * cos[i];
    }
}

static void rotate_adjacent(float *y, const float *x, const float *cos, const float *sin, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        y[2 * i] = a * cos[i] - b * sin[i];
        y[2 * i + 1] = a * sin[i] + b * cos[i];
    }
}

static void widen(float *y, const void *x, enum type type, int64_t n)
{
    if (type == TYPE_F32) {
        memcpy(y, x, (size_t)n * sizeof *y);
        return;
    }
    const uint16_t *h = x;
    for (int64_t i = 0; i < n; i++) {
        y[i] = type == TYPE_F16 ? half_to_f32(h[i]) : half_bf16_to_f32(h[i]);
    }
}

static void narrow(void *y, const float *x, enum type type, int64_t n)
{
    if (type == TYPE_F32) {
        memcpy(y, x, (size_t)n * sizeof *x);
        return;
    }
    uint16_t *h = y;
    for (int64_t i = 0; i < n; i++) {
        h[i] = type == TYPE_F16 ? half_from_f32(x[i]) : half_bf16_from_f32(x[i]);
    }
}

static void scores(float *s, int64_t stride, const float *q, int64_t n_rows,
                   const struct vec_tiles *k, int64_t dim)
{
    ASSERT(k->type == TYPE_F32);
    for (int64_t r = 0; r < n_rows; r++) {
        for (int64_t i = 0; i < k->n; i++) {
            const float *kt = k->at[i];
            float acc[KV_BLOCK] = {0};
            for (int64_t d = 0; d < dim; d++) {
                for (int t = 0; t < KV_BLOCK; t++) {
                    acc[t] += q[r * dim + d] * kt[d * KV_BLOCK + t];
                }
            }
            memcpy(s + r * stride + i * KV_BLOCK, acc, sizeof acc);
        }
    }
}

static float greatest(const float *x, int64_t n, float floor)
{
    for (int64_t i = 0; i < n; i++) {
        floor = x[i] > floor ? x[i] : floor;
    }
    return floor;
}

static void climb(float *peaks, const float *x, int64_t stride, int64_t n_rows, int64_t n)
{
    for (int64_t r = 0; r < n_rows; r++) {
        for (int64_t i = 0; i < n; i++) {
            float *peak = &peaks[r * VEC_SUMS + i % VEC_SUMS];
            *peak = x[r * stride + i] > *peak ? x[r * stride + i] : *peak;
        }
    }
}

static void soften(float *x, int64_t stride, int64_t n_rows, int64_t n, const float *shift,
                   float *sums)
{
    for (int64_t r = 0; r < n_rows; r++) {
        for (int64_t i = 0; i < n; i++) {
            x[r * stride + i] = expf(x[r * stride + i] - shift[r]);
            sums[r * VEC_SUMS + i % VEC_SUMS] += x[r * stride + i];
        }
    }
}

static void values(float *acc, const float *p, int64_t p_stride, int64_t n_rows,
                   const struct vec_tiles *v, int64_t n_tokens, int64_t dim)
{
    ASSERT(v->type == TYPE_F32);
    for (int64_t r = 0; r < n_rows; r++) {
        for (int64_t t = 0; t < n_tokens; t++) {
            const float *row = (const float *)v->at[t / KV_BLOCK] + t % KV_BLOCK * dim;
            float w = p[r * p_stride + t];
            for (int64_t d = 0; d < dim; d++) {
                acc[r * dim + d] += w * row[d];
            }
        }
    }
}

static void conv(float *y, const float *x, float *past, const float *weight, const float *bias,
                 int64_t n, int64_t width, int64_t stride, bool silu)
{
    for (int64_t i = 0; i < n; i++) {
        float s = bias ? bias[i] : 0;
        for (int64_t j = 0; j + 1 < width; j++) {
            s += weight[j * stride + i] * past[j * stride + i];
        }
        s += weight[(width - 1) * stride + i] * x[i];
        for (int64_t j = 0; j + 2 < width; j++) {
            past[j * stride + i] = past[(j + 1) * stride + i];
        }
        if (width > 1) {
            past[(width - 2) * stride + i] = x[i];
        }
        y[i] = silu ? s * sigmoid(s) : s;
    }
}

static void ssm(float *y, float *state, const float *x, const float *b, const float *c, float decay,
                float dt, float d, int64_t dim, int64_t n_state)
{
    for (int64_t i = 0; i < dim; i++) {
        float *row = state + i * n_state;
        float in = dt * x[i];
        double s = 0;
        for (int64_t j = 0; j < n_state; j++) {
            row[j] = row[j] * decay + in * b[j];
            s += (double)row[j] * (double)c[j];
        }
        y[i] = (float)s + d * x[i];
    }
}

static void delta(float *y, float *state, int64_t stride, const float *q, const float *k,
                  const float *v, float decay, float rate, float scale, int64_t dim_k, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float *column = state + i;
        double seen = 0, out = 0;
        for (int64_t j = 0; j < dim_k; j++) {
            column[j * stride] *= decay;
            seen += (double)column[j * stride] * (double)k[j];
        }
        float change = rate * (v[i] - (float)seen);
        for (int64_t j = 0; j < dim_k; j++) {
            column[j * stride] += k[j] * change;
            out += (double)column[j * stride] * (double)q[j];
        }
        y[i] = (float)out * scale;
    }
}

const struct vec vec_scalar = {
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
    .few_rows = 0,
    .scores = scores,
    .greatest = greatest,
    .climb = climb,
    .soften = soften,
    .values = values,
    .conv = conv,
    .ssm = ssm,
    .delta = delta,
};
