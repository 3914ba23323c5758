/* The largest logits of each row of a step, picked out on the device, so that a vocabulary's worth
 * of floats need not travel for every token. Part of the engine (gpu_engine.h). */
#ifndef WORKER_GPU_GPU_TOP_H
#define WORKER_GPU_GPU_TOP_H

#include "kernels/ops.h"
#include "worker/engine.h"
#include "worker/gpu/door.h"
#include "worker/gpu/gpu_arena.h"

struct gpu_top {
    int64_t n_rows, n_vocab; /* at most; of a row */
    float *part_values;      /* on the device, as what follows; see struct top_args */
    int32_t *part_ids, *part_bad;
    char *results;     /* values, ids, bad */
    char *host;        /* owned, pinned: the same */
    int32_t k;         /* of the last step */
    int64_t last_rows; /* likewise */
};

/* Takes its memory for rows of so many logits; of a vocabulary that is too large none. */
void gpu_top_take(struct gpu_top *t, struct gpu_arena *a, int64_t n_rows, int64_t n_vocab);
/* False without memory. */
MUST_CHECK bool gpu_top_take_host(struct gpu_top *t, struct door *d);
void gpu_top_finish(struct gpu_top *t, struct door *d);

/* How many are picked out for a wish of n, so that few graphs serve all; 0: the vocabulary is too
 * large for it. */
int32_t gpu_top_round(const struct gpu_top *t, int32_t n);
/* Launches: the k largest of each row. Then what they found comes over. */
void gpu_top_emit(struct gpu_top *t, struct door *d, const struct op_rows *logits, int64_t n_rows,
                  int32_t k);
void gpu_top_download(struct gpu_top *t, struct door *d, int64_t n_rows, int32_t k);

struct engine_top gpu_top_of(const struct gpu_top *t, int64_t row);
bool gpu_top_is_finite(const struct gpu_top *t, int64_t row);
/* What was picked out of these logits, all of the last step, is written anew by the host. Was it
 * the same? Rows that are not finite are left alone. */
bool gpu_top_redo(struct gpu_top *t, const float *logits);

#endif
