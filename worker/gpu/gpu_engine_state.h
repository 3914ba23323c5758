/* The engine's state, between its parts: gpu_engine.c (made and unmade), gpu_engine_kv.c (memory of
 * the KV cache), gpu_engine_input.c (what the host gives to a step), gpu_engine_step.c (steps). */
#ifndef WORKER_GPU_GPU_ENGINE_STATE_H
#define WORKER_GPU_GPU_ENGINE_STATE_H

#include "worker/gpu/gpu_emit.h"
#include "worker/gpu/gpu_engine.h"
#include "worker/gpu/gpu_graph.h"
#include "worker/gpu/gpu_mirror.h"
#include "worker/gpu/gpu_part.h"
#include "worker/gpu/gpu_route.h"
#include "worker/gpu/gpu_top.h"

enum {
    GPU_ENGINE_KV_PIECES = 8, /* resized one at a time: so much more is held for that moment */
};

/* Memory of some layers' KV caches; layers on the CPU keep theirs in the pool's own. */
struct kv_piece {
    size_t first, end; /* layers */
    void *memory;      /* owned, on the device */
    int64_t n_blocks;  /* that it has room for */
};

struct gpu_engine {
    struct door *door; /* borrowed */
    struct program *p; /* borrowed */
    struct gpu_engine_options o;
    struct gpu_arena arena;
    void *memory; /* owned, on the device */
    struct kv_piece kv[GPU_ENGINE_KV_PIECES];
    struct gpu_weights weights;
    struct gpu_parts parts;
    char *buffers; /* on the device */
    char *host;    /* owned: the same buffers for the ops on the CPU; NULL: there are none */
    unsigned char *is_kv_here; /* owned; by KV layer: on the CPU */
    struct gpu_emit emit;
    unsigned char *is_unread; /* owned */
    int32_t *rope_of;         /* owned */
    const struct op_rope_table *ropes[GPU_EMIT_MAX_TABLES];
    int32_t n_ropes;
    char *inputs, *inputs_device; /* the host's is owned */
    int32_t *tables, *tables_device;
    float *part;
    size_t part_bytes;
    float *states; /* of every slot, on the device; NULL: the program has none */
    float *spare;  /* one slot: a step that is checked is computed twice */
    int32_t *heads;
    void *heads_scratch;
    float *logits; /* owned */
    struct gpu_top top;
    int32_t n_top; /* in the running step */
    struct gpu_route route;
    uint32_t n_fallen; /* of its latches, when the graphs were recorded */
    uint32_t suspects; /* ways of a step that gave no numbers; steps do without until one does */
    bool has_replayed; /* in the running step */
    int32_t n_used;    /* experts of a row, at most */
    struct gpu_graphs graphs;
    struct gpu_mirror mirror;
    bool is_result_there; /* the logits come from the device */
    uint64_t n_steps;
    int64_t decode_rows; /* of the steps that the parts' decode_ns are of */
};

static inline int64_t gpu_engine_blocks_of(int64_t n_tokens)
{
    return (n_tokens + KV_BLOCK - 1) / KV_BLOCK;
}

static inline int64_t gpu_engine_splits_of(int64_t n_positions)
{
    return (n_positions + ATTENTION_SPLIT - 1) / ATTENTION_SPLIT;
}

/* gpu_engine_kv.c: memory for n_blocks in all layers that are on the device. ERR_NO_VRAM. */
MUST_CHECK int gpu_engine_take_kv(struct gpu_engine *g, int64_t n_blocks, struct err *e);
void gpu_engine_free_kv(struct gpu_engine *g);
/* Adds it, as it is now. */
void gpu_engine_add_kv(const struct gpu_engine *g, struct gpu_arena *a);

/* gpu_engine_input.c: bytes of the inputs of the largest step. */
size_t gpu_engine_input_bytes(const struct program *p, const struct gpu_engine_options *o);
/* Brings over what the step needs, and says in g->emit where it stands. */
void gpu_engine_upload_inputs(struct gpu_engine *g, const struct op_step *s, int64_t n_out);

#endif
