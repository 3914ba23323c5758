/* Normalisation of a group by a block: thread t takes the four values from 4 t, and from every 4
 * NORM_THREADS further on, the waves' sums are added in order: one order, whichever kernel does
 * it. All that a thread takes is on its way from memory before the first is needed, and is held
 * in registers up to NORM_HELD values a group. */
#ifndef KERNELS_HIP_NORM_H
#define KERNELS_HIP_NORM_H

#include "kernels/hip/act.h"
#include "kernels/op_kinds.h"

enum { NORM_STEPS = 4, NORM_STEP = 4 * NORM_THREADS, NORM_HELD = NORM_STEPS * NORM_STEP };

/* v[j][k] = x[first + NORM_STEP j + k], or 0 beyond n, for `steps` (a constant) of them. is_aligned: n and x are known
 * to be. */
GPU_FN void norm_load(const float *x, int n, int first, bool is_aligned, int steps,
                      float v[NORM_STEPS][4])
{
    bool is_wide = is_aligned || (n % 4 == 0 && (uintptr_t)x % 16 == 0);
    GPU_UNROLL
    for (int j = 0; j < steps; j++) {
        int at = first + NORM_STEP * j;
        struct gpu_16 four = {{0, 0, 0, 0}};
        if (is_wide) {
            if (at < n) {
                four = gpu_load16(x + at);
            }
        } else {
            GPU_UNROLL
            for (int k = 0; k < 4; k++) {
                four.w[k] = at + k < n ? gpu_f32_bits(x[at + k]) : 0;
            }
        }
        GPU_UNROLL
        for (int k = 0; k < 4; k++) {
            v[j][k] = gpu_bits_f32(four.w[k]);
        }
    }
}

GPU_FN float norm_block_sum(float v, float *of_waves)
{
    v = gpu_sum(v);
    if (gpu_lane() == 0) {
        of_waves[gpu_thread() / GPU_WAVE] = v;
    }
    gpu_barrier();
    float sum = 0;
    for (int i = 0; i < NORM_THREADS / GPU_WAVE; i++) {
        sum += of_waves[i];
    }
    return sum;
}

/* What a thread has of a group, or of its first NORM_HELD values. */
struct norm_held {
    float v[NORM_STEPS][4], weight[NORM_STEPS][4];
};
GPU_FN void norm_ask(const struct norm_args *a, const float *x, int64_t param, bool is_aligned,
                     int steps, struct norm_held *ret)
{
    norm_load(x, a->n, 4 * gpu_thread(), is_aligned, steps, ret->v);
    if (a->weight) {
        norm_load(a->weight + param, a->n, 4 * gpu_thread(), is_aligned, steps, ret->weight);
    }
}

/* From value `from` on, `steps` (a constant) times: the thread's values, normalised, to where norm_group is asked to. */
GPU_FN void norm_give(const struct norm_args *a, int64_t param, int from, float mean, float scale,
                      int steps, struct norm_held *held, float *y, int8_t *q,
                      struct args_act *scales)
{
    bool is_wide = a->n % 4 == 0 && (uintptr_t)y % 16 == 0;
    float of[NORM_STEPS][4];
    GPU_UNROLL
    for (int j = 0; j < steps; j++) {
        int at = from + NORM_STEP * j;
        GPU_UNROLL
        for (int k = 0; k < 4; k++) {
            float u = (held->v[j][k] - mean) * scale;
            u = a->weight ? u * held->weight[j][k] : u;
            of[j][k] = a->bias && at + k < a->n ? u + a->bias[param + at + k] : u;
        }
        if (y && is_wide && at < a->n) {
            gpu_store16(y + at, (struct gpu_16){{gpu_f32_bits(of[j][0]), gpu_f32_bits(of[j][1]),
                                                 gpu_f32_bits(of[j][2]), gpu_f32_bits(of[j][3])}});
        } else if (y) {
            GPU_UNROLL
            for (int k = 0; k < 4; k++) {
                if (at + k < a->n) {
                    y[at + k] = of[j][k];
                }
            }
        }
    }
    if (q) {
        act_store_fours(q, scales, from, NORM_STEP, a->n, steps, of);
    }
}

/* The group x, whose weights begin at param; held: of norm_ask. The result goes to y where it is not NULL, in 8 bits to q
 * and scales where that is not NULL. is_aligned (a constant): n is a multiple of 4, x and weights are aligned to 16 bytes.
 * steps (a constant): NORM_STEPS, or as many as do the whole group. A block of NORM_THREADS comes here. */
GPU_FN void norm_group(const struct norm_args *a, const float *x, int64_t param, bool is_aligned,
                       int steps, struct norm_held *held, float *y, int8_t *q,
                       struct args_act *scales)
{
    GPU_SHARED(float, sums, NORM_THREADS / GPU_WAVE);
    GPU_SHARED(float, squares, NORM_THREADS / GPU_WAVE);
    int mine = 4 * gpu_thread();
    bool is_held = steps < NORM_STEPS || a->n <= NORM_HELD;
    float(*v)[4] = held->v, (*weight)[4] = held->weight;
    float mean = 0;
    if (a->kind == OP_NORM_LAYER) {
        float sum = 0;
        for (int from = mine; from - mine < (is_held ? 1 : a->n); from += NORM_HELD) {
            if (!is_held) {
                norm_load(x, a->n, from, is_aligned, steps, v);
            }
            GPU_UNROLL
            for (int i = 0; i < 4 * steps; i++) {
                sum += v[i / 4][i % 4];
            }
        }
        mean = norm_block_sum(sum, sums) / (float)a->n;
    }
    float sum = 0;
    for (int from = mine; from - mine < (is_held ? 1 : a->n); from += NORM_HELD) {
        if (!is_held) {
            norm_load(x, a->n, from, is_aligned, steps, v);
        }
        GPU_UNROLL
        for (int i = 0; i < 4 * steps; i++) {
            float u = from + NORM_STEP * (i / 4) + i % 4 < a->n ? v[i / 4][i % 4] - mean : 0.0f;
            sum = gpu_fma(u, u, sum);
        }
    }
    sum = norm_block_sum(sum, squares);
    float scale;
    if (a->kind == OP_NORM_L2) {
        float length = sum * gpu_rsq(sum); /* NaN for 0, and then eps counts */
        scale = 1.0f / (length > a->eps ? length : a->eps);
        scale += sum - sum;
    } else {
        scale = gpu_rsq(sum / (float)a->n + a->eps);
    }
    for (int from = mine; from - mine < (is_held ? 1 : a->n); from += NORM_HELD) {
        if (!is_held) {
            norm_load(x, a->n, from, is_aligned, steps, v);
            if (a->weight) {
                norm_load(a->weight + param, a->n, from, is_aligned, steps, weight);
            }
        }
        if (a->n <= NORM_STEP) {
            norm_give(a, param, from, mean, scale, 1, held, y, q, scales);
        } else {
            norm_give(a, param, from, mean, scale, steps, held, y, q, scales);
        }
    }
}

#endif
