/* The device vocabulary on a CPU; see gpu.h. Kernels are compiled as C; whoever runs them
 * implements the functions gpu_host_* (tests/rig/emulator.c): it runs every thread of a block and
 * knows at each of these calls which one is running. `site` is the place in the source, the same
 * pointer for all threads that stand there. */
#ifndef KERNELS_HIP_GPU_HOST_H
#define KERNELS_HIP_GPU_HOST_H

#include "kernels/half.h"

#include <math.h>
#include <stddef.h>

struct gpu_host_kernel {
    const char *name;
    void (*call)(const void *args); /* one thread */
    size_t args_bytes;
    int threads; /* of a block */
};

int gpu_host_thread(void);
int gpu_host_block(int axis);
void gpu_host_barrier(const char *site);
void gpu_host_wave_sync(const char *site);
/* Gives `bytes` (at most GPU_HOST_WORDS words) to the wave and returns what lane 0 gave; lane l's
 * stands l * GPU_HOST_WORDS words later. Valid until the lane's next call but two. */
enum { GPU_HOST_WORDS = 8 };
const uint32_t *gpu_host_exchange(const char *site, const void *value, size_t bytes);
/* Memory of the block for this key; the same for all its threads. */
void *gpu_host_shared(const char *key, const char *name, size_t bytes);
void gpu_host_not_uniform(const char *site); /* a fault */
/* A whole aligned access, checked at once. */
void gpu_host_access(const void *p, size_t bytes, bool is_write);
void gpu_host_unused(const void *p, size_t bytes);
/* Which lane holds which element of a matrix: 11 (both halves hold all of a row) or 12. Kernels may
 * not care, so tests run them with both. */
int gpu_host_matrix(void);

#define GPU_HOST_TEXT_(x) #x
#define GPU_HOST_TEXT(x) GPU_HOST_TEXT_(x)
#define GPU_HOST_SITE __FILE__ ":" GPU_HOST_TEXT(__LINE__)

#define GPU_FN static inline __attribute__((always_inline, unused))
#define GPU_TABLE static const __attribute__((unused))
#define GPU_KERNEL(name, n_threads)                                                                \
    static void name##_thread(const struct name##_args a);                                         \
    static void name##_call(const void *args)                                                      \
    {                                                                                              \
        struct name##_args a;                                                                      \
        size_t bytes = sizeof a;                                                                   \
        /* A call, which the hooks do not take for the kernel's access. */                         \
        __asm__("" : "+r"(bytes));                                                                 \
        __builtin_memcpy(&a, args, bytes);                                                         \
        name##_thread(a);                                                                          \
    }                                                                                              \
    extern const struct gpu_host_kernel name##_kernel;                                             \
    const struct gpu_host_kernel name##_kernel = {#name, name##_call, sizeof(struct name##_args),  \
                                                  n_threads};                                      \
    static void name##_thread(const struct name##_args a)
