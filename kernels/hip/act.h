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

#endif
