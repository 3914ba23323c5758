/* The KV block pool and its prefix cache: blocks of KV_BLOCK tokens, taken and given back one by
 * one, shared by reference count. All memory is allocated once. One owner (the engine); no thread
 * but the token loop's.
 *
 * The pool is its own host tier. What a server with a GPU swaps out to host memory is here already:
 * the blocks of a sequence that is preempted stay published and idle, going on is a search that
 * finds them, and only blocks whose memory somebody wanted meanwhile are computed again. There is
 * nothing to copy them to that would be nearer than where they are. Where blocks lie on a device,
 * the pool's memory holds copies of the published ones, each at its own place (struct kv_device).
 *
 * Content outlives the process: beside each block stands a record of it (kv_record.h), and a pool
 * that is begun in memory which another process left goes on with what is whole there.
 *
 * A block whose content stands may be published: from then on it is findable as "these tokens
 * behind that block", and it is never written again. Blocks so form a tree whose root is the empty
 * text; a hash over the whole chain finds a child, its parent and its tokens are compared. Full
 * blocks of the same text are one block: publishing a second gives the first back. A findable block
 * without references is idle: it keeps its content until its memory is wanted, least recently used
 * first.
 *
 * Recurrent layers: states are kept beside a bounded number of published blocks, as snapshots of
 * what they were behind the block's last token. */
#ifndef WORKER_KV_H
#define WORKER_KV_H

#include "kernels/kv.h"
#include "shared/err.h"

enum { KV_NONE = -1 };

/* Invariants: n_refs > 0: in use; n_refs == 0 and n_ids > 0: idle, in the list of those; both 0:
 * on the free stack. Whoever holds a published block holds its parent. */
struct kv_block {
    int32_t n_refs;
    int32_t n_ids; /* > 0: published with so many tokens; fewer than KV_BLOCK: for copying only */
    int32_t parent, next_in_bucket;
    int32_t n_children, child, next_sibling, prev_sibling; /* newest first */
    int32_t prev_idle, next_idle;
    int32_t snapshot; /* KV_NONE: none */
    int32_t depth;    /* blocks from the root, this one included */
    bool is_unchecked; /* another process's: compared with its sum when it is found */
    bool is_saving;    /* its content is on its way from the device */
    uint64_t hash;    /* of the chain */
};

struct kv_snapshot {
    int32_t block; /* KV_NONE: free */
    bool is_unchecked;
    uint64_t used_at;
};

struct kv_stats { /* since the start */
    uint64_t n_published, n_merged, n_evicted, n_copied;
    uint64_t n_restored; /* blocks that another process had left */
    uint64_t n_broken;   /* of such, those that were not what they should be; and snapshots */
};

/* What a device that holds the blocks does for the pool. */
struct kv_device {
    void (*copy)(void *arg, int32_t from, int32_t to); /* a block in all layers, on the device */
    /* The content of a block that was published is wanted at its place in the pool's memory (host):
     * kv_save, unless it is_saving no longer. */
    void (*save)(void *arg, int32_t block);
    /* What stands there was found whole and goes to the device, before what is computed next. */
    void (*load)(void *arg, int32_t block);
    void *arg; /* borrowed */
    int32_t n_kept; /* only blocks numbered below it are saved; 0: none */
};

struct kv_pool {
    int64_t n_blocks, n_free, n_idle;
    int64_t limit;             /* blocks numbered from here on are given back: see kv_limit */
    int32_t *moved;            /* owned; what the last kv_limit did: the new number of each block */
    int32_t *free;             /* owned; a stack */
    struct kv_block *blocks;   /* owned; block n_blocks is the root, and the idle list's two ends */
    int32_t *ids;              /* part of memory; n_blocks x KV_BLOCK: the tokens of each */
    struct kv_record *records; /* part of memory; of each block */
    struct kv_snapshot_record *snapshot_records; /* part of memory */
    char *snapshot_data;       /* part of memory; n_snapshots x snapshot_bytes */
    size_t snapshot_bytes;
    int32_t *buckets;          /* owned; by hash */
    size_t n_buckets;          /* a power of two */
    uint64_t seed;             /* the root's hash: model and form of the cache */
    struct kv_snapshot *snapshots; /* owned */
    int32_t n_snapshots;
    uint64_t tick;             /* of use */
    struct kv_stats stats;
    char *memory;              /* a mapping: kv_record.h says what is where */
    bool owns_memory;
    size_t bytes;
    struct { /* see kv_use_huge_pages; pages are counted from the first that memory touches */
        void (*collapse)(char *at);
        bool *is_wanted; /* owned; NULL: none are */
        size_t *queue;   /* owned; the pages that are wanted, in that order */
        size_t n_wanted, n_made;
    } huge;
    const struct kv_layer *layers; /* borrowed; data set here */
    size_t n_layers;
    char **host; /* owned; by layer: its blocks in memory; data, unless that is a device's */
    struct kv_device device; /* set by the owner; copy NULL: there is none */
};

