/* The layout of the KV cache, one header for the CPU and the GPU.
 *
 * A pool is cut into blocks of KV_BLOCK tokens; a sequence's block table names its blocks in order. Each
 * attention layer has its own array of blocks. Inside a block, for each KV head:
 *   K, transposed: dim_k rows of KV_BLOCK values (one row holds one dimension of the block's tokens);
 *   V: KV_BLOCK rows of dim_v values.
 * With K transposed the scores of a block are one vector that is accumulated over the dimensions: no
 * sum across lanes, and one reduction order for every instruction set and every batch.
 * Where V is a part of K (multi-head latent attention), v_in_k is set and V is not stored. */
#ifndef KERNELS_KV_H
#define KERNELS_KV_H

#include "shared/base.h"
#include "shared/type.h"

enum { KV_BLOCK = 16 };

struct kv_layer {
    enum type type; /* TYPE_F32, TYPE_F16, TYPE_BF16 */
    int32_t n_head; /* KV heads */
    int32_t dim_k, dim_v;
    bool v_in_k;    /* V is the first dim_v dimensions of K */
    char *data;     /* block b begins at data + b * kv_block_bytes() */
};

static inline size_t kv_head_elems(const struct kv_layer *l)
{
    return (size_t)KV_BLOCK * ((size_t)l->dim_k + (l->v_in_k ? 0u : (size_t)l->dim_v));
}
static inline size_t kv_block_bytes(const struct kv_layer *l)
{
    return kv_head_elems(l) * (size_t)l->n_head * type_info((uint32_t)l->type)->block_bytes;
}
/* The first element of a head's K in a block; its V follows KV_BLOCK * dim_k elements later. */
static inline char *kv_head(const struct kv_layer *l, int64_t block, int64_t head)
{
    size_t elem = type_info((uint32_t)l->type)->block_bytes;
    return l->data + (size_t)block * kv_block_bytes(l) + (size_t)head * kv_head_elems(l) * elem;
}

#endif
