/* The device vocabulary: all that a kernel may use besides plain C.
 *
 * A kernel is written in the common part of C17 and C++17, so that one source serves AMD GPUs
 * (clang, -x hip), the CUDA rig (gpu_cuda.h) and a CPU (gcc or clang, as C: the emulator of
 * tests/rig). The implementations stand in gpu_amd.h and gpu_host.h; each gives, with the same
 * meaning:
 *
 *   GPU_FN                      before a device function
 *   GPU_TABLE                   before a constant table
 *   GPU_KERNEL(name, threads)   a kernel whose argument is `const struct name_args a`; blocks have
 *                               exactly `threads` threads, a multiple of GPU_WAVE. A second
 *                               argument, struct args_crumb, is seen to before it begins
 *   GPU_UNROLL                  before a loop whose body indexes what must stay in registers
 *   GPU_LOOP                    before a loop that, unrolled, would need too many of them
 *   GPU_SHARED(type, name, n)   an array of the block's shared memory, aligned to 16 bytes, not
 *                               initialised
 *   gpu_thread() gpu_block_x() gpu_block_y() gpu_block_z()
 *   gpu_barrier()               all threads of the block; orders shared memory, not global memory
 *   gpu_wave_sync()             orders shared memory among the lanes of a wave
 *   gpu_keep_order()            the compiler moves nothing across it: keeps loads from piling up in
 *                               registers
 *   gpu_unused(p, bytes)        whoever reads these bytes in this launch, as parts of more, uses
 *                               nothing of them: they may be written meanwhile (for the emulator
 *                               it is no race)
 *   gpu_load16(p) gpu_store16(p, v)      16 bytes at once; p is aligned to 16
 *   gpu_f16_f32(h) gpu_f32_f16(f)        binary16 bits and float, round to nearest even
 *   gpu_exp2 gpu_log2 gpu_rcp gpu_rsq    1 ulp or so; denormals count as 0. Of AMD's instructions;
 *                               elsewhere of gpu_rig.h: the CUDA rig gives the emulator's bits
 *                               (with GPU_CUDA_NATIVE it takes its card's, where time is measured)
 *   gpu_fma(a, b, c)            the only contraction there is: compile with -ffp-contract=off
 *   gpu_dot4(a, b, c)           c + the products of four signed bytes
 *   gpu_dot2(a, b, c)           c + the products of two binary16, in float
 *   gpu_pick(low, high, index)  byte i is byte number (byte i of index: 0 to 7) of the eight bytes
 *                               low, high
 *   gpu_uniform(i)              i, the same in all lanes of the wave: tells the compiler so
 *   gpu_shuffle(v, lane) gpu_shuffle_xor(v, mask)   32 bits of another lane; mask is a constant
 *   gpu_sum(v) gpu_max(v) gpu_sum_i32(v)            over the wave, the same bits in every lane
 *   struct gpu_frag_f16, gpu_frag_i8, gpu_acc_f32, gpu_acc_i32, gpu_frag_*_load, gpu_mma_*,
 *   gpu_acc_row, gpu_acc_col
 *
 * Operations on a wave (shuffles, sums, matrices) and barriers are reached by all lanes together.
 *
 * Matrices: D = A B^T + D with A [16 x 16], B [16 x 16], both row-major with k contiguous. Every lane
 * loads a piece of row gpu_lane() % 16: gpu_frag_f16_load(p) takes a pointer to that row's 16 values,
 * aligned to 16 bytes. Element i (0..7) of a lane's gpu_acc is D[gpu_acc_row(i)][gpu_acc_col(i)];
 * on AMD GPUs the column is gpu_lane() % 16 for all of them.
 * gpu_mma_i8_rows(a, b, pitch, d) and gpu_mma_i8_rows_32(a, b, pitch, c, d) take both operands from memory, `pitch` bytes
 * from row to row: the forms for targets without matrix units. For what the others are see below.
 *
 * A lane's elements are of GPU_ACC_COLS columns, gpu_acc_column(0), ...; element i is of the one numbered gpu_acc_which(i).
 *
 * Which lane holds what of a gpu_frag_i8 differs by target, but who computes with its bytes may ask: a lane holds
 * GPU_FRAG_WORDS words w[i] of four bytes, of row gpu_frag_row(i % GPU_FRAG_ROWS), columns 4 * gpu_frag_quad(i) and on.
 *   gpu_frag_at(row)            where the lane's bytes of a row begin
 *   gpu_frag_i8_at(at, n)       a lane's piece, given where its bytes of rows gpu_frag_row(0), ... begin; those from n
 *                               on, a constant, are not read
 *   gpu_mma_i8_from(a, b, c, d)      D = A B^T + C
 *   gpu_mma_i8_32(a, b, c, d)        the same with 32 columns: a[2], b[2]
 * Eight rows of A alone, where they cost least: row r is row gpu_few_row(r) of the eight (8 and more: of none), GPU_FEW_ROWS
 * counts a lane's, and elements gpu_few(i), i = 0 to 3, of an accumulator belong to them. */
