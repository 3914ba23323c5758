/* Who writes and reads each buffer of a program; what the passes and the memory plan go by. */
#ifndef WORKER_PROGRAM_USE_H
#define WORKER_PROGRAM_USE_H

#include "worker/program.h"

struct program_use {                /* of one buffer, op indices; -1: none */
    int32_t writer, last_reader, n_readers;
};

/* One entry per buffer, owned by the caller; NULL without memory. */
struct program_use *program_find_uses(const struct program *p);

/* The buffer an op writes; -1: none. */
int program_output(const struct op *op);

/* The matrices of an op, n of them one after the other; NULL: it has none. */
const struct matmul_weight *program_matrices(const struct op *op, int64_t *ret_n);

#endif
