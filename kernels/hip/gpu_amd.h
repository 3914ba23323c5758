/* The device vocabulary on AMD GPUs, by clang's builtins; see gpu.h. Compiled without HIP's headers
 * and without device libraries. What the target has is known when its object is compiled: one
 * object for each gfx target. */
#ifndef KERNELS_HIP_GPU_AMD_H
#define KERNELS_HIP_GPU_AMD_H

#define GPU_FN static inline __attribute__((device, always_inline, unused))
#define GPU_TABLE static const __attribute__((device, unused))
#define GPU_KERNEL(name, threads)                                                                  \
    GPU_FN void name##_body(const struct name##_args &a);                                          \
    extern "C" __attribute__((global, amdgpu_flat_work_group_size(threads, threads))) void name(   \
        const struct name##_args a, const struct args_crumb crumb)                                 \
    {                                                                                              \
        if (gpu_block_x() == 0 && gpu_block_y() == 0 && gpu_block_z() == 0 && gpu_leave(&crumb)) { \
            return;                                                                                \
        }                                                                                          \
        name##_body(a);                                                                            \
    }                                                                                              \
    GPU_FN void name##_body(const struct name##_args &a)
#define GPU_UNROLL _Pragma("unroll")
#define GPU_LOOP _Pragma("nounroll")
#define GPU_SHARED(type, name, n) static __attribute__((shared, aligned(16))) type name[n]

typedef int gpu_i2 __attribute__((ext_vector_type(2)));
typedef int gpu_i4 __attribute__((ext_vector_type(4)));
typedef int gpu_i8 __attribute__((ext_vector_type(8)));
typedef float gpu_f8 __attribute__((ext_vector_type(8)));
typedef _Float16 gpu_h2 __attribute__((ext_vector_type(2)));
typedef _Float16 gpu_h8 __attribute__((ext_vector_type(8)));
typedef _Float16 gpu_h16 __attribute__((ext_vector_type(16)));

/* --- places --------------------------------------------------------------------------------- */

GPU_FN int gpu_thread(void)
{
    return (int)__builtin_amdgcn_workitem_id_x();
}
GPU_FN int gpu_block_x(void)
{
    return (int)__builtin_amdgcn_workgroup_id_x();
}
GPU_FN int gpu_block_y(void)
{
    return (int)__builtin_amdgcn_workgroup_id_y();
}
GPU_FN int gpu_block_z(void)
{
    return (int)__builtin_amdgcn_workgroup_id_z();
}

/* Returns false. In assembler, and not volatile, so that the compiler does not take it for a store:
 * after one it would no longer believe that what it loads once for a whole wave is unchanged, and
 * would load it for each lane. What is returned keeps it from being dropped. */
GPU_FN bool gpu_leave(const struct args_crumb *crumb)
{
    if (!crumb->at) {
        return false;
    }
#if defined(__GFX12__)
#define GPU_AMD_LEAVE "global_store_b32 %1, %2, %3 scope:SCOPE_SYS\n"
#elif defined(__GFX11__)
#define GPU_AMD_LEAVE "global_store_b32 %1, %2, %3\n"
#else
#define GPU_AMD_LEAVE "global_store_dword %1, %2, %3\n"
#endif
    int lanes;
    __asm__("s_mov_b32 %0, exec_lo\n"
            "s_mov_b32 exec_lo, 1\n" GPU_AMD_LEAVE "s_mov_b32 exec_lo, %0\n"
            "s_mov_b32 %0, 0"
            : "=&s"(lanes)
            : "v"(0), "v"(crumb->number), "s"(crumb->at));
    return lanes;
}

/* --- order ---------------------------------------------------------------------------------- */

/* The "local" fences leave the compute unit's vector cache alone. */
GPU_FN void gpu_barrier(void)
{
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup", "local");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup", "local");
}
GPU_FN void gpu_wave_sync(void)
{
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront", "local");
    __builtin_amdgcn_wave_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront", "local");
}