#ifndef KERNELS_HIP_GPU_H
#define KERNELS_HIP_GPU_H

#include "kernels/hip/args.h"

#include <stdbool.h>

enum { GPU_WAVE = 32 };

struct __attribute__((aligned(16))) gpu_16 {
    uint32_t w[4];
};

#if defined(__AMDGCN__)
#include "kernels/hip/gpu_amd.h"
#elif defined(__CUDACC__) || defined(__CUDA__)
#include "kernels/hip/gpu_cuda.h"
#else
#include "kernels/hip/gpu_host.h"
#endif

struct __attribute__((aligned(8))) gpu_8 {
    uint32_t w[2];
};

GPU_FN int gpu_lane(void)
{
    return gpu_thread() % GPU_WAVE;
}
#if !defined(GPU_HAS_MMA_ROWS)
GPU_FN void gpu_mma_i8_rows(const int8_t *a, const int8_t *b, int pitch, struct gpu_acc_i32 *d)
{
    int row = gpu_lane() % 16;
    gpu_mma_i8(gpu_frag_i8_load(a + row * pitch), gpu_frag_i8_load(b + row * pitch), d);
}
#endif
#if !defined(GPU_HAS_MMA_ROWS_32)
GPU_FN void gpu_mma_i8_rows_32(const int8_t *a, const int8_t *b, int pitch,
                               const struct gpu_acc_i32 *c, struct gpu_acc_i32 *d)
{
    *d = *c;
    gpu_mma_i8_rows(a, b, pitch, d);
    gpu_mma_i8_rows(a + 16, b + 16, pitch, d);
}
#endif
#if !defined(GPU_HAS_MMA_FROM)
GPU_FN void gpu_mma_i8_from(struct gpu_frag_i8 a, struct gpu_frag_i8 b,
                            const struct gpu_acc_i32 *c, struct gpu_acc_i32 *d)
{
    *d = *c;
    gpu_mma_i8(a, b, d);
}
GPU_FN void gpu_mma_i8_32(const struct gpu_frag_i8 a[2], const struct gpu_frag_i8 b[2],
                          const struct gpu_acc_i32 *c, struct gpu_acc_i32 *d)
{
    gpu_mma_i8_from(a[0], b[0], c, d);
    gpu_mma_i8(a[1], b[1], d);
}
#endif
GPU_FN float gpu_bits_f32(uint32_t bits)
{
    float f;
    __builtin_memcpy(&f, &bits, 4);
    return f;
}
GPU_FN uint32_t gpu_f32_bits(float f)
{
    uint32_t bits;
    __builtin_memcpy(&bits, &f, 4);
    return bits;
}
GPU_FN float gpu_bf16_f32(uint16_t h)
{
    return gpu_bits_f32((uint32_t)h << 16);
}
/* To nearest, ties to even; NaN stays NaN. */
GPU_FN uint16_t gpu_f32_bf16(float f)
{
    uint32_t bits = gpu_f32_bits(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40);
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
GPU_FN float gpu_max2(float a, float b)
{
    return a > b ? a : b;
}
GPU_FN float gpu_min2(float a, float b)
{
    return a < b ? a : b;
}
GPU_FN float gpu_abs(float a)
{
    return gpu_bits_f32(gpu_f32_bits(a) & 0x7fffffffu);
}
/* To the nearest integer, ties to even; |a| < 2^22: beside this number the next is 1 away. */
#define GPU_ROUNDER 12582912.0f
GPU_FN float gpu_round(float a)
{
    return (a + GPU_ROUNDER) - GPU_ROUNDER;
}
#if !defined(__AMDGCN__) && !defined(GPU_CUDA_NATIVE)
#include "kernels/hip/gpu_rig.h"
#endif
/* The product with log2(e) in two floats: large exponents lose no digits. NaN stays NaN. */
GPU_FN float gpu_exp(float a)
{
    a = a < -104.0f ? -104.0f : a > 89.0f ? 89.0f : a;
    float high = a * 1.44269502f;
    float low = gpu_fma(a, 1.44269502f, -high) + a * 1.92596299e-8f;
    return gpu_exp2(high) * gpu_fma(low, 0.693147181f, 1.0f);
}
GPU_FN float gpu_sigmoid(float a)
{
    return gpu_rcp(1.0f + gpu_exp(-a));
}
/* Near 0 by its series: 1 - t would lose the digits. */
GPU_FN float gpu_tanh(float a)
{
    float b = a * a;
    if (b < 0.0625f) {
        float p = gpu_fma(b, 0.0218694885f, -0.0539682540f);
        p = gpu_fma(b, p, 0.133333333f);
        p = gpu_fma(b, p, -0.333333333f);
        return gpu_fma(a * b, p, a);
    }
    float t = gpu_exp(-2.0f * gpu_abs(a));
    float y = (1.0f - t) * gpu_rcp(1.0f + t);
    return a < 0 ? -y : y;
}

#endif
