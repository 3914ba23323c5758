/* What of a KV pool outlives its process: for kv.c, kv_tree.c and tests (everybody else:
 * worker/kv.h).
 *
 * The memory of a pool:
 *   records           one of each block
 *   ids               the tokens of each block
 *   snapshot records  one of each snapshot
 *   data              the layers' arrays of blocks (kernels/kv.h), from a multiple of KV_DATA_ALIGN
 * on snapshot data One process writes it. A record counts when its commit word is the digest of the
 * rest and of the block's place and tokens. Publishing writes content, tokens, record, and the
 * commit word last; before a block's memory is taken for something else, the word is made 0. So a
 * process that is killed between any two instructions leaves each block whole or not at all. One
 * that wrote wildly before it died leaves records whose word or content does not fit, and those do
 * not count.
 *
 * The content of a block is compared with its sum not at the start, but when it is first found: a
 * big cache would keep a server waiting, and most of it may never be asked for. */
#ifndef WORKER_KV_RECORD_H
#define WORKER_KV_RECORD_H

#include "worker/kv.h"
#include <stdatomic.h>

enum { KV_DATA_ALIGN = 4096, KV_RECORD_LAYOUT = 1 };

struct kv_record {
    _Atomic uint64_t commit; /* 0: nothing stands */
    uint64_t hash;           /* of the chain */
    int32_t parent;
    int32_t depth;
    uint32_t
        sum; /* CRC-32C of the content, layer by layer; before commit: of those that have come */
    uint32_t reserved;
    uint64_t used; /* when it was last used, in ticks; only a hint, and not part of the digest */
};

struct kv_snapshot_record {
    _Atomic uint64_t commit;
    uint64_t hash; /* of the chain up to the block */
    int32_t block;
    uint32_t sum; /* of the states */
};

struct kv_places { /* offsets */
    size_t records, ids, snapshot_records, data, snapshot_data, bytes;
};
/* False: more than there can be. */
bool kv_record_places(const struct kv_layer *layers, size_t n_layers, const struct kv_shape *shape,
                      struct kv_places *ret);

/* A full block that was inserted; its content is not written again. One on a device counts when its
 * content has come from there (kv_save). */
void kv_record_commit(struct kv_pool *p, int32_t block);
void kv_record_void(struct kv_pool *p, int32_t block);
void kv_record_use(struct kv_pool *p, int32_t block);
/* Content and tokens of a block, which is about to change its number (kv_tree_move), stand at the
 * new one as well. */
void kv_record_move(struct kv_pool *p, int32_t from, int32_t to);
/* Is the content of an unchecked block the one that was committed? Then it counts as checked, and
 * goes to the device, where there is one. */
bool kv_record_check(struct kv_pool *p, int32_t block);

void kv_record_commit_snapshot(struct kv_pool *p, int32_t snapshot);
/* The snapshot's block has another number. */
void kv_record_move_snapshot(struct kv_pool *p, int32_t snapshot);
void kv_record_void_snapshot(struct kv_pool *p, int32_t snapshot);
bool kv_record_check_snapshot(struct kv_pool *p, int32_t snapshot);

/* Builds tree and idle list of an empty pool from the records that count; all else is voided.
 * -ENOMEM. */
MUST_CHECK int kv_record_restore(struct kv_pool *p);

#endif
