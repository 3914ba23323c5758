/* What the parts of the program builder (model*.c) share, beside worker/model.h. */
#ifndef WORKER_MODEL_TENSOR_H
#define WORKER_MODEL_TENSOR_H

#include "worker/model.h"

/* The key "<arch>.<key>", NULL when absent. */
const struct gguf_kv *model_find(struct model *m, const char *key);
/* NULL without error when absent; counts as used. */
const struct gguf_tensor *model_tensor_maybe(struct model *m, const char *name);
/* Must be there and hold weights; NULL on error. */
const struct gguf_tensor *model_tensor(struct model *m, const char *name);
/* n_mat matrices [n_cols, n_rows] of one tensor, to be prepared with the program; NULL on error. */
struct matmul_weight *model_matrix(struct model *m, const char *name, int64_t n_cols,
                                   int64_t n_rows, int64_t n_mat);
struct op_rows model_new_rows(struct model *m, const char *name, int64_t n, int64_t mult,
                              bool is_out);

#endif
