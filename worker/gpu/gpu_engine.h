/* One model on the GPU: its weights and buffers in one allocation, its KV cache in a few more (so
 * that it can be made smaller and larger), and steps of its program as launches of kernels. The
 * same program as the CPU's, and the same steps (struct op_step); which kernels an op takes stands
 * in gpu_emit*.c. */
#ifndef WORKER_GPU_GPU_ENGINE_H
#define WORKER_GPU_GPU_ENGINE_H

#include "worker/engine.h"
#include "worker/gpu/door.h"
#include "worker/gpu/gpu_arena.h"
#include "worker/gpu/gpu_route.h"
#include "worker/kv.h"
#include "worker/program.h"

struct gpu_engine;

struct gpu_engine_options {
    int64_t max_rows, max_logits, n_seqs, n_ctx;
    int64_t n_blocks;    /* of the KV cache */
    int64_t n_snapshots; /* of recurrent states */
    bool is_safe;        /* no fast ways, every launch marked: slow, and last words are exact */
    struct pool *pool;   /* for packing */
    void (*progress)(void *arg, uint64_t done, uint64_t total); /* may be NULL */
    void *progress_arg;
};

/* Bytes of device memory that everything but the KV cache takes. The program is compiled, joined
 * and linked. -ENOMEM. */
MUST_CHECK int gpu_engine_plan(struct program *p, const struct gpu_engine_options *o,
                               struct gpu_arena *ret);
/* Allocates and uploads; places the program, its vectors and its KV layers on the device. Errors:
 * ERR_NO_MEMORY, -ENOMEM. */
MUST_CHECK int gpu_engine_create(struct door *d, struct program *p,
                                 const struct gpu_engine_options *o, struct gpu_engine **ret,
                                 struct err *e);
/* Makes the KV cache one of n_blocks; those numbered below it keep what they hold. Between steps.
 * Returns how many there is memory for now: what cannot be had when it grows, or cannot be copied
 * when it shrinks, stays as it was. */
int64_t gpu_engine_resize_kv(struct gpu_engine *g, int64_t n_blocks);
/* The pool's blocks lie on the device from now on; the copies that the pool's memory holds of those
 * numbered below n_kept follow the steps (gpu_mirror.h), where memory can be pinned. -ENOMEM. */
MUST_CHECK int gpu_engine_hold(struct gpu_engine *g, struct kv_pool *pool, int32_t n_kept);
/* Between steps: waits until no copy is on its way, after some MB. True: others still wait to set
 * out. */
bool gpu_engine_settle(struct gpu_engine *g);
void gpu_engine_destroy(struct gpu_engine **g);
/* What it holds on the device, by label. */
struct gpu_arena gpu_engine_memory(const struct gpu_engine *g);

/* Recorded steps are recorded again when they come again, and the first of them compared. Between
 * steps. */
void gpu_engine_forget(struct gpu_engine *g);

/* One step; see program_run. Returns the logits of its n_out rows, one after the other, valid until
 * the next step: with n_top > 0 of those rows only whose `travels` is set. With n_top the device
 * has picked out the largest of every row (engine_top), and counted what is no finite number. */
const float *gpu_engine_step(struct gpu_engine *g, const struct op_step *s, int64_t n_out,
                             int32_t n_top, const bool *travels);
struct engine_top gpu_engine_top(const struct gpu_engine *g, int64_t i);
bool gpu_engine_is_finite(const struct gpu_engine *g, int64_t i);
/* The step that was done last, which gave no numbers, once more, with none of the fast ways that it
 * took but `top`; the arguments are those of gpu_engine_step. NULL: it took none, or cannot be done
 * twice, as recurrent states have gone on: then steps to come do without those ways, until one
 * gives numbers, or none either. */
const float *gpu_engine_step_again(struct gpu_engine *g, const struct op_step *s, int64_t n_out,
                                   const bool *travels);
/* A step gave numbers: where one before it did not, and this one did without the ways that it took,
 * they are off from here on. */
void gpu_engine_blame(struct gpu_engine *g);
/* Steps to come do without some of the ways that the last one took. */
bool gpu_engine_suspects(const struct gpu_engine *g);
/* Which ways steps take, and which they took last (gpu_route_words). */
const struct gpu_route *gpu_engine_route(const struct gpu_engine *g);
/* n_top for a wish of so many; 0: none are picked out. */
int32_t gpu_engine_top_size(const struct gpu_engine *g, int32_t n_wanted);
/* Fetches what did not travel. */
const float *gpu_engine_logits(struct gpu_engine *g, int64_t i);
/* The recurrent states of all layers stand in slots: those of the n_seqs sequences (op_run.state),
 * then those of the n_snapshots. In order with the steps, as above. */
void gpu_engine_zero_state(struct gpu_engine *g, int64_t slot);
void gpu_engine_copy_state(struct gpu_engine *g, int64_t from, int64_t to);

#endif
