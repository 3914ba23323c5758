/* Parameters on the device: matrices packed for the kernels (kernels/hip/pack.h), vectors as they
 * are. The host's address is a parameter's identity: what two ops share is uploaded once. */
#ifndef WORKER_GPU_GPU_WEIGHT_H
#define WORKER_GPU_GPU_WEIGHT_H

#include "kernels/cpu/pool.h"
#include "worker/gpu/door.h"
#include "worker/gpu/gpu_arena.h"
#include "worker/program.h"

struct gpu_matrix {
    const struct matmul_weight *w; /* borrowed; n of them */
    int64_t n;
    struct args_weight device;
};
struct gpu_vector {
    const float *host; /* borrowed */
    float *device;
    int64_t n;
};

struct gpu_weights {
    struct gpu_matrix *matrices; /* owned; distinct ones */
    size_t n_matrices;
    struct gpu_vector *vectors; /* owned */
    size_t n_vectors;
    int32_t *matrix_of_op; /* owned; by index of the op, -1: none */
};

/* Finds the parameters of the GPU's ops and takes room for them. Run twice: planning, and in
 * earnest. -ENOMEM. */
MUST_CHECK int gpu_weights_plan(struct gpu_weights *w, const struct program *p,
                                struct gpu_arena *a);
void gpu_weights_finish(struct gpu_weights *w);
/* Packs and uploads; in the program, vectors become the device's. May take long; progress may be
 * NULL. -ENOMEM, ERR_MODEL_IO, ERR_MODEL_CHANGED. */
MUST_CHECK int gpu_weights_upload(struct gpu_weights *w, struct program *p, struct door *d,
                                  struct pool *pool,
                                  void (*progress)(void *arg, uint64_t done, uint64_t total),
                                  void *progress_arg, struct err *e);

static inline const struct args_weight *gpu_weights_of(const struct gpu_weights *w,
                                                       const struct program *p, const struct op *op)
{
    return &w->matrices[w->matrix_of_op[op - p->ops]].device;
}

#endif
