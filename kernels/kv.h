/* The layout of the KV cache, one header for the CPU and the GPU.
 *
 * A pool is cut into blocks of KV_BLOCK tokens; a sequence's block table names its blocks in order.
 * Each attention layer has its own array of blocks. Inside a block, for each KV head: K,
 * transposed: dim_k rows of KV_BLOCK values (one row holds one dimension of the block's tokens); V:
 * KV_BLOCK rows of dim_v values. In a Q8_0 cache each of both is signed bytes in the same order,
 * behind one binary16 scale for every KV_Q8_GROUP dimensions of a token (the last group of a head
 * may be smaller): K's scales are rows of KV_BLOCK, one row a group; V's are a row a token. With K
 * transposed the scores of a block are one vector that is accumulated over the dimensions: no sum
 * across lanes, and one reduction order for every instruction set and every batch. Where V is a
 * part of K (multi-head latent attention), v_in_k is set and V is not stored. */
#ifndef KERNELS_KV_H
#define KERNELS_KV_H

#include "shared/base.h"
#include "shared/type.h"

enum { KV_BLOCK = 16, KV_Q8_GROUP = 32 };

struct kv_layer {
    enum type type; /* TYPE_F32, TYPE_F16, TYPE_BF16, TYPE_Q8_0 */
    int32_t n_head; /* KV heads */
    int32_t dim_k, dim_v;
    bool v_in_k; /* V is the first dim_v dimensions of K */
    char *data;  /* block b begins at data + b * kv_block_bytes() */
};

/* Scales of so many dimensions of a token. */
static inline size_t kv_q8_groups(int64_t dim)
{
    return ((size_t)dim + KV_Q8_GROUP - 1) / KV_Q8_GROUP;
}
/* Bytes of KV_BLOCK tokens' K or V of one head. */
static inline size_t kv_tile_bytes(enum type type, int64_t dim)
{
    return KV_BLOCK * (type == TYPE_Q8_0 ? (size_t)dim + 2 * kv_q8_groups(dim)
                                         : (size_t)dim * type_info((uint32_t)type)->block_bytes);
}
static inline size_t kv_head_bytes(const struct kv_layer *l)
{
    return kv_tile_bytes(l->type, l->dim_k) + (l->v_in_k ? 0 : kv_tile_bytes(l->type, l->dim_v));
}
static inline size_t kv_block_bytes(const struct kv_layer *l)
{
    return kv_head_bytes(l) * (size_t)l->n_head;
}
/* A head's K in a block; its V follows kv_tile_bytes(dim_k) later. */
static inline char *kv_head(const struct kv_layer *l, int64_t block, int64_t head)
{
    return l->data + (size_t)block * kv_block_bytes(l) + (size_t)head * kv_head_bytes(l);
}

#endif
