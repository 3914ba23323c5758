/* The KV block pool: blocks of KV_BLOCK tokens, taken and given back one by one, shared by reference
 * count. All memory is allocated once. One owner (the engine); no thread but the token loop's. */
#ifndef WORKER_KV_H
#define WORKER_KV_H

#include "kernels/kv.h"
#include "shared/err.h"

struct kv_pool {
    int64_t n_blocks, n_free;
    int32_t *free;    /* owned; a stack */
    int32_t *n_refs;  /* owned; per block; 0: free */
    char *memory;     /* owned mapping */
    size_t bytes;
    const struct kv_layer *layers; /* borrowed; data set here */
    size_t n_layers;
};

/* Bytes that one block takes in all layers. */
size_t kv_bytes_per_block(const struct kv_layer *layers, size_t n_layers);

/* Maps memory for n_blocks of every layer and sets the layers' data. The memory is only taken when
 * written. -ENOMEM. */
MUST_CHECK int kv_pool_init(struct kv_pool *p, struct kv_layer *layers, size_t n_layers,
                            int64_t n_blocks);
void kv_pool_finish(struct kv_pool *p);

/* A free block with one reference, or -ENOSPC. */
MUST_CHECK int32_t kv_take(struct kv_pool *p);
void kv_ref(struct kv_pool *p, int32_t block);
void kv_release(struct kv_pool *p, int32_t block);
bool kv_is_shared(const struct kv_pool *p, int32_t block);
/* Copies a block's content in all layers. */
void kv_copy(const struct kv_pool *p, int32_t from, int32_t to);

#endif
