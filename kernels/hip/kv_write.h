/* What goes into the paged cache, and where to: for kv_write, and for attention where it writes
 * first. */
#ifndef KERNELS_HIP_KV_WRITE_H
#define KERNELS_HIP_KV_WRITE_H

#include "kernels/hip/args.h"
#include "kernels/hip/cache.h"
#include "kernels/hip/gpu.h"

/* Dimensions that thread `pair` of a head of n does, and their values. */
struct kv_write_pair {
    int first, second;
    float u, v;
};

GPU_FN struct kv_write_pair kv_write_rotated(const struct kv_write_args *a, const float *x, int row,
                                             int pair)
{
    int n_pairs = a->n_rot / 2;
    struct kv_write_pair p;
    if (pair >= n_pairs) { /* not rotated: neighbours */
        p.first = 2 * pair;
        p.second = p.first + 1;
        p.u = x[p.first];
        p.v = x[p.second];
        return p;
    }
    p.first = a->adjacent ? 2 * pair : pair;
    p.second = a->adjacent ? p.first + 1 : pair + n_pairs;
    float u = x[p.first], v = x[p.second];
    const float *table = a->table + row * a->table_stride;
    float cosine = table[pair], sine = table[n_pairs + pair];
    p.u = u * cosine - v * sine;
    p.v = u * sine + v * cosine;
    return p;
}

GPU_FN int kv_write_bytes(int type)
{
    return type == TYPE_F32 ? 4 : 2;
}

/* Element i of a tile. */
GPU_FN void kv_write_put(int type, uint8_t *tile, int i, float x)
{
    if (type == TYPE_F32) {
        ((float *)(void *)tile)[i] = x;
    } else {
        ((uint16_t *)(void *)tile)[i] = type == TYPE_F16 ? gpu_f32_f16(x) : gpu_f32_bf16(x);
    }
}

/* The head's part of the block that the row belongs in. */
GPU_FN uint8_t *kv_write_head(const struct kv_write_args *a, int type, int row, int head,
                              int *ret_slot)
{
    int position = a->positions[row];
    int64_t block = a->tables[a->row_table[row] * a->tables_stride + position / CACHE_BLOCK];
    int64_t bytes = cache_tile_bytes(type, a->dim_k);
    bytes += a->v_in_k ? 0 : cache_tile_bytes(type, a->dim_v);
    *ret_slot = position % CACHE_BLOCK;
    return a->kv + (block * a->n_kv_head + head) * bytes;
}

/* A query's pair is rotated in place. */
GPU_FN void kv_write_query(const struct kv_write_args *a, int row, int index)
{
    int of_head = a->dim_k / 2;
    float *x = a->q + row * a->q_stride + (int64_t)(index / of_head) * a->dim_k;
    struct kv_write_pair p = kv_write_rotated(a, x, row, index % of_head);
    x[p.first] = p.u;
    x[p.second] = p.v;
}

/* A key's dimension, rotated. */
GPU_FN float kv_write_key(const struct kv_write_args *a, const float *x, int row, int d)
{
    int n_pairs = a->n_rot / 2;
    if (d >= 2 * n_pairs) {
        return x[d];
    }
    struct kv_write_pair p = kv_write_rotated(a, x, row, a->adjacent ? d / 2 : d % n_pairs);
    return d == p.first ? p.u : p.v;
}

#endif