GPU_FN void gpu_unused(const void *p, int bytes)
{
    (void)p;
    (void)bytes;
}
GPU_FN void gpu_keep_order(void)
{
    __builtin_amdgcn_sched_barrier(0);
}

/* --- memory and numbers ----------------------------------------------------------------------- */

GPU_FN struct gpu_16 gpu_load16(const void *p)
{
    gpu_i4 v = *(const gpu_i4 *)p;
    return (struct gpu_16){{(uint32_t)v.x, (uint32_t)v.y, (uint32_t)v.z, (uint32_t)v.w}};
}
GPU_FN void gpu_store16(void *p, struct gpu_16 v)
{
    *(gpu_i4 *)p = (gpu_i4){(int)v.w[0], (int)v.w[1], (int)v.w[2], (int)v.w[3]};
}
GPU_FN float gpu_f16_f32(uint16_t h)
{
    return (float)__builtin_bit_cast(_Float16, h);
}
GPU_FN uint16_t gpu_f32_f16(float f)
{
    return __builtin_bit_cast(uint16_t, (_Float16)f);
}
GPU_FN float gpu_exp2(float a)
{
    return __builtin_amdgcn_exp2f(a);
}
GPU_FN float gpu_log2(float a)
{
    return __builtin_amdgcn_logf(a);
}
GPU_FN float gpu_rcp(float a)
{
    return __builtin_amdgcn_rcpf(a);
}
GPU_FN float gpu_rsq(float a)
{
    return __builtin_amdgcn_rsqf(a);
}
GPU_FN float gpu_fma(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}
GPU_FN int32_t gpu_dot4(int32_t a, int32_t b, int32_t c)
{
#if defined(__GFX10__)
    return __builtin_amdgcn_sdot4(a, b, c, false);
#else
    return __builtin_amdgcn_sudot4(true, a, true, b, c, false);
#endif
}
GPU_FN uint32_t gpu_pick(uint32_t low, uint32_t high, uint32_t index)
{
    return __builtin_amdgcn_perm(high, low, index);
}
GPU_FN int gpu_uniform(int i)
{
    return __builtin_amdgcn_readfirstlane(i);
}
GPU_FN float gpu_dot2(uint32_t a, uint32_t b, float c)
{
    return __builtin_amdgcn_fdot2(__builtin_bit_cast(gpu_h2, a), __builtin_bit_cast(gpu_h2, b), c,
                                  false);
}

/* --- waves ------------------------------------------------------------------------------------ */

/* Before what follows, with all lanes. LLVM 19 takes v_permlanex16 and v_wmma for instructions of a
 * lane and sinks them into branches that only some lanes take (into "if (gpu_lane() == 0)" behind a
 * sum: half of it was lost); assembler it leaves where it stands, and what that needs. */
#define GPU_AMD_HERE(v) __asm__("" : "+v"(v))

GPU_FN int32_t gpu_shuffle_i32(int32_t v, int lane)
{
    return __builtin_amdgcn_ds_bpermute(lane * 4, v);
}
GPU_FN float gpu_shuffle(float v, int lane)
{
    return __builtin_bit_cast(float, gpu_shuffle_i32(__builtin_bit_cast(int32_t, v), lane));
}
GPU_FN float gpu_shuffle_xor(float v, int mask)
{
    return gpu_shuffle(v, (int)__builtin_amdgcn_mbcnt_lo(~0u, 0) ^ mask);
}

/* A butterfly. With DPP, a step may mirror where it should exchange: the lanes of a half already
 * agree. */
GPU_FN int32_t gpu_amd_step(int32_t v, int step)
{
    switch (step) {
    case 0:
        return __builtin_amdgcn_update_dpp(0, v, 0xb1, 0xf, 0xf, true);
    case 1:
        return __builtin_amdgcn_update_dpp(0, v, 0x4e, 0xf, 0xf, true);
    case 2:
        return __builtin_amdgcn_update_dpp(0, v, 0x141, 0xf, 0xf, true);
    case 3:
        return __builtin_amdgcn_update_dpp(0, v, 0x140, 0xf, 0xf, true);
    default:
        v = (int)__builtin_amdgcn_permlanex16((unsigned)v, (unsigned)v, 0x76543210, 0xfedcba98,
                                              false, false);
        GPU_AMD_HERE(v);
        return v;
    }
}
#define GPU_AMD_STEP(name, type, combine)                                                          \
    GPU_FN type name(type v)                                                                       \
    {                                                                                              \
        _Pragma("unroll") for (int step = 0; step < 5; step++)                                     \
        {                                                                                          \
            type o = __builtin_bit_cast(type, gpu_amd_step(__builtin_bit_cast(int32_t, v), step)); \
            v = combine;                                                                           \
        }                                                                                          \
        return v;                                                                                  \
    }
