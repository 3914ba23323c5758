/* Device memory of one model: one allocation, cut into labelled pieces. It is planned first: an
 * arena without base hands out the same pieces, so that what a model takes is known, and refused,
 * before anything is allocated. Pure. */
#ifndef WORKER_GPU_GPU_ARENA_H
#define WORKER_GPU_GPU_ARENA_H

#include "shared/base.h"

enum gpu_label {
    GPU_LABEL_WEIGHTS,
    GPU_LABEL_VECTORS, /* norms, biases */
    GPU_LABEL_KV,
    GPU_LABEL_STATES,
    GPU_LABEL_BUFFERS, /* of the program */
    GPU_LABEL_SCRATCH,
    GPU_LABEL_INPUTS,
    GPU_LABEL_COUNT
};

struct gpu_arena {
    char *base; /* borrowed; NULL: planning */
    size_t used;
    size_t of_label[GPU_LABEL_COUNT];
};

/* Aligned to 256 bytes. When planning the address means nothing. */
void *gpu_arena_take(struct gpu_arena *a, enum gpu_label label, size_t bytes);
const char *gpu_arena_label(enum gpu_label label);

#endif
