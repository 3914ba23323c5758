/* The engine: one loaded model, its program of ops, its KV pool, and steps over batches of rows.
 *
 * A model is compiled at load into a program (worker/program.h): a flat list of ops over named
 * buffers, the same for prefill and decode. Nothing here or above knows architectures.
 *
 * Not thread-safe: the token loop owns it. Compute runs on the engine's thread pool. */
#ifndef WORKER_ENGINE_H
#define WORKER_ENGINE_H

#include "kernels/cpu/isa.h"
#include "shared/err.h"
#include "shared/gguf.h"
#include "worker/pace.h"
#include "worker/rates.h"
#include <stdatomic.h>

struct door;
struct engine;
struct stores;
struct engine_seq; /* one sequence: its block table, its recurrent state */

struct engine_options {
    int n_threads;          /* 0: automatic */
    enum isa isa;
    enum type kv_type;      /* TYPE_F32, TYPE_F16, TYPE_BF16, TYPE_Q8_0 */
    int64_t n_ctx;          /* 0: the model's, as far as memory allows */
    int64_t n_seqs;         /* sequences that may be computed together */
    int64_t max_rows;       /* rows of one step (chunk size) */
    int64_t max_logits;     /* rows of one step that may want logits */
    uint64_t kv_memory_bytes; /* of the KV cache; 0: kv_memory_share decides */
    double kv_memory_share;   /* of free memory */
    struct stores *stores; /* borrowed; NULL: nothing outlives the process */
    struct door *door;   /* the GPU (worker/gpu/door.h), borrowed, lives longer; NULL: the CPU */
    uint64_t vram_bytes; /* of its memory, that the model may take, KV cache included; without a
                          * door: of a GPU that engine_plan is to plan for */
    int64_t gpu_layers;  /* at most so many there, the output counted as one; below 0: what fits */
    bool is_gpu_halved;    /* half of what would be there, where layers can be parted at all */
    bool is_gpu_required;  /* the GPU is used even where the CPU is faster */
    struct rates rates;    /* of the GPU; the CPU's are measured when they are wanted */
    bool is_safe;          /* no fast ways on the GPU (gpu_route.def); every kernel is waited for */
    bool is_unfused;       /* on the GPU every op is a launch of its own */
    int64_t profile_every;  /* every so many steps one is timed op by op; 0: none */
    /* Called during load with bytes done of total; may be NULL. */
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
};

struct engine_info {
    const char *arch;     /* borrowed from the engine */
    const char *name;     /* general.name or "" */
    char quant[32];       /* file type in words: "Q4_K - Medium" */
    int64_t n_vocab, n_ctx, n_ctx_train, n_embd, n_layer;
    uint64_t n_params, weight_bytes, kv_bytes, scratch_bytes;
    int64_t n_blocks;     /* KV blocks of ENGINE_BLOCK_TOKENS in the pool */
    int64_t n_device_blocks; /* of them, those with device memory at first; on the CPU all */
    int64_t n_kept_blocks;   /* on a device: those below are copied to host memory */
    int64_t n_snapshots;  /* of recurrent states, for the prefix cache; 0: the model has none */
    char device[64];      /* "cpu avx512, 2 threads" */
    char profile[64];     /* equal profiles compute equal bits: "cpu avx512, kv f16" */
    struct pace_work work;   /* of its steps */
    uint8_t fingerprint[32]; /* of metadata and tensor table: keys caches */
    char memory[96];         /* what kind of memory it got, for the log */
    char place[96];          /* "12 of 28 layers on the GPU"; "": all of it is where device says */
    uint64_t vram_bytes, vram_kv_bytes; /* of the device: all, and of that the KV cache; 0: none */
    char warn[160];          /* a sentence for the log, such as tensors that nothing uses; or "" */
};

enum { ENGINE_BLOCK_TOKENS = 16 };

/* Opens and checks the file, builds the program, allocates everything that steps will need. */
MUST_CHECK int engine_open(const char *path, const struct engine_options *o, struct engine **ret,
                           struct err *e);
void engine_close(struct engine **en);
const struct engine_info *engine_info(const struct engine *en);
/* Steps on the CPU tell here which op runs (from 1), so that a long step shows that it gets on. The
 * mark is borrowed until another takes its place; NULL: none. False: this engine's ops run
 * elsewhere. */
bool engine_mark_ops(struct engine *en, _Atomic uint32_t *mark);
/* How fast its device may be at a first look: on the CPU measured, in less than a millisecond, by
 * the thread that steps; on the GPU as published of its kind. */
struct pace_rates engine_glance(struct engine *en);
const struct gguf *engine_gguf(const struct engine *en);

/* Of a model that is not open: what is kept of it is not to be dropped as left over. */
void engine_claim_stores(const struct engine_options *o, const uint8_t fingerprint[32]);
/* What is kept of it is given up: weights, and the KV cache unless keeps_cache. */
void engine_drop_stores(const struct engine_options *o, const uint8_t fingerprint[32],
                        bool keeps_cache);

/* What the sampled steps took, op by op, since the load (worker/profile.h); NULL without
 * profile_every. */
struct profile;
struct profile *engine_profile(struct engine *en);
/* Appends it as JSON, null without profile_every. */
struct buf;
void engine_put_profile(struct engine *en, struct buf *b);