GPU_AMD_STEP(gpu_sum, float, v + o)
GPU_AMD_STEP(gpu_max, float, v > o ? v : o)
GPU_AMD_STEP(gpu_sum_i32, int32_t, v + o)

/* --- matrices --------------------------------------------------------------------------------- */

GPU_FN int gpu_acc_col(int i)
{
    (void)i;
    return gpu_thread() % 16;
}
#define GPU_ACC_COLS 1
GPU_FN int gpu_acc_column(int i)
{
    return gpu_acc_col(i);
}
GPU_FN int gpu_acc_which(int i)
{
    (void)i;
    return 0;
}
struct gpu_acc_f32 {
    float x[8];
};
struct gpu_acc_i32 {
    int32_t x[8];
};

#if defined(__GFX12__)
struct gpu_frag_f16 {
    gpu_h8 v;
};
#define GPU_FRAG_WORDS 2
struct gpu_frag_i8 {
    uint32_t w[GPU_FRAG_WORDS];
};
GPU_FN int gpu_frag_quad(int i)
{
    return gpu_thread() / 16 % 2 * 2 + i;
}
GPU_FN const int8_t *gpu_frag_at(const int8_t *row)
{
    return row + gpu_thread() / 16 % 2 * 8;
}
GPU_FN int gpu_few_row(int r)
{
    return r % 8 < 4 ? r / 8 * 4 + r % 4 : 8;
}
GPU_FN struct gpu_frag_f16 gpu_frag_f16_load(const uint16_t *row)
{
    int half = gpu_thread() / 16 % 2;
    return (struct gpu_frag_f16){*(const gpu_h8 *)(row + 8 * half)};
}
GPU_FN struct gpu_frag_i8 gpu_frag_i8_load(const int8_t *row)
{
    int half = gpu_thread() / 16 % 2;
    gpu_i2 v = *(const gpu_i2 *)(row + 8 * half);
    return (struct gpu_frag_i8){{(uint32_t)v.x, (uint32_t)v.y}};
}
GPU_FN int gpu_acc_row(int i)
{
    return gpu_thread() / 16 % 2 * 8 + i;
}
typedef gpu_i2 gpu_words;
#define GPU_AMD_MMA_F16(a, b, c) __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(a, b, c)
#define GPU_AMD_MMA_I8(a, b, c)                                                                    \
    __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32_gfx12(true, a, true, b, c, false)
#else
/* gfx11: both halves of the wave hold the rows. gfx10.3 has no matrix instructions and does the
 * same in steps. */
struct gpu_frag_f16 {
    gpu_h16 v;
};
#define GPU_FRAG_WORDS 4
struct gpu_frag_i8 {
    uint32_t w[GPU_FRAG_WORDS];
};
GPU_FN int gpu_frag_quad(int i)
{
    return i;
}
GPU_FN const int8_t *gpu_frag_at(const int8_t *row)
{
    return row;
}
GPU_FN int gpu_few_row(int r)
{
    return r;
}
GPU_FN struct gpu_frag_f16 gpu_frag_f16_load(const uint16_t *row)
{
    gpu_h8 low = *(const gpu_h8 *)row, high = *(const gpu_h8 *)(row + 8);
    return (struct gpu_frag_f16){
        __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)};
}
GPU_FN struct gpu_frag_i8 gpu_frag_i8_load(const int8_t *row)
{
    gpu_i4 v = *(const gpu_i4 *)row;
    return (struct gpu_frag_i8){{(uint32_t)v.x, (uint32_t)v.y, (uint32_t)v.z, (uint32_t)v.w}};
}
GPU_FN int gpu_acc_row(int i)
{
    return 2 * i + gpu_thread() / 16 % 2;
}
typedef gpu_i4 gpu_words;
#define GPU_AMD_MMA_F16(a, b, c) __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, b, c)
#define GPU_AMD_MMA_I8(a, b, c)                                                                    \
    __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32(true, a, true, b, c, false)
