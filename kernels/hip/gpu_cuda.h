/* The device vocabulary on CUDA; see gpu.h. For the rig alone (tests/rig/cuda): it lets the same
 * sources run on real parallel hardware, and nothing is tuned for it. By PTX, so that it needs none
 * of CUDA's headers; compiled with -fmad=false. */
#ifndef KERNELS_HIP_GPU_CUDA_H
#define KERNELS_HIP_GPU_CUDA_H

#define GPU_FN static __device__ __forceinline__
#define GPU_TABLE static const __device__
/* CUDA has functions by some of our names: kernels are gpu_NAME here. */
#define GPU_KERNEL(name, threads)                                                                  \
    GPU_FN void name##_body(const struct name##_args &a);                                          \
    extern "C" __global__ void __launch_bounds__(threads, (threads) >= 512 ? 1 : (threads) >= 256 ? 2 : 4) \
        gpu_##name(const __grid_constant__ struct name##_args a, const struct args_crumb crumb)    \
    {                                                                                              \
        gpu_leave(&crumb);                                                                         \
        name##_body(a);                                                                            \
    }                                                                                              \
    GPU_FN void name##_body(const struct name##_args &a)
#define GPU_UNROLL _Pragma("unroll")
#define GPU_LOOP _Pragma("unroll 1")
#define GPU_SHARED(type, name, n) static __shared__ __align__(16) type name[n]

/* --- places and order ------------------------------------------------------------------------- */

#define GPU_CUDA_PLACE(name, reg)                                                                  \
    GPU_FN int name(void)                                                                          \
    {                                                                                              \
        int v;                                                                                     \
        asm("mov.u32 %0, %" reg ";" : "=r"(v));                                                    \
        return v;                                                                                  \
    }
GPU_CUDA_PLACE(gpu_thread, "%tid.x")
GPU_CUDA_PLACE(gpu_block_x, "%ctaid.x")
GPU_CUDA_PLACE(gpu_block_y, "%ctaid.y")
GPU_CUDA_PLACE(gpu_block_z, "%ctaid.z")

GPU_FN void gpu_leave(const struct args_crumb *crumb)
{
    bool is_first = gpu_block_x() == 0 && gpu_block_y() == 0 && gpu_block_z() == 0;
    if (is_first && gpu_thread() == 0 && crumb->at) {
        asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"((uint64_t)crumb->at),
                     "r"(crumb->number));
    }
}
GPU_FN void gpu_barrier(void)
{
    asm volatile("bar.sync 0;" ::: "memory");
}
GPU_FN void gpu_wave_sync(void)
{
    asm volatile("bar.warp.sync 0xffffffff;" ::: "memory");
}
GPU_FN void gpu_unused(const void *p, int bytes)
{
    (void)p;
    (void)bytes;
}
GPU_FN void gpu_keep_order(void)
{
}

/* --- memory and numbers ----------------------------------------------------------------------- */

GPU_FN struct gpu_16 gpu_load16(const void *p)
{
    return *(const struct gpu_16 *)p;
}
GPU_FN void gpu_store16(void *p, struct gpu_16 v)
{
    *(struct gpu_16 *)p = v;
}
GPU_FN float gpu_f16_f32(uint16_t h)
{
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}
/* NaN keeps its sign and digits, as elsewhere; CUDA has one NaN only. */
GPU_FN uint16_t gpu_f32_f16(float f)
{
    uint16_t h;
    uint32_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    asm("mov.b32 %0, %1;" : "=r"(bits) : "f"(f));
    return f == f ? h : (uint16_t)((bits >> 16 & 0x8000) | 0x7e00 | (bits >> 13 & 0x3ff));
}
#ifdef GPU_CUDA_NATIVE /* as AMD cards take theirs; else gpu_rig.h */
#define GPU_CUDA_UNARY(name, op)                                                                   \
    GPU_FN float name(float a)                                                                     \
    {                                                                                              \
        float y;                                                                                   \
        asm(op " %0, %1;" : "=f"(y) : "f"(a));                                                     \
        return y;                                                                                  \
    }
GPU_CUDA_UNARY(gpu_exp2, "ex2.approx.ftz.f32")
GPU_CUDA_UNARY(gpu_log2, "lg2.approx.ftz.f32")
GPU_CUDA_UNARY(gpu_rcp, "rcp.approx.ftz.f32")
GPU_CUDA_UNARY(gpu_rsq, "rsqrt.approx.ftz.f32")
#endif
GPU_FN float gpu_sqrt(float a)
{
    float y;
    asm("sqrt.rn.f32 %0, %1;" : "=f"(y) : "f"(a));
    return y;
}
GPU_FN float gpu_fma(float a, float b, float c)
{
    float y;
    asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(y) : "f"(a), "f"(b), "f"(c));
    return y;
}
GPU_FN int32_t gpu_dot4(int32_t a, int32_t b, int32_t c)
{
    int32_t y;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(c));
    return y;
}
GPU_FN uint32_t gpu_pick(uint32_t low, uint32_t high, uint32_t index)
{
    /* A nibble for each byte; the fourth bit would spread the sign. */
    uint32_t nibbles = (index & 7) | (index >> 4 & 0x70) | (index >> 8 & 0x700) |
                       (index >> 12 & 0x7000), y;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(y) : "r"(low), "r"(high), "r"(nibbles));
    return y;
}
GPU_FN int gpu_uniform(int i)
{
    return i;
}
GPU_FN float gpu_dot2(uint32_t a, uint32_t b, float c)
{
    c = gpu_fma(gpu_f16_f32((uint16_t)a), gpu_f16_f32((uint16_t)b), c);
    return gpu_fma(gpu_f16_f32((uint16_t)(a >> 16)), gpu_f16_f32((uint16_t)(b >> 16)), c);
}

