/* The KV block pool. Invariant: a block is on the free stack exactly when it has no references. */
#include "worker/kv.h"

#include "shared/num.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

size_t kv_bytes_per_block(const struct kv_layer *layers, size_t n_layers)
{
    size_t n = 0;
    for (size_t i = 0; i < n_layers; i++) {
        n += kv_block_bytes(&layers[i]);
    }
    return n;
}

int kv_pool_init(struct kv_pool *p, struct kv_layer *layers, size_t n_layers, int64_t n_blocks)
{
    *p = (struct kv_pool){.n_blocks = n_blocks, .n_free = n_blocks, .layers = layers,
                          .n_layers = n_layers};
    uint64_t bytes;
    if (!num_mul(kv_bytes_per_block(layers, n_layers), (uint64_t)n_blocks, &bytes) ||
        !num_add(bytes, 4096, &bytes)) {
        return -ENOMEM;
    }
    p->free = malloc((size_t)(n_blocks + 1) * sizeof *p->free);
    p->n_refs = calloc((size_t)n_blocks + 1, sizeof *p->n_refs);
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map != MAP_FAILED) {
        p->memory = map;
        p->bytes = bytes;
    }
    if (!p->free || !p->n_refs || !p->memory) {
        kv_pool_finish(p);
        return -ENOMEM;
    }
    for (int64_t i = 0; i < n_blocks; i++) {
        p->free[i] = (int32_t)(n_blocks - 1 - i); /* so that they are taken in ascending order */
    }
    size_t offset = 0;
    for (size_t i = 0; i < n_layers; i++) {
        layers[i].data = p->memory + offset;
        offset += kv_block_bytes(&layers[i]) * (size_t)n_blocks;
    }
    return 0;
}

void kv_pool_finish(struct kv_pool *p)
{
    if (p->memory) {
        munmap(p->memory, p->bytes);
    }
    free(p->free);
    free(p->n_refs);
    *p = (struct kv_pool){0};
}

int32_t kv_take(struct kv_pool *p)
{
    if (p->n_free == 0) {
        return -ENOSPC;
    }
    int32_t block = p->free[--p->n_free];
    ASSERT(p->n_refs[block] == 0);
    p->n_refs[block] = 1;
    return block;
}

void kv_ref(struct kv_pool *p, int32_t block)
{
    ASSERT(p->n_refs[block] > 0);
    p->n_refs[block]++;
}

void kv_release(struct kv_pool *p, int32_t block)
{
    ASSERT(p->n_refs[block] > 0);
    if (--p->n_refs[block] == 0) {
        p->free[p->n_free++] = block;
    }
}

bool kv_is_shared(const struct kv_pool *p, int32_t block)
{
    return p->n_refs[block] > 1;
}

void kv_copy(const struct kv_pool *p, int32_t from, int32_t to)
{
    for (size_t i = 0; i < p->n_layers; i++) {
        size_t bytes = kv_block_bytes(&p->layers[i]);
        char *data = p->layers[i].data;
        memcpy(data + (size_t)to * bytes, data + (size_t)from * bytes, bytes);
    }
}
