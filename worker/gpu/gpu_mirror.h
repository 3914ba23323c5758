/* Copies of the KV cache in host memory, for whoever comes after this process: full blocks follow
 * the step that completed them, through pinned memory into the pool's own (worker/kv.h). What an
 * earlier process left there goes the other way when it is found.
 *
 * They cost a step next to nothing, however much there is to copy. From the device they come beside
 * the steps (door_fetch), as nothing writes to a published block; what writes to one that was given
 * up makes its copy worthless, and it is dropped. The processor's part (copying, the checksum) is
 * done in slices of a layer of a block while the device computes, until it is done. Beyond that a
 * step copies no more than so many bytes as its rows added to the cache, so that what waits does
 * not grow for ever; and where the device was never seen computing (it waits for the processor
 * anyway) 256 KiB besides.
 *
 * Part of the engine (gpu_engine.h); the token loop's thread. */
#ifndef WORKER_GPU_GPU_MIRROR_H
#define WORKER_GPU_GPU_MIRROR_H

#include "worker/gpu/door.h"
#include "worker/kv.h"

struct gpu_mirror {
    struct door *door;            /* borrowed */
    struct kv_pool *pool;         /* borrowed; NULL: nothing is kept */
    const unsigned char *is_here; /* borrowed; by layer: its blocks are on the host anyway */
    size_t block_bytes;           /* of the layers on the device */
    char *staging;                /* owned, pinned: n_slots blocks, in one direction at a time */
    int32_t n_slots;              /* 0: no memory could be pinned: nothing is saved */
    int32_t n_loading;            /* slots whose content is on its way to the device */
    int32_t *queue;               /* owned; a ring of pool->n_blocks: those that wait */
    int64_t first, n_queued;      /* of it */
    unsigned char *is_queued;     /* owned; by block */
    int32_t *batch;               /* owned; those on their way from the device, in order of slots */
    int32_t n_batch;
    bool has_come;           /* the batch */
    struct door_point *sent; /* owned; behind it */
    int32_t slot;            /* of the batch, what is taken next */
    size_t layer;
    /* in the running step */
    size_t taken_bytes;
    bool is_computing; /* the device was seen so */
};

/* False without memory; without pinned memory it is open, saves nothing, and can load. */
MUST_CHECK bool gpu_mirror_open(struct gpu_mirror *m, struct door *d, struct kv_pool *p,
                                const unsigned char *is_here);
/* What waits is given up. */
void gpu_mirror_close(struct gpu_mirror *m);

/* kv_device's. What a step or a copy wrote to the block was waited for before it is saved. */
void gpu_mirror_save(struct gpu_mirror *m, int32_t block);
void gpu_mirror_load(struct gpu_mirror *m, int32_t block);

/* While the device computes, of which it may take so long (0: nobody knows): sends and takes, until
 * it is done, or nothing is left. */
void gpu_mirror_meanwhile(struct gpu_mirror *m, uint64_t expected_ns);
/* A step of so many rows is done, and waited for. */
void gpu_mirror_step(struct gpu_mirror *m, int64_t n_rows);
/* Nothing computes: a batch is copied, and waited for; after it none is on its way. True: others
 * still wait to set out. */
bool gpu_mirror_settle(struct gpu_mirror *m);

#endif
