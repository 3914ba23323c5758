/* Keys and values into the paged cache, keys and queries rotated on the way. A thread does a pair of
 * dimensions of a head, or a value: 6 bytes a value, 3 operations where it is rotated. Into bytes, a wave does the
 * 32 dimensions that share a scale. */
#include "kernels/hip/kv_write.h"

#define kv_write_q8_args kv_write_args

GPU_KERNEL(kv_write, KV_WRITE_THREADS)
{
    int row = gpu_block_y(), index = gpu_block_x() * KV_WRITE_THREADS + gpu_thread();
    int of_head = a.dim_k / 2, n_q = a.q ? a.n_head * of_head : 0, n_k = a.n_kv_head * of_head;
    if (index < n_q) {
        kv_write_query(&a, row, index);
        return;
    }
    index -= n_q;
    int slot, values = cache_tile_bytes(a.type, a.dim_k);
    if (index < n_k) {
        int head = index / of_head;
        const float *x = a.k + row * a.k_stride + (int64_t)head * a.dim_k;
        struct kv_write_pair p = kv_write_rotated(&a, x, row, index % of_head);
        uint8_t *k = kv_write_head(&a, a.type, row, head, &slot);
        kv_write_put(a.type, k, p.first * CACHE_BLOCK + slot, p.u);
        kv_write_put(a.type, k, p.second * CACHE_BLOCK + slot, p.v);
        return;
    }
    index -= n_k;
    if (!a.v_in_k && index < a.n_kv_head * a.dim_v) {
        int head = index / a.dim_v, d = index % a.dim_v;
        uint8_t *v = kv_write_head(&a, a.type, row, head, &slot) + values;
        kv_write_put(a.type, v, slot * a.dim_v + d, a.v[row * a.v_stride + index]);
    }
}

GPU_KERNEL(kv_write_q8, KV_WRITE_THREADS)
{
    enum { WAVES = KV_WRITE_THREADS / GPU_WAVE };
    int row = gpu_block_y(), n_q = a.q ? a.n_head * (a.dim_k / 2) : 0, lane = gpu_lane();
    int n_q_blocks = (n_q + KV_WRITE_THREADS - 1) / KV_WRITE_THREADS;
    if (gpu_block_x() < n_q_blocks) {
        int index = gpu_block_x() * KV_WRITE_THREADS + gpu_thread();
        if (index < n_q) {
            kv_write_query(&a, row, index);
        }
        return;
    }
    int of_k = cache_groups(a.dim_k), of_v = a.v_in_k ? 0 : cache_groups(a.dim_v);
    int index = (gpu_block_x() - n_q_blocks) * WAVES + gpu_uniform(gpu_thread() / GPU_WAVE);
    if (index >= a.n_kv_head * (of_k + of_v)) {
        return;
    }
    int head = index / (of_k + of_v), group = index % (of_k + of_v), slot;
    bool is_key = group < of_k;
    group -= is_key ? 0 : of_k;
    int dim = is_key ? a.dim_k : a.dim_v, d = group * CACHE_GROUP + lane;
    float x = 0;
    if (d < dim && is_key) {
        x = kv_write_key(&a, a.k + row * a.k_stride + (int64_t)head * dim, row, d);
    } else if (d < dim) {
        x = a.v[row * a.v_stride + (int64_t)head * dim + d];
    }
    /* The scale is rounded first, and what is divided by it is the rounded one. What is not finite makes it NaN. */
    float poison = gpu_sum(x - x), largest = gpu_max(gpu_abs(x)) / 127.0f;
    uint16_t scale = poison == 0 ? gpu_f32_f16(gpu_min2(largest, 65504.0f)) : 0x7e00;
    float by = poison == 0 && scale ? 1.0f / gpu_f16_f32(scale) : 0.0f;
    float q = by > 0 ? gpu_round(gpu_min2(gpu_max2(x * by, -127.0f), 127.0f)) : 0.0f;
    uint8_t *tile = kv_write_head(&a, TYPE_Q8_0, row, head, &slot);
    tile += is_key ? 0 : cache_tile_bytes(TYPE_Q8_0, a.dim_k);
    uint8_t *bytes = tile + 2 * CACHE_BLOCK * cache_groups(dim);
    if (d < dim) {
        bytes[is_key ? d * CACHE_BLOCK + slot : slot * dim + d] = (uint8_t)(int32_t)q;
    }
    if (lane == 0) {
        int at = is_key ? group * CACHE_BLOCK + slot : slot * cache_groups(dim) + group;
        ((uint16_t *)(void *)tile)[at] = scale;
    }
}
