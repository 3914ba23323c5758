/* Which type each tensor of a model gets when it is quantized to a file type: a "mixture" keeps the
 * sensitive tensors (values, the way down, the output) in more bits. The names and mixtures are
 * those users know from llama.cpp, so that a Q4_K_M is a Q4_K_M. */
#ifndef WORKER_QUANTIZE_H
#define WORKER_QUANTIZE_H

#include "shared/type.h"

struct quantize_mix;

/* By name ("Q4_K_M", case-insensitive); NULL when there is no such file type. */
const struct quantize_mix *quantize_mix_by_name(const char *name);
/* All names, for messages: "F16 BF16 Q4_0 ...". */
const char *quantize_mix_names(void);
/* The number that general.file_type holds. */
uint32_t quantize_mix_file_type(const struct quantize_mix *m);

struct quantize_shape { /* of the model the tensor belongs to */
    uint64_t n_layers;
    uint64_t n_heads_per_kv; /* queries that share one key head */
    uint64_t n_experts;      /* 0: dense */
    bool is_tied;            /* there is no output.weight: token_embd serves for it */
};

/* The type for one tensor of these dimensions, now of type `from`. Returns `from` for what is never
 * quantized (norms, biases, routers, convolutions). */
enum type quantize_type(const struct quantize_mix *m, const struct quantize_shape *shape,
                        const char *name, uint32_t n_dims, const uint64_t *ne, enum type from);

#endif
