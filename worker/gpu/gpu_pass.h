/* Passes over a program of which the GPU runs some ops or all (op.place). Pure; at load. */
#ifndef WORKER_GPU_GPU_PASS_H
#define WORKER_GPU_GPU_PASS_H

#include "worker/program.h"

/* Whether there is a kernel for the op: 0, or ERR_NO_GPU. */
MUST_CHECK int gpu_pass_check(const struct program *p, const struct op *op, struct err *e);
/* Before program_compile: every op of the GPU must have a kernel for its types (ERR_NO_GPU, e names
 * op and layer); matrices say which form of activations their kernels take; experts read their rows
 * without a dispatch. */
MUST_CHECK int gpu_pass_begin(struct program *p, struct err *e);
/* After program_compile, before program_link: ops that one launch does are joined (op.n_joined), so
 * that the memory plan keeps what they write apart from what they read:
 *   a norm, glu or attention and the convert of its result;
 *   products of one input; with the glu of the last two of them, and that one's convert;
 *   the rotations of queries and keys, and kv_write. Attention then reads the queries where they
 *   were rotated. */
MUST_CHECK int gpu_pass_join(struct program *p);

#endif
