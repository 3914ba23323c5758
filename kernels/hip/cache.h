/* Blocks of the KV cache as kernels/kv.h lays them out, of every type: where numbers stand, and reading them. A tile is one KV
 * head's keys, or values, of a block. `type` is a constant, or one of a few the same for all. */
#ifndef KERNELS_HIP_CACHE_H
#define KERNELS_HIP_CACHE_H

#include "kernels/hip/gpu.h"
#include "shared/type.h"

enum { CACHE_BLOCK = 16, CACHE_GROUP = 32 /* dimensions that share a scale in Q8_0 */ };

GPU_FN int cache_groups(int dim)
{
    return (dim + CACHE_GROUP - 1) / CACHE_GROUP;
}
GPU_FN int cache_tile_bytes(int type, int dim)
{
    return type == TYPE_Q8_0 ? CACHE_BLOCK * (dim + 2 * cache_groups(dim))
                             : CACHE_BLOCK * dim * (type == TYPE_F32 ? 4 : 2);
}
/* What becomes of x in a cache; not of Q8_0. */
GPU_FN float cache_rounded(int type, float x)
{
    return type == TYPE_F32   ? x
           : type == TYPE_F16 ? gpu_f16_f32(gpu_f32_f16(x))
                              : gpu_bf16_f32(gpu_f32_bf16(x));
}
/* For kernels that do both of these. */
GPU_FN int cache_wide_type(int type)
{
    return type == TYPE_F32 ? TYPE_F32 : TYPE_BF16;
}

/* Eight numbers that stand together, as they are in memory. */
struct cache_eight {
    struct gpu_16 v, more; /* more: of F32 */
};
/* From element i on; bytes of Q8_0 begin behind the tile's scales. */
GPU_FN struct cache_eight cache_load(int type, const uint8_t *tile, int64_t i)
{
    struct cache_eight e = {{{0, 0, 0, 0}}, {{0, 0, 0, 0}}};
    if (type == TYPE_F32) {
        e.v = gpu_load16(tile + 4 * i);
        e.more = gpu_load16(tile + 4 * i + 16);
    } else if (type == TYPE_Q8_0) {
        struct gpu_8 bytes = *(const struct gpu_8 *)(const void *)(tile + i);
        e.v.w[0] = bytes.w[0];
        e.v.w[1] = bytes.w[1];
    } else {
        e.v = gpu_load16(tile + 2 * i);
    }
    return e;
}
GPU_FN float cache_number(int type, const struct cache_eight *e, int i, float scale)
{
    uint16_t half = (uint16_t)(e->v.w[i / 2] >> i % 2 * 16);
    if (type == TYPE_F32) {
        return gpu_bits_f32(i < 4 ? e->v.w[i % 4] : e->more.w[i % 4]);
    }
    if (type == TYPE_Q8_0) {
        return (float)(int8_t)(e->v.w[i / 4] >> i % 4 * 8) * scale;
    }
    return type == TYPE_F16 ? gpu_f16_f32(half) : gpu_bf16_f32(half);
}

/* Keys: dimension d of eight positions from `at` (0 or 8) on. */
GPU_FN struct cache_eight cache_keys(int type, const uint8_t *tile, int dim, int d, int at)
{
    int scales = type == TYPE_Q8_0 ? 2 * CACHE_BLOCK * cache_groups(dim) : 0;
    return cache_load(type, tile + scales, d * CACHE_BLOCK + at);
}
/* Of a Q8_0 tile, the scales of d's group. */
GPU_FN void cache_key_scales(const uint8_t *tile, int d, int at, float ret[8])
{
    struct gpu_16 v = gpu_load16(tile + 2 * (d / CACHE_GROUP * CACHE_BLOCK + at));
    GPU_UNROLL
    for (int i = 0; i < 8; i++) {
        ret[i] = gpu_f16_f32((uint16_t)(v.w[i / 2] >> i % 2 * 16));
    }
}

/* Values: eight columns of a position, as they are in memory. */
struct cache_value {
    struct cache_eight e;
    uint16_t scale; /* of Q8_0 */
};
GPU_FN struct cache_value cache_value(int type, const uint8_t *tile, int dim, int column,
                                      int position)
{
    int groups = cache_groups(dim), scales = type == TYPE_Q8_0 ? 2 * CACHE_BLOCK * groups : 0;
    struct cache_value v = {{{{0, 0, 0, 0}}, {{0, 0, 0, 0}}}, 0};
    if (type == TYPE_Q8_0) {
        v.scale = ((const uint16_t *)(const void *)tile)[position * groups + column / CACHE_GROUP];
    }
    v.e = cache_load(type, tile + scales, position * dim + column);
    return v;
}
/* The same where values are the first dimensions of keys. */
GPU_FN struct cache_value cache_value_in_key(int type, const uint8_t *tile, int dim_k, int column,
                                             int position)
{
    const uint8_t *p = tile + (type == TYPE_Q8_0 ? 2 * CACHE_BLOCK * cache_groups(dim_k) : 0);
    struct cache_value v = {{{{0, 0, 0, 0}}, {{0, 0, 0, 0}}}, 0};
    if (type == TYPE_Q8_0) {
        v.scale = ((const uint16_t *)(const void *)
                       tile)[column / CACHE_GROUP * CACHE_BLOCK + position];
    }
    GPU_UNROLL
    for (int i = 0; i < 8; i++) {
        int at = (column + i) * CACHE_BLOCK + position;
        if (type == TYPE_F32 && i < 4) {
            v.e.v.w[i % 4] = ((const uint32_t *)(const void *)p)[at];
        } else if (type == TYPE_F32) {
            v.e.more.w[i % 4] = ((const uint32_t *)(const void *)p)[at];
        } else if (type == TYPE_Q8_0) {
            v.e.v.w[i / 4] |= (uint32_t)p[at] << i % 4 * 8;
        } else {
            v.e.v.w[i / 2] |= (uint32_t)((const uint16_t *)(const void *)p)[at] << i % 2 * 16;
        }
    }
    return v;
}
GPU_FN float cache_value_number(int type, const struct cache_value *v, int i)
{
    return cache_number(type, &v->e, i, type == TYPE_Q8_0 ? gpu_f16_f32(v->scale) : 1.0f);
}

#endif