#endif

#define GPU_FRAG_ROWS 1
#define GPU_FEW_ROWS 1
GPU_FN int gpu_frag_row(int i)
{
    (void)i;
    return gpu_thread() % 16;
}
GPU_FN int gpu_few(int i)
{
    return i;
}
GPU_FN struct gpu_frag_i8 gpu_frag_i8_at(const int8_t *const at[GPU_FRAG_ROWS], int n)
{
    (void)n;
    struct gpu_frag_i8 f;
    gpu_words v = *(const gpu_words *)at[0];
    __builtin_memcpy(f.w, &v, sizeof f.w);
    return f;
}

#if defined(__GFX10__)
GPU_FN void gpu_mma_f16(struct gpu_frag_f16 a, struct gpu_frag_f16 b, struct gpu_acc_f32 *d)
{
    gpu_i8 words_a = __builtin_bit_cast(gpu_i8, a.v), words_b = __builtin_bit_cast(gpu_i8, b.v);
    _Pragma("unroll") for (int i = 0; i < 8; i++)
    {
        _Pragma("unroll") for (int k = 0; k < 8; k++)
        {
            int32_t row = gpu_shuffle_i32(words_a[k], gpu_acc_row(i));
            d->x[i] = gpu_dot2((uint32_t)row, (uint32_t)words_b[k], d->x[i]);
        }
    }
}
GPU_FN void gpu_mma_i8(struct gpu_frag_i8 a, struct gpu_frag_i8 b, struct gpu_acc_i32 *d)
{
    _Pragma("unroll") for (int i = 0; i < 8; i++)
    {
        _Pragma("unroll") for (int k = 0; k < 4; k++)
        {
            int32_t row = gpu_shuffle_i32((int32_t)a.w[k], gpu_acc_row(i));
            d->x[i] = gpu_dot4(row, (int32_t)b.w[k], d->x[i]);
        }
    }
}
#define GPU_HAS_MMA_ROWS
GPU_FN void gpu_mma_i8_rows(const int8_t *a, const int8_t *b, int pitch, struct gpu_acc_i32 *d)
{
    gpu_i4 of_b = *(const gpu_i4 *)(b + gpu_thread() % 16 * pitch);
    _Pragma("unroll") for (int i = 0; i < 8; i++)
    {
        gpu_i4 of_a = *(const gpu_i4 *)(a + gpu_acc_row(i) * pitch);
        _Pragma("unroll") for (int k = 0; k < 4; k++)
        {
            d->x[i] = gpu_dot4(of_a[k], of_b[k], d->x[i]);
        }
    }
}
#else
GPU_FN void gpu_mma_f16(struct gpu_frag_f16 a, struct gpu_frag_f16 b, struct gpu_acc_f32 *d)
{
    gpu_f8 c = __builtin_bit_cast(gpu_f8, *d);
    c = GPU_AMD_MMA_F16(a.v, b.v, c);
    GPU_AMD_HERE(c);
    *d = __builtin_bit_cast(struct gpu_acc_f32, c);
}
GPU_FN void gpu_mma_i8(struct gpu_frag_i8 a, struct gpu_frag_i8 b, struct gpu_acc_i32 *d)
{
    gpu_i8 c = __builtin_bit_cast(gpu_i8, *d);
    c = GPU_AMD_MMA_I8(__builtin_bit_cast(gpu_words, a), __builtin_bit_cast(gpu_words, b), c);
    GPU_AMD_HERE(c);
    *d = __builtin_bit_cast(struct gpu_acc_i32, c);
}
#endif

#endif