/* What a model would take, without loading tensors (inspect). */
MUST_CHECK int engine_estimate(const struct gguf *g, const struct engine_options *o,
                               struct engine_info *ret, struct err *e);

/* The same, with the placement of its layers (worker/place.h), which the caller finishes; empty
 * without a GPU. */
struct place;
MUST_CHECK int engine_plan(const struct gguf *g, const struct engine_options *o,
                           struct engine_info *ret, struct place *ret_place, struct err *e);
/* Appends the placement of a loaded model as JSON (worker/plan.h); null without a GPU. */
void engine_put_placement(const struct engine *en, struct buf *b);

/* Sequences. A sequence holds blocks only for the tokens it has; fork shares all full blocks (copy
 * on write for the last) and copies recurrent state. -ENOSPC: no sequence slot is free. */
MUST_CHECK int engine_seq_create(struct engine *en, struct engine_seq **ret);
MUST_CHECK int engine_seq_fork(struct engine *en, const struct engine_seq *from,
                               struct engine_seq **ret);
void engine_seq_destroy(struct engine *en, struct engine_seq **s);
int64_t engine_seq_length(const struct engine_seq *s); /* tokens whose KV stands */

/* The prefix cache: what was computed stays findable by its tokens until its memory is wanted. How
 * many of these tokens need no computing; ret_held: blocks of them that sequences hold already. */
int64_t engine_cached(struct engine *en, const int32_t *ids, int64_t n, int64_t *ret_held);
/* A fresh sequence takes over the longest cached prefix of these tokens (give all but those whose
 * logits are wanted). Returns its length. The same bits as if they had been computed. */
int64_t engine_seq_reuse(struct engine *en, struct engine_seq *s, const int32_t *ids, int64_t n);

/* Blocks are taken ahead of a step, so a step cannot fail for want of memory. Makes room for n more
 * tokens; -ENOSPC leaves everything as it was. */
MUST_CHECK int engine_seq_reserve(struct engine *en, struct engine_seq *s, int64_t n);
struct engine_cache { /* blocks of the KV cache */
    int64_t n_blocks, n_used, n_cached; /* held by sequences; findable and held by nobody */
    uint64_t n_evicted;                 /* cached ones whose memory was wanted, since the start */
    uint64_t n_restored, n_broken; /* that an earlier worker left; of those, not as it left them */
};
struct engine_cache engine_cache(const struct engine *en);

/* Device memory that the model holds, and of that a block of the KV cache; 0 on the CPU. */
uint64_t engine_vram_bytes(const struct engine *en);
uint64_t engine_vram_block_bytes(const struct engine *en);
/* The KV cache on the device takes memory for n_blocks from now on, as near as can be: cached
 * blocks are given up, those of sequences stay, and info's n_blocks are the most. Between steps;
 * the device copies what stays. Returns how many it has then; on the CPU nothing changes. */
int64_t engine_resize_kv(struct engine *en, int64_t n_blocks);

/* Nothing is to be computed just now: a piece of what is to go from a device to memory that
 * outlives the process is waited for, which takes some tens of milliseconds. True: more is
 * left. */
bool engine_settle(struct engine *en);

int64_t engine_free_blocks(const struct engine *en); /* those that only the cache holds included */

/* One row of a step: a token to append to a sequence. Rows of one sequence stand together, in
 * order. Room for them was reserved. */
struct engine_row {
    struct engine_seq *seq;
    int32_t token;
    bool want_logits; /* at most max_logits rows of a step */
    int32_t n_top;    /* > 0: so many of the largest (ENGINE_TOP at most) may do */
};
enum { ENGINE_TOP = 64 };

/* Computes n rows (1..max_rows), appends them to their sequences, and writes for each row with
 * want_logits, in order, a pointer to n_vocab floats, valid until the next step, or NULL (see
 * engine_top). Results of a row depend on its sequence's tokens only (design: invariance).
 * Errors: ERR_NUMERIC (logits not finite; e says which row), ERR_BAD_TOKEN. */
MUST_CHECK int engine_step(struct engine *en, const struct engine_row *rows, int64_t n,
                           const float **ret_logits, struct err *e);

/* After ERR_NUMERIC: the texts of that step, computed again from their beginnings, do without the
 * fast ways that it took. Once: of that step's failure, not of the next one's. */
bool engine_can_retry(const struct engine *en);

/* How the last step was computed: "cpu", or the fast ways that the model's part on the GPU took
 * (gpu_route.h): "plain", "replay, inner, top". Lives as long as the process. */
const char *engine_way(const struct engine *en);
/* Fast ways that failed and are off until the model is unloaded. */
uint32_t engine_n_ways_off(const struct engine *en);
/* All of them as JSON: which may be taken, else why not; [] on the CPU. */
void engine_put_ways(const struct engine *en, struct buf *b);

/* Logits that a row with n_top left on a device, for which engine_step wrote NULL; i: its place
 * among the rows with want_logits. Until the next step. engine_top: the n_top largest of them or
 * more, or all there are, in order, lower ids first among equals. engine_logits fetches all. */
struct engine_top {
    const float *values;
    const int32_t *ids;
    int64_t n;
};
struct engine_top engine_top(const struct engine *en, int64_t i);
const float *engine_logits(struct engine *en, int64_t i);

#endif
