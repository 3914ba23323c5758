/* Copies of the KV cache in host memory, for whoever comes after this process: each full block
 * follows the step that completed it, while the next step is computed, through pinned memory into
 * the pool's own (worker/kv.h). What an earlier process left there goes the other way when it is
 * found.
 *
 * Copies are submitted to the stream of the steps: behind the step that wrote a block, and before
 * whatever may write there again. Part of the engine (gpu_engine.h); the token loop's thread. */
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
    int32_t n_slots, n_loading;   /* slots whose content is on its way to the device */
    int32_t *queue;               /* owned; a ring of pool->n_blocks: those that wait */
    int64_t first, n_queued;      /* of it */
    unsigned char *is_queued;     /* owned; by block */
    int32_t *batch;               /* owned; those on their way from the device, in order of slots */
    int32_t n_batch;
    struct door_point *sent; /* owned; behind them */
};

/* max_rows: of a step. False without memory. */
MUST_CHECK bool gpu_mirror_open(struct gpu_mirror *m, struct door *d, struct kv_pool *p,
                                const unsigned char *is_here, int64_t max_rows);
/* What waits is given up. */
void gpu_mirror_close(struct gpu_mirror *m);

/* kv_device's */
void gpu_mirror_save(struct gpu_mirror *m, int32_t block);
void gpu_mirror_load(struct gpu_mirror *m, int32_t block);

/* After a step: the next blocks set out, so many as it may have completed and some of those that
 * wait. */
void gpu_mirror_send(struct gpu_mirror *m, int64_t n_rows);
/* Takes those that have come. is_waited: the stream is empty. */
void gpu_mirror_take(struct gpu_mirror *m, bool is_waited);
/* Waits until none is on its way. True: others still wait to set out. */
bool gpu_mirror_settle(struct gpu_mirror *m);

#endif
