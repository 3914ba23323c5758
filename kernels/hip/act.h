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
    int32_t upper = gpu_lane() >= 16 ? q : 0;
    int32_t sum = gpu_sum_i32(q - upper), upper_sum = gpu_sum_i32(upper);
    row[first + gpu_lane()] = (int8_t)q;
    if (gpu_lane() == 0) {
        struct args_act *of_group = (struct args_act *)(void *)(row + n) + first / ARGS_GROUP;
        of_group->scale = scale + poison;
        of_group->sum[0] = (int16_t)sum;
        of_group->sum[1] = (int16_t)upper_sum;
    }
}

/* The same with four values a lane, from `first` on, so that eight lanes do 32 of them; is_there
 * says whether the row goes so far (the same for the eight). All lanes of a wave come here. */
GPU_FN void act_store_four(int8_t *row, struct args_act *scales, int first, bool is_there,
                           const float x[4])
{
    float largest = gpu_max2(gpu_max2(gpu_abs(x[0]), gpu_abs(x[1])),
                             gpu_max2(gpu_abs(x[2]), gpu_abs(x[3])));
    float poison = ((x[0] - x[0]) + (x[1] - x[1])) + ((x[2] - x[2]) + (x[3] - x[3]));
    GPU_UNROLL
    for (int mask = 1; mask < 8; mask *= 2) {
        largest = gpu_max2(largest, gpu_shuffle_xor(largest, mask));
        poison += gpu_shuffle_xor(poison, mask);
    }
    float scale = largest / 127.0f;
    float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    float sum = 0; /* of small integers: exact */
    uint32_t bytes = 0;
    GPU_UNROLL
    for (int k = 0; k < 4; k++) {
        float q = poison == 0 ? gpu_round(x[k] * inverse) : 0.0f;
        sum += q;
        bytes |= ((uint32_t)(int32_t)q & 255) << 8 * k;
    }
    sum += gpu_shuffle_xor(sum, 1);
    sum += gpu_shuffle_xor(sum, 2);
    float upper_sum = gpu_shuffle_xor(sum, 4);
    if (!is_there) {
        return;
    }
    *(uint32_t *)(void *)(row + first) = bytes;
    if (gpu_lane() % 8 == 0) {
        struct args_act *of_group = scales + first / ARGS_GROUP;
        of_group->scale = scale + poison;
        of_group->sum[0] = (int16_t)sum;
        of_group->sum[1] = (int16_t)upper_sum;
    }
}

#endif