#define GPU_UNROLL
#define GPU_LOOP
#define GPU_SHARED(type, name, n)                                                                  \
    static const char name##_key;                                                                  \
    type *const name = (type *)gpu_host_shared(&name##_key, #name, sizeof(type) * (n))

#define gpu_thread() gpu_host_thread()
#define gpu_block_x() gpu_host_block(0)
#define gpu_block_y() gpu_host_block(1)
#define gpu_block_z() gpu_host_block(2)
#define gpu_unused(p, bytes) gpu_host_unused(p, bytes)
#define gpu_barrier() gpu_host_barrier(GPU_HOST_SITE)
#define gpu_wave_sync() gpu_host_wave_sync(GPU_HOST_SITE)

GPU_FN void gpu_keep_order(void)
{
}
GPU_FN struct gpu_16 gpu_load16(const void *p)
{
    struct gpu_16 v;
    gpu_host_access(p, 16, false);
    __builtin_memcpy(&v, __builtin_assume_aligned(p, 16), 16);
    return v;
}
GPU_FN void gpu_store16(void *p, struct gpu_16 v)
{
    gpu_host_access(p, 16, true);
    __builtin_memcpy(__builtin_assume_aligned(p, 16), &v, 16);
}
GPU_FN float gpu_f16_f32(uint16_t h)
{
    return half_to_f32(h);
}
GPU_FN uint16_t gpu_f32_f16(float f)
{
    return half_from_f32(f);
}
GPU_FN float gpu_sqrt(float a)
{
    return sqrtf(a);
}
GPU_FN float gpu_fma(float a, float b, float c)
{
    return fmaf(a, b, c);
}
GPU_FN int32_t gpu_dot4(int32_t a, int32_t b, int32_t c)
{
    for (int i = 0; i < 4; i++) {
        c += (int8_t)((uint32_t)a >> 8 * i) * (int8_t)((uint32_t)b >> 8 * i);
    }
    return c;
}
GPU_FN uint32_t gpu_pick(uint32_t low, uint32_t high, uint32_t index)
{
    uint64_t all = low | (uint64_t)high << 32;
    uint32_t picked = 0;
    for (int i = 0; i < 4; i++) {
        picked |= (uint32_t)(all >> 8 * (index >> 8 * i & 7) & 255) << 8 * i;
    }
    return picked;
}
GPU_FN int gpu_host_uniform(int i, const char *site)
{
    const uint32_t *all = gpu_host_exchange(site, &i, 4);
    uint32_t differs = 0;
    for (int l = 1; l < GPU_WAVE; l++) {
        differs |= all[l * GPU_HOST_WORDS] ^ all[0];
    }
    if (differs != 0) {
        gpu_host_not_uniform(site);
    }
    return i;
}
#define gpu_uniform(i) gpu_host_uniform(i, GPU_HOST_SITE)
GPU_FN float gpu_dot2(uint32_t a, uint32_t b, float c)
{
    c = fmaf(half_to_f32((uint16_t)a), half_to_f32((uint16_t)b), c);
    return fmaf(half_to_f32((uint16_t)(a >> 16)), half_to_f32((uint16_t)(b >> 16)), c);
}

/* --- waves ------------------------------------------------------------------------------------ */

GPU_FN float gpu_host_shuffle(float v, int lane, const char *site)
{
    const uint32_t *all = gpu_host_exchange(site, &v, 4);
    return half_from_bits(all[(lane & 31) * GPU_HOST_WORDS]);
}
GPU_FN float gpu_host_sum(float v, const char *site)
{
    for (int mask = 1; mask < GPU_WAVE; mask *= 2) {
        v += gpu_host_shuffle(v, gpu_host_thread() ^ mask, site);
    }
    return v;
}
GPU_FN float gpu_host_max(float v, const char *site)
{
    for (int mask = 1; mask < GPU_WAVE; mask *= 2) {
        float o = gpu_host_shuffle(v, gpu_host_thread() ^ mask, site);
        v = v > o ? v : o;
    }
    return v;
}
GPU_FN int32_t gpu_host_sum_i32(int32_t v, const char *site)
{
    const uint32_t *all = gpu_host_exchange(site, &v, 4);
    uint32_t sum = 0;
    for (int i = 0; i < GPU_WAVE; i++) {
        sum += all[i * GPU_HOST_WORDS];
    }
    return (int32_t)sum;
}
#define gpu_shuffle(v, lane) gpu_host_shuffle(v, lane, GPU_HOST_SITE)
#define gpu_shuffle_xor(v, mask) gpu_host_shuffle(v, gpu_host_thread() ^ (mask), GPU_HOST_SITE)
#define gpu_sum(v) gpu_host_sum(v, GPU_HOST_SITE)
#define gpu_max(v) gpu_host_max(v, GPU_HOST_SITE)
#define gpu_sum_i32(v) gpu_host_sum_i32(v, GPU_HOST_SITE)

/* --- matrices --------------------------------------------------------------------------------- */

struct gpu_frag_f16 {
    uint32_t w[8];
};
#define GPU_FRAG_ROWS 1
#define GPU_FRAG_WORDS 4
#define GPU_FEW_ROWS 1
struct gpu_frag_i8 {
    uint32_t w[GPU_FRAG_WORDS];
};
struct gpu_acc_f32 {
    float x[8];
};
struct gpu_acc_i32 {
    int32_t x[8];
};

/* With layout 12 a lane holds its half of the row only, in the first words. */
GPU_FN struct gpu_frag_f16 gpu_frag_f16_load(const uint16_t *row)
{
    struct gpu_frag_f16 f = {{0}};
    int is_half = gpu_host_matrix() == 12, half = gpu_host_thread() / 16 % 2;
    for (int i = 0; i < (is_half ? 1 : 2); i++) {
        struct gpu_16 v = gpu_load16(row + 8 * (is_half ? half : i));
        __builtin_memcpy(f.w + 4 * i, v.w, 16);
    }
    return f;
}
GPU_FN struct gpu_frag_i8 gpu_frag_i8_load(const int8_t *row)
{
    struct gpu_frag_i8 f = {{0}};
    struct gpu_16 v = gpu_load16(row);
    if (gpu_host_matrix() == 12) {
        __builtin_memcpy(f.w, v.w + gpu_host_thread() / 16 % 2 * 2, 8);
    } else {
        __builtin_memcpy(f.w, v.w, 16);
    }
    return f;
}
GPU_FN int gpu_acc_col(int i)
{
    (void)i;
    return gpu_host_thread() % 16;
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
GPU_FN int gpu_acc_row(int i)
{
    int half = gpu_host_thread() / 16 % 2;
    return gpu_host_matrix() == 12 ? 8 * half + i : 2 * i + half;
}
GPU_FN int gpu_frag_row(int i)
{
    (void)i;
    return gpu_host_thread() % 16;
}
GPU_FN int gpu_frag_quad(int i)
{
    return gpu_host_matrix() == 12 ? gpu_host_thread() / 16 % 2 * 2 + i % 2 : i;
}
GPU_FN int gpu_few_row(int r)
{
    if (gpu_host_matrix() == 12) {
        return r % 8 < 4 ? r / 8 * 4 + r % 4 : 8;
    }
    return r;
}
GPU_FN int gpu_few(int i)
{
    return i;
}
GPU_FN const int8_t *gpu_frag_at(const int8_t *row)
{
    return gpu_host_matrix() == 12 ? row + gpu_host_thread() / 16 % 2 * 8 : row;
}
GPU_FN struct gpu_frag_i8 gpu_frag_i8_at(const int8_t *const at[GPU_FRAG_ROWS], int n)
{
    (void)n;
    struct gpu_frag_i8 f = {{0}};
    if (gpu_host_matrix() == 12) {
        struct gpu_16 all = gpu_load16(at[0] - gpu_host_thread() / 16 % 2 * 8);
        __builtin_memcpy(f.w, all.w + gpu_host_thread() / 16 % 2 * 2, 8);
        __builtin_memcpy(f.w + 2, f.w, 8); /* nobody's, but as gpu_frag_quad says */
    } else {
        __builtin_memcpy(f.w, gpu_load16(at[0]).w, 16);
    }
    return f;
}
/* Word k of row r of a matrix of n_words words a row, of which a lane holds all, or a half. */
GPU_FN uint32_t gpu_host_word(const uint32_t *all, int r, int k, int n_words)
{
    if (gpu_host_matrix() == 12) {
        r += k / (n_words / 2) * 16;
        k %= n_words / 2;
    }
    return all[r * GPU_HOST_WORDS + k];
}
GPU_FN void gpu_host_mma_f16(struct gpu_frag_f16 a, struct gpu_frag_f16 b, struct gpu_acc_f32 *d,
                             const char *site)
{
    const uint32_t *all_a = gpu_host_exchange(site, a.w, sizeof a.w);
    const uint32_t *all_b = gpu_host_exchange(site, b.w, sizeof b.w);
    for (int i = 0; i < 8; i++) {
        for (int k = 0; k < 8; k++) {
            d->x[i] = gpu_dot2(gpu_host_word(all_a, gpu_acc_row(i), k, 8),
                               gpu_host_word(all_b, gpu_host_thread() % 16, k, 8), d->x[i]);
        }
    }
}
GPU_FN void gpu_host_mma_i8(struct gpu_frag_i8 a, struct gpu_frag_i8 b, struct gpu_acc_i32 *d,
                            const char *site)
{
    const uint32_t *all_a = gpu_host_exchange(site, a.w, sizeof a.w);
    const uint32_t *all_b = gpu_host_exchange(site, b.w, sizeof b.w);
    for (int i = 0; i < 8; i++) {
        for (int k = 0; k < 4; k++) {
            d->x[i] =
                gpu_dot4((int32_t)gpu_host_word(all_a, gpu_acc_row(i), k, 4),
                         (int32_t)gpu_host_word(all_b, gpu_host_thread() % 16, k, 4), d->x[i]);
        }
    }
}
#define gpu_mma_f16(a, b, d) gpu_host_mma_f16(a, b, d, GPU_HOST_SITE)
#define gpu_mma_i8(a, b, d) gpu_host_mma_i8(a, b, d, GPU_HOST_SITE)

#endif
