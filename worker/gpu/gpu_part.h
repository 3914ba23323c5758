/* The parts of a program of which some ops run on the CPU: runs of ops of one place, in order, and
 * the values that cross from one place to the other. A value has the same offset in the memory of
 * both places (program_place), and stands there as long as anybody reads it: it is copied once.
 * Pure; at load. */
#ifndef WORKER_GPU_GPU_PART_H
#define WORKER_GPU_GPU_PART_H

#include "worker/program.h"

struct gpu_part {
    size_t first, end; /* ops */
    enum op_place place;
    int32_t *in;  /* owned; of the GPU: buffers to be brought there before it begins */
    int32_t *out; /* owned; of the GPU: buffers that the CPU reads later */
    int32_t n_in, n_out;
    uint64_t decode_ns; /* of the GPU: what a step of few rows takes by experience */
};

struct gpu_parts {
    struct gpu_part *v; /* owned */
    int32_t n;
    int32_t n_gpu; /* of them on the GPU */
};

/* Of a program that is compiled and joined. -ENOMEM. */
MUST_CHECK int gpu_parts_find(struct gpu_parts *ret, const struct program *p);
void gpu_parts_finish(struct gpu_parts *s);
/* Bytes of a buffer in a step. */
size_t gpu_parts_bytes(const struct program *p, int32_t buf, int64_t n_rows, int64_t n_out);

#endif