/* --- waves ------------------------------------------------------------------------------------ */

GPU_FN int32_t gpu_cuda_shuffle(int32_t v, int lane)
{
    int32_t y;
    asm volatile("shfl.sync.idx.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(y) : "r"(v), "r"(lane));
    return y;
}
GPU_FN int32_t gpu_cuda_shuffle_xor(int32_t v, int mask)
{
    int32_t y;
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(y) : "r"(v), "r"(mask));
    return y;
}
GPU_FN float gpu_cuda_float(int32_t bits)
{
    float f;
    asm("mov.b32 %0, %1;" : "=f"(f) : "r"(bits));
    return f;
}
GPU_FN int32_t gpu_cuda_bits(float f)
{
    int32_t bits;
    asm("mov.b32 %0, %1;" : "=r"(bits) : "f"(f));
    return bits;
}
GPU_FN float gpu_shuffle(float v, int lane)
{
    return gpu_cuda_float(gpu_cuda_shuffle(gpu_cuda_bits(v), lane & 31));
}
GPU_FN float gpu_shuffle_xor(float v, int mask)
{
    return gpu_cuda_float(gpu_cuda_shuffle_xor(gpu_cuda_bits(v), mask));
}
GPU_FN float gpu_sum(float v)
{
    GPU_UNROLL
    for (int mask = 1; mask < 32; mask *= 2) {
        v += gpu_shuffle_xor(v, mask);
    }
    return v;
}
GPU_FN float gpu_max(float v)
{
    GPU_UNROLL
    for (int mask = 1; mask < 32; mask *= 2) {
        float o = gpu_shuffle_xor(v, mask);
        v = v > o ? v : o;
    }
    return v;
}
GPU_FN int32_t gpu_sum_i32(int32_t v)
{
    GPU_UNROLL
    for (int mask = 1; mask < 32; mask *= 2) {
        v += gpu_cuda_shuffle_xor(v, mask);
    }
    return v;
}

/* --- matrices --------------------------------------------------------------------------------- */

struct gpu_acc_f32 {
    float x[8];
};
struct gpu_acc_i32 {
    int32_t x[8];
};
/* As mma's A: of rows l / 4 and l / 4 + 8 a piece each; B has the same form. */
struct gpu_frag_f16 {
    uint32_t w[4];
};
#define GPU_FRAG_ROWS 2
#define GPU_FRAG_WORDS 2
#define GPU_FEW_ROWS 1
struct gpu_frag_i8 {
    uint32_t w[GPU_FRAG_WORDS];
};
GPU_FN int gpu_frag_row(int i)
{
    return gpu_thread() % 32 / 4 + 8 * i;
}
GPU_FN int gpu_frag_quad(int i)
{
    (void)i;
    return gpu_thread() % 4;
}
GPU_FN int gpu_few_row(int r)
{
    return r;
}
GPU_FN int gpu_few(int i)
{
    return i % 2 + i / 2 * 4;
}

