/* The memory of a KV pool as a store: a header, then what kv_record.h describes.
 *
 * Ordinary pages: huge ones made decoding at 4,000 tokens of context 2 % faster (0.5B shapes), and
 * would take 2 MiB of each layer for the first token. */
#ifndef WORKER_KV_STORE_H
#define WORKER_KV_STORE_H

#include "worker/kv.h"
#include "worker/stores.h"

struct kv_size { /* what was decided when the pool was made: another day's free memory changes
                    nothing */
    int64_t n_blocks, n_snapshots, n_ctx;
    int64_t n_kept; /* of blocks on a device, those numbered below it may be copied here */
    uint64_t seed;  /* of the pool: what stands there is of use with the same only */
};

struct kv_store {
    char *map; /* owned; NULL: none */
    size_t bytes;
    bool was_kept;
    struct kv_size size;
    struct stores *stores; /* borrowed; NULL: it is not kept */
    uint8_t key[STORE_KEY_BYTES];
};

/* The store that is kept under this key, if its header is whole and no later epoch had it; one that
 * is not is dropped. -ENOENT. */
MUST_CHECK int kv_store_find(struct kv_store *ret, struct stores *stores,
                             const uint8_t key[STORE_KEY_BYTES]);
/* A new one. -errno. */
MUST_CHECK int kv_store_make(struct kv_store *ret, struct stores *stores,
                             const uint8_t key[STORE_KEY_BYTES], const struct kv_size *size,
                             size_t pool_bytes);
/* Where the pool's pool_bytes stand; NULL: the store is of another size. */
void *kv_store_pool(const struct kv_store *s, size_t pool_bytes);
/* Unmaps it; it is still kept. */
void kv_store_close(struct kv_store *s);

#endif
