/* The engine's state, shared by its parts: engine.c (open, close), engine_seq.c (sequences),
 * engine_step.c (steps). */
#ifndef WORKER_ENGINE_STATE_H
#define WORKER_ENGINE_STATE_H

#include "worker/engine.h"
#include "worker/gpu/gpu_engine.h"
#include "worker/kv_store.h"
#include "worker/place.h"
#include "worker/profile.h"
#include "worker/program.h"
#include "worker/weights.h"

/* Of its blocks the full ones are published (worker/kv.h), unless a step of it failed. */
struct engine_seq {
    bool is_used;
    bool is_spoiled;  /* a step failed: nothing of it is to be found by others */
    int32_t slot;     /* index of this sequence, also of its recurrent states */
    int64_t n_tokens; /* whose KV stands */
    int64_t n_blocks;
    int32_t *blocks;  /* part of the engine's tables; max_blocks */
    int32_t decoded;  /* the block of its newest snapshot, if that was made in decoding; KV_NONE */
};

struct engine {
    struct gguf gguf;
    struct engine_options options;
    struct engine_info info;
    char *name; /* owned */
    struct program program;
    struct place place; /* of its layers, with a GPU */
    struct weights weights;
    const struct gguf_tensor *embedding; /* part of gguf */
    struct profile profile;
    uint64_t n_steps;
    _Atomic uint32_t *op_mark; /* borrowed; see engine_mark_ops */
    struct pool *pool;
    struct gpu_engine *gpu; /* owned; NULL: the CPU computes */
    struct kv_store kv_store;
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
    int64_t snapshot_floats; /* of one, all layers */
    float *snapshots;        /* part of the KV pool's memory */
    struct { /* of states on a device, set by its owner (engine_gpu.c); NULL: they are here */
        void (*zero)(struct gpu_engine *g, int64_t slot);
        void (*copy)(struct gpu_engine *g, int64_t from, int64_t to); /* slots, then snapshots */
    } device_states;
    /* of the running step; owned */
    int32_t *tokens, *positions, *out_rows;
    bool *travels; /* by output: its logits come from the device whole */
    struct op_run *runs;
};

/* The KV cache that is kept for this model and these options, if there is one: its sizes decide. */
void engine_find_kv(struct engine *en);
/* The pool, in that memory or in new. ERR_NO_MEMORY. */
MUST_CHECK int engine_open_kv(struct engine *en, struct err *e);
/* Whether the model, or a part of it, is for a GPU. */
static inline bool engine_is_for_gpu(const struct engine_options *o)
{
    return o->door != NULL || o->vram_bytes > 0;
}
/* Is any of the cache kept for whoever comes after this process? */
static inline bool engine_keeps_kv(const struct engine *en)
{
    return !en->options.door || en->info.n_kept_blocks > 0;
}
/* engine_gpu.c: builds the program for the GPU, or for both: layers placed, rewritten, linked, the
 * device's memory planned. ret_place is finished by the caller, also on failure. Errors: ERR_NO_GPU
 * where no layer has kernels, ERR_NO_VRAM where none fits. */
MUST_CHECK int engine_gpu_build(const struct gguf *g, const struct engine_options *o, int64_t n_ctx,
                                struct pool *pool, struct program *p, struct place *ret_place,
                                struct engine_info *i, struct err *e);
/* Loads it onto the GPU, when everything is sized. */
MUST_CHECK int engine_gpu_open(struct engine *en, struct err *e);

/* The pool uses so many blocks from now on (kv_limit), and sequences know where theirs are. */
int64_t engine_seq_limit(struct engine *en, int64_t n_blocks);
/* n tokens were computed: their ids are noted, full blocks published, states kept. */
void engine_seq_advance(struct engine *en, struct engine_seq *s, const int32_t *ids, int64_t n);

#endif