GPU_FN int gpu_acc_row(int i)
{
    return gpu_thread() % 32 / 4 + i / 2 % 2 * 8;
}
GPU_FN int gpu_acc_col(int i)
{
    return gpu_thread() % 4 * 2 + i % 2 + i / 4 * 8;
}
#define GPU_ACC_COLS 4
GPU_FN int gpu_acc_column(int i)
{
    return gpu_thread() % 4 * 2 + i % 2 + i / 2 * 8;
}
GPU_FN int gpu_acc_which(int i)
{
    return i % 2 + i / 4 * 2;
}
/* The word at byte `at` of row r, given by the lane that holds that row's address. */
GPU_FN uint32_t gpu_cuda_word(const void *row, int r, int at)
{
    uint64_t own = (uint64_t)row;
    uint32_t low = (uint32_t)gpu_cuda_shuffle((int32_t)own, r);
    uint32_t high = (uint32_t)gpu_cuda_shuffle((int32_t)(own >> 32), r);
    return *(const uint32_t *)(((uint64_t)high << 32 | low) + (uint64_t)at);
}
GPU_FN struct gpu_frag_f16 gpu_frag_f16_load(const uint16_t *row)
{
    struct gpu_frag_f16 f;
    int lane = gpu_thread() % 32;
    for (int i = 0; i < 4; i++) {
        f.w[i] = gpu_cuda_word(row, lane / 4 + i % 2 * 8, lane % 4 * 4 + i / 2 * 16);
    }
    return f;
}
GPU_FN struct gpu_frag_i8 gpu_frag_i8_load(const int8_t *row)
{
    int lane = gpu_thread() % 32;
    struct gpu_frag_i8 f;
    f.w[0] = gpu_cuda_word(row, lane / 4, lane % 4 * 4);
    f.w[1] = gpu_cuda_word(row, lane / 4 + 8, lane % 4 * 4);
    return f;
}
GPU_FN const int8_t *gpu_frag_at(const int8_t *row)
{
    return row + gpu_thread() % 4 * 4;
}
GPU_FN struct gpu_frag_i8 gpu_frag_i8_at(const int8_t *const at[GPU_FRAG_ROWS], int n)
{
    struct gpu_frag_i8 f;
    GPU_UNROLL
    for (int i = 0; i < 2; i++) {
        f.w[i] = i < n ? *(const uint32_t *)at[i] : 0;
    }
    return f;
}
GPU_FN void gpu_mma_f16(struct gpu_frag_f16 a, struct gpu_frag_f16 b, struct gpu_acc_f32 *d)
{
    GPU_UNROLL
    for (int n = 0; n < 2; n++) {
        float *x = d->x + 4 * n;
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                     "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3])
                     : "r"(a.w[0]), "r"(a.w[1]), "r"(a.w[2]), "r"(a.w[3]), "r"(b.w[n]),
                       "r"(b.w[n + 2]));
    }
}
GPU_FN void gpu_mma_i8_from(struct gpu_frag_i8 a, struct gpu_frag_i8 b,
                            const struct gpu_acc_i32 *c, struct gpu_acc_i32 *d)
{
    GPU_UNROLL
    for (int n = 0; n < 2; n++) {
        int32_t *x = d->x + 4 * n;
        const int32_t *from = c->x + 4 * n;
        asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, "
                     "{%6}, {%7, %8, %9, %10};"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                     : "r"(a.w[0]), "r"(a.w[1]), "r"(b.w[n]), "r"(from[0]), "r"(from[1]),
                       "r"(from[2]), "r"(from[3]));
    }
}
GPU_FN void gpu_mma_i8(struct gpu_frag_i8 a, struct gpu_frag_i8 b, struct gpu_acc_i32 *d)
{
    struct gpu_acc_i32 c = *d;
    gpu_mma_i8_from(a, b, &c, d);
}
GPU_FN void gpu_mma_i8_32(const struct gpu_frag_i8 a[2], const struct gpu_frag_i8 b[2],
                          const struct gpu_acc_i32 *c, struct gpu_acc_i32 *d)
{
    GPU_UNROLL
    for (int n = 0; n < 2; n++) {
        int32_t *x = d->x + 4 * n;
        const int32_t *from = c->x + 4 * n;
        asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, "
                     "{%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                     : "r"(a[0].w[0]), "r"(a[0].w[1]), "r"(a[1].w[0]), "r"(a[1].w[1]),
                       "r"(b[0].w[n]), "r"(b[1].w[n]), "r"(from[0]), "r"(from[1]), "r"(from[2]),
                       "r"(from[3]));
    }
}
#define GPU_HAS_MMA_FROM
#define GPU_HAS_MMA_ROWS
/* From shared or global memory; no lane needs another's address. */
GPU_FN void gpu_mma_i8_rows(const int8_t *a, const int8_t *b, int pitch, struct gpu_acc_i32 *d)
{
    int lane = gpu_thread() % 32, at = lane / 4 * pitch + lane % 4 * 4;
    struct gpu_frag_i8 of_a, of_b;
    of_a.w[0] = *(const uint32_t *)(a + at);
    of_a.w[1] = *(const uint32_t *)(a + at + 8 * pitch);
    of_b.w[0] = *(const uint32_t *)(b + at);
    of_b.w[1] = *(const uint32_t *)(b + at + 8 * pitch);
    gpu_mma_i8(of_a, of_b, d);
}
#define GPU_HAS_MMA_ROWS_32
GPU_FN void gpu_mma_i8_rows_32(const int8_t *a, const int8_t *b, int pitch,
                               const struct gpu_acc_i32 *c, struct gpu_acc_i32 *d)
{
    int lane = gpu_thread() % 32, at = lane / 4 * pitch + lane % 4 * 4;
    struct gpu_frag_i8 of_a[2], of_b[2];
    GPU_UNROLL
    for (int h = 0; h < 2; h++) {
        GPU_UNROLL
        for (int r = 0; r < 2; r++) {
            of_a[h].w[r] = *(const uint32_t *)(a + at + 8 * r * pitch + 16 * h);
            of_b[h].w[r] = *(const uint32_t *)(b + at + 8 * r * pitch + 16 * h);
        }
    }
    gpu_mma_i8_32(of_a, of_b, c, d);
}

#endif