/* Bytes that one block takes in all layers. */
size_t kv_bytes_per_block(const struct kv_layer *layers, size_t n_layers);

/* From now on the memory of blocks is made huge pages, as far as the system can: attention reads a
 * few KB here and there, and finding a page costs as much as that. A page takes milliseconds to
 * make and all layers want theirs at the same token, so block 0's are made at once, others one
 * after the other (kv_make_huge): they are wanted from when a block KV_HUGE_AHEAD before theirs is
 * taken, used as they are when they are not made in time, and not touched earlier than that.
 * collapse makes the MEMORY_HUGE_BYTES at `at` one page, whatever stands there. */
enum { KV_HUGE_AHEAD = 16 };
void kv_use_huge_pages(struct kv_pool *p, void (*collapse)(char *at));
/* Makes n of the pages that are wanted, if so many are. Nobody may use the pool meanwhile. */
void kv_make_huge(struct kv_pool *p, int64_t n);

/* Maps memory for n_blocks of every layer and sets the layers' data. The memory is only taken when
 * written. -ENOMEM. */
MUST_CHECK int kv_pool_init(struct kv_pool *p, struct kv_layer *layers, size_t n_layers,
                            int64_t n_blocks, int32_t n_snapshots, uint64_t seed);
/* The same in the caller's memory: kv_pool_bytes of it, zeroed or as an earlier pool of the same
 * shape and seed left it, however that ended; whatever else stands there is no harm. */
struct kv_shape {
    int64_t n_blocks;
    int32_t n_snapshots;
    size_t snapshot_bytes;
    uint64_t seed;
};
MUST_CHECK int kv_pool_init_at(struct kv_pool *p, struct kv_layer *layers, size_t n_layers,
                               const struct kv_shape *shape, void *memory);
/* 0: more than there can be. */
size_t kv_pool_bytes(const struct kv_layer *layers, size_t n_layers, const struct kv_shape *shape);
void kv_pool_finish(struct kv_pool *p);

/* From now on only blocks numbered below n are used, at most n_blocks and no fewer than are held by
 * sequences. Lowered: cached blocks are forgotten, least recently used first, as many as must be,
 * and those that stay move below the limit with all that is known of them: whoever holds block b
 * holds moved[b] from now on. Returns the limit. */
int64_t kv_limit(struct kv_pool *p, int64_t n);

/* Blocks that can be taken. */
int64_t kv_available(const struct kv_pool *p);
/* A block with one reference, the least recently used idle one where none is free; or -ENOSPC. */
MUST_CHECK int32_t kv_take(struct kv_pool *p);
void kv_ref(struct kv_pool *p, int32_t block);
/* Blocks of a sequence are released from its last to its first, so that children are older in the
 * idle list than their parents. */
void kv_release(struct kv_pool *p, int32_t block);
/* Is somebody else's, or findable: not to be written. */
bool kv_is_shared(const struct kv_pool *p, int32_t block);
/* Copies a block's content in all layers, and its tokens. */
void kv_copy(struct kv_pool *p, int32_t from, int32_t to);

int32_t kv_root(const struct kv_pool *p);
/* The full block with these KV_BLOCK tokens behind parent; or KV_NONE. One that another process
 * left is looked through first, and forgotten, with all behind it, when it is not what it was. */
int32_t kv_find(struct kv_pool *p, int32_t parent, const int32_t *ids);
/* The block behind parent that begins with most of these tokens (*ret_n of n, at least one); or
 * KV_NONE. Looks at the newest children only. */
int32_t kv_find_part(struct kv_pool *p, int32_t parent, const int32_t *ids, int64_t n,
                     int32_t *ret_n);
/* Publishes the caller's block with its first n_ids tokens (p->ids). Returns the block that the
 * caller holds from now on: the same, or for a full one that of the same text. */
int32_t kv_publish(struct kv_pool *p, int32_t parent, int32_t block, int32_t n_ids);
/* What of a block that is_saving stood on the device goes to its place in the pool's memory, layer
 * by layer from the first on; with the last one the block counts. from: kv_block_bytes of the
 * layer; NULL: the layer lies in the pool's memory anyway. */
void kv_save(struct kv_pool *p, int32_t block, size_t layer, const void *from);

/* The place for a snapshot behind a published block, its own or else the least recently used; its
 * old content is void. There must be any (n_snapshots > 0). Then kv_snapshot_commit. */
int32_t kv_snapshot_take(struct kv_pool *p, int32_t block);
void kv_snapshot_commit(struct kv_pool *p, int32_t snapshot);
/* The block's, or KV_NONE. Counts as use with touch. Another process's is checked as blocks are. */
int32_t kv_snapshot_of(struct kv_pool *p, int32_t block, bool touch);
void kv_snapshot_drop(struct kv_pool *p, int32_t block);

#endif
