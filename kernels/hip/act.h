/* Activations to 8 bits, by a wave: 32 lanes, 32 values. Part of every kernel whose output feeds a matrix. */
#ifndef KERNELS_HIP_ACT_H
#define KERNELS_HIP_ACT_H

#include "kernels/hip/args.h"
#include "kernels/hip/gpu.h"

/* Lane l gives x = the value `first` + l of the row; first is a multiple of 32. */
GPU_FN void act_store(int8_t *row, int n, int first, float x)
{
    float largest = gpu_max(gpu_abs(x));
    float scale = largest / 127.0f;
    float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    /* What is not a number must not vanish in an integer: it makes the scale one. */
    float poison = gpu_sum(x - x);
    int32_t q = poison == 0 ? (int32_t)gpu_round(x * inverse) : 0;
    int32_t both = gpu_sum_i32(gpu_lane() >= 16 ? q * 65536 : q); /* of both halves at once */
    int32_t sum = (int16_t)both, upper_sum = (both - sum) / 65536;
    row[first + gpu_lane()] = (int8_t)q;
    if (gpu_lane() == 0) {
        struct args_act *of_group = (struct args_act *)(void *)(row + n) + first / ARGS_GROUP;
        of_group->scale = scale + poison;
        of_group->sum[0] = (int16_t)sum;
        of_group->sum[1] = (int16_t)upper_sum;
    }
}

/* The same with four values a lane, so that eight lanes do 32 of them, `steps` (a constant, at most 4) times: x[j] are the
 * values from `first` + step * j on, where they are below n. The steps' waits overlap. All lanes of a wave come here. */
GPU_FN void act_store_fours(int8_t *row, struct args_act *scales, int first, int step, int n,
                            int steps, float x[][4])
{
    float largest[4], poison[4], sum[4];
    uint32_t bytes[4];
    GPU_UNROLL
    for (int j = 0; j < steps; j++) {
        float *v = x[j];
        largest[j] = gpu_max2(gpu_max2(gpu_abs(v[0]), gpu_abs(v[1])),
                              gpu_max2(gpu_abs(v[2]), gpu_abs(v[3])));
        poison[j] = ((v[0] - v[0]) + (v[1] - v[1])) + ((v[2] - v[2]) + (v[3] - v[3]));
    }
    GPU_UNROLL
    for (int mask = 1; mask < 8; mask *= 2) {
        GPU_UNROLL
        for (int j = 0; j < steps; j++) {
            largest[j] = gpu_max2(largest[j], gpu_shuffle_xor(largest[j], mask));
            poison[j] += gpu_shuffle_xor(poison[j], mask);
        }
    }
    GPU_UNROLL
    for (int j = 0; j < steps; j++) {
        float inverse = largest[j] > 0 ? 127.0f / largest[j] : 0.0f;
        sum[j] = 0; /* of small integers: exact */
        bytes[j] = 0;
        GPU_UNROLL
        for (int k = 0; k < 4; k++) {
            float q = poison[j] == 0 ? gpu_round(x[j][k] * inverse) : 0.0f;
            sum[j] += q;
            bytes[j] |= ((uint32_t)(int32_t)q & 255) << 8 * k;
        }
    }
    GPU_UNROLL
    for (int j = 0; j < steps; j++) {
        sum[j] += gpu_shuffle_xor(sum[j], 1);
    }
    GPU_UNROLL
    for (int j = 0; j < steps; j++) {
        sum[j] += gpu_shuffle_xor(sum[j], 2);
    }
    GPU_UNROLL
    for (int j = 0; j < steps; j++) {
        float upper_sum = gpu_shuffle_xor(sum[j], 4);
        int at = first + step * j;
        if (at < n) {
            *(uint32_t *)(void *)(row + at) = bytes[j];
        }
        if (at < n && gpu_lane() % 8 == 0) {
            struct args_act *of_group = scales + at / ARGS_GROUP;
            of_group->scale = largest[j] / 127.0f + poison[j];
            of_group->sum[0] = (int16_t)sum[j];
            of_group->sum[1] = (int16_t)upper_sum;
        }
    }
}

#endif
