/* A program's small parameters (norms, biases) in memory of its own. Read in place, each would keep
 * the pages around it mapped, 64 KB to 2 MB of matrices that stand packed elsewhere. */
#ifndef WORKER_PARAMS_H
#define WORKER_PARAMS_H

#include "shared/gguf.h"
#include "worker/program.h"

/* Copies what ops borrow from tensors of g of 256 KB at most to the program's arena. Errors:
 * ERR_MODEL_IO, ERR_MODEL_CHANGED where the file does not give them, -ENOMEM. */
MUST_CHECK int params_copy(struct program *p, const struct gguf *g, struct err *e);

#endif
