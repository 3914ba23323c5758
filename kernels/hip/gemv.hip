/* Products of packed weights with a few rows of 8-bit activations. A wave does one row of the matrix; lane l takes groups l,
 * l + 32, ... of 32 weights, and the lanes are added by a butterfly. That order depends on n_cols only, so a token's
 * result is the same with any others beside it. */
#include "kernels/hip/args.h"
#include "kernels/hip/gpu.h"

enum gemv_form { GEMV_Q4_0, GEMV_Q8_0, GEMV_Q4_K, GEMV_Q6_K };

/* A group of weights in registers, and how it scales. */
struct gemv_group {
    uint32_t low[8]; /* 8-bit weights, or 4 words of nibbles */
    uint32_t high[2];
    float scale[2]; /* of its halves */
    float min;
};

GPU_FN struct gemv_group gemv_load(const struct gemv_args *a, enum gemv_form form, int64_t group)
{
    struct gemv_group g;
    const uint8_t *low = a->low + group * (form == GEMV_Q8_0 ? 32 : 16);
    struct gpu_16 v = gpu_load16(low);
    struct gpu_16 more = form == GEMV_Q8_0 ? gpu_load16(low + 16) : v;
    for (int i = 0; i < 4; i++) {
        g.low[i] = v.w[i];
        g.low[i + 4] = more.w[i];
    }
    uint32_t scale = *(const uint16_t *)(const void *)(a->scale + group * 2);
    g.min = 0;
    g.high[0] = g.high[1] = 0;
    if (form == GEMV_Q4_K) {
        uint32_t super = *(const uint32_t *)(const void *)(a->super + group / 8 * 4);
        g.scale[0] = gpu_f16_f32((uint16_t)super) * (float)(scale & 0xff);
        g.min = gpu_f16_f32((uint16_t)(super >> 16)) * (float)(scale >> 8);
    } else if (form == GEMV_Q6_K) {
        const uint32_t *high = (const uint32_t *)(const void *)(a->high + group * 8);
        g.high[0] = high[0];
        g.high[1] = high[1];
        float d = gpu_f16_f32(*(const uint16_t *)(const void *)(a->super + group / 8 * 4));
        g.scale[0] = d * (float)(int8_t)scale;
        g.scale[1] = d * (float)(int8_t)(scale >> 8);
        return g;
    } else {
        g.scale[0] = gpu_f16_f32((uint16_t)scale);
        g.min = form == GEMV_Q4_0 ? 8.0f * g.scale[0] : 0;
    }
    g.scale[1] = g.scale[0];
    return g;
}

/* The group times 32 activations of scale x_scale and scaled sum x_sum. */
GPU_FN float gemv_dot(const struct gemv_group *g, enum gemv_form form, const int8_t *x,
                      float x_scale, float x_sum)
{
    struct gpu_16 first = gpu_load16(x), second = gpu_load16(x + 16);
    int32_t dot[2] = {0, 0};
    for (int i = 0; i < 4; i++) {
        int32_t u = (int32_t)first.w[i], v = (int32_t)second.w[i];
        if (form == GEMV_Q8_0) {
            dot[0] = gpu_dot4((int32_t)g->low[i], u, dot[0]);
            dot[0] = gpu_dot4((int32_t)g->low[i + 4], v, dot[0]);
        } else if (form == GEMV_Q6_K) {
            uint32_t low = (g->low[i] & 0x0f0f0f0fu) | (g->high[0] >> 2 * i & 0x03030303u) << 4;
            uint32_t high = (g->low[i] >> 4 & 0x0f0f0f0fu) | (g->high[1] >> 2 * i & 0x03030303u) << 4;
            dot[0] = gpu_dot4_u8(low, u, dot[0]) - 32 * gpu_dot4(0x01010101, u, 0);
            dot[1] = gpu_dot4_u8(high, v, dot[1]) - 32 * gpu_dot4(0x01010101, v, 0);
        } else {
            dot[0] = gpu_dot4_u8(g->low[i] & 0x0f0f0f0fu, u, dot[0]);
            dot[0] = gpu_dot4_u8(g->low[i] >> 4 & 0x0f0f0f0fu, v, dot[0]);
        }
    }
    float y = x_scale * g->scale[0] * (float)dot[0];
    y = form == GEMV_Q6_K ? y + x_scale * g->scale[1] * (float)dot[1] : y;
    return y - g->min * x_sum;
}

GPU_FN void gemv_run(const struct gemv_args a, enum gemv_form form)
{
    int row = gpu_block_x() * GEMV_ROWS + gpu_thread() / GPU_WAVE;
    int token = gpu_block_y() * GEMV_TOKENS, n_groups = a.n_cols / 32;
    if (row >= a.n_rows) {
        return;
    }
    float sum[GEMV_TOKENS] = {0, 0, 0, 0};
    for (int i = gpu_lane(); i < n_groups; i += GPU_WAVE) {
        struct gemv_group g = gemv_load(&a, form, (int64_t)row * n_groups + i);
        for (int t = 0; t < GEMV_TOKENS; t++) {
            if (token + t < a.n_tokens) {
                const int8_t *x = a.act + (token + t) * a.act_stride;
                const float *scales = (const float *)(const void *)(x + a.n_cols) + 2 * i;
                sum[t] += gemv_dot(&g, form, x + 32 * i, scales[0], scales[1]);
            }
        }
    }
    for (int t = 0; t < GEMV_TOKENS; t++) {
        float y = gpu_sum(sum[t]);
        if (gpu_lane() == 0 && token + t < a.n_tokens) {
            int64_t at = (token + t) * a.y_stride + row;
            y = a.bias ? y + a.bias[row] : y;
            a.y[at] = a.add ? y + a.add[at] : y;
        }
    }
}

GPU_KERNEL(gemv_q4_0, GEMV_THREADS)
{
    gemv_run(a, GEMV_Q4_0);
}
GPU_KERNEL(gemv_q8_0, GEMV_THREADS)
{
    gemv_run(a, GEMV_Q8_0);
}
GPU_KERNEL(gemv_q4_k, GEMV_THREADS)
{
    gemv_run(a, GEMV_Q4_K);
}
GPU_KERNEL(gemv_q6_k, GEMV_THREADS)
{
    gemv_run(a, GEMV_Q6_K);
}
