/* See words.h. */
#include "tests/rig/words.h"

#include "kernels/hip/gpu.h"

GPU_KERNEL(words, WORDS_THREADS)
{
    int lane = gpu_lane(), r = lane % 16;
    struct gpu_acc_f32 d16 = {{0, 0, 0, 0, 0, 0, 0, 0}};
    struct gpu_acc_i32 d8 = {{0, 0, 0, 0, 0, 0, 0, 0}};
    gpu_mma_f16(gpu_frag_f16_load(a.a16 + 16 * r), gpu_frag_f16_load(a.b16 + 16 * r), &d16);
    gpu_mma_i8(gpu_frag_i8_load(a.a8 + 16 * r), gpu_frag_i8_load(a.b8 + 16 * r), &d8);
    for (int i = 0; i < 8; i++) {
        a.d16[gpu_acc_row(i) * 16 + gpu_acc_col(i)] = d16.x[i];
        a.d8[gpu_acc_row(i) * 16 + gpu_acc_col(i)] = d8.x[i];
    }
    float v = gpu_f16_f32(a.a16[lane]);
    a.lanes[lane] = gpu_sum(v);
    a.lanes[32 + lane] = gpu_max(v);
    a.lanes[64 + lane] = gpu_shuffle(v, lane * 5 % 32);
    a.lanes[96 + lane] = gpu_shuffle_xor(v, 12);
    const int32_t *x = (const int32_t *)(const void *)a.a8, *y = (const int32_t *)(const void *)a.b8;
    a.numbers[lane] = gpu_sum_i32(lane * lane);
    a.numbers[32 + lane] = gpu_dot4(x[lane], y[lane], lane);
    a.numbers[64 + lane] = (int32_t)gpu_pick((uint32_t)x[lane], (uint32_t)x[lane + 1], (uint32_t)y[lane] & 0x07070707u);
}
