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
    const int8_t *at_a[GPU_FRAG_ROWS], *at_b[GPU_FRAG_ROWS];
    for (int i = 0; i < GPU_FRAG_ROWS; i++) {
        at_a[i] = gpu_frag_at(a.a8 + 16 * gpu_frag_row(i));
        at_b[i] = gpu_frag_at(a.b8 + 16 * gpu_frag_row(i));
    }
    struct gpu_frag_i8 ab[2] = {gpu_frag_i8_at(at_a, GPU_FRAG_ROWS), gpu_frag_i8_at(at_b, GPU_FRAG_ROWS)};
    struct gpu_frag_i8 ba[2] = {ab[1], ab[0]};
    for (int i = 0; i < 4; i++) {
        bool is_there = i < GPU_FRAG_WORDS;
        a.words[lane * 4 + i] = is_there ? ab[0].w[i] : 0;
        a.places[lane * 4 + i] = is_there ? gpu_frag_row(i % GPU_FRAG_ROWS) * 4 + gpu_frag_quad(i) : -1;
    }
    struct gpu_acc_i32 from = {{7, 7, 7, 7, 7, 7, 7, 7}}, d32;
    gpu_mma_i8_32(ab, ba, &from, &d32);
    for (int i = 0; i < 8; i++) {
        a.d32[gpu_acc_row(i) * 16 + gpu_acc_column(gpu_acc_which(i))] = d32.x[i];
    }
    for (int i = 0; i < 4; i++) {
        int row = gpu_acc_row(gpu_few(i));
        a.few[gpu_few_row(row) * 16 + gpu_acc_col(gpu_few(i))] = row;
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
