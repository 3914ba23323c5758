/* The engine's state, shared by its parts: engine.c (open, close), engine_seq.c (sequences),
 * engine_step.c (steps). */
#ifndef WORKER_ENGINE_STATE_H
#define WORKER_ENGINE_STATE_H

#include "worker/engine.h"
#include "worker/kv.h"
#include "worker/program.h"

struct engine_seq {
    bool is_used;
    int32_t slot;     /* index of this sequence, also of its recurrent states */
    int64_t n_tokens; /* whose KV stands */
    int64_t n_blocks;
    int32_t *blocks;  /* part of the engine's tables; max_blocks */
};

struct engine {
    struct gguf gguf;
    struct engine_options options;
    struct engine_info info;
    char *name; /* owned */
    struct program program;
    struct pool *pool;
    struct kv_pool kv;
    int64_t max_blocks;      /* of a sequence */
    int32_t *tables;         /* owned; n_seqs * max_blocks */
    struct engine_seq *seqs; /* owned; n_seqs */
    void *memory;            /* owned mapping: the program's buffers */
    size_t memory_bytes;
    void *scratch; /* owned mapping: of the op that runs */
    size_t scratch_bytes;
    float *states; /* owned mapping: recurrent states of all sequences */
    size_t states_bytes;
    /* of the running step; owned */
    int32_t *tokens, *positions, *out_rows;
    struct op_run *runs;
};

#endif
