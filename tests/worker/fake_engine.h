/* An engine for tests, in place of worker/engine.c and engine_step.c at link time: the sequences
 * and the KV cache are the real ones, what stands in them is the tokens, and logits are a pure
 * function of the tokens that are read back through the block table. So a result depends on
 * scheduling only if a wrong token was fed or a wrong block was shared. Every promise of engine.h
 * that a caller makes is checked.
 *
 * What it says: after the token FAKE_COPY it repeats what stood before it (behind the last BOS),
 * then FAKE_END. Elsewhere, or when the copy is not told, every token is a hash of what came
 * before. */
#ifndef TESTS_WORKER_FAKE_ENGINE_H
#define TESTS_WORKER_FAKE_ENGINE_H

#include "worker/models.h"

/* A set of n served models with fake engines and the fake tokenizer. */
void fake_models_init(struct models *m, size_t n, int64_t n_seqs, int64_t chunk_rows,
                      int64_t n_blocks, int64_t n_ctx);
void fake_models_finish(struct models *m); /* checks that no sequence and no block is left */
/* Of models made from now on: they have a recurrent layer, whose states are checked in every step,
 * and so many snapshots; 0: they have none. */
extern int32_t fake_n_snapshots;

/* Of device memory, that a block of the KV cache takes, and a fourth of a model's other memory; 0:
 * it is on the CPU. */
extern uint64_t fake_block_bytes;

/* So many pieces wait to be copied from the device (engine_settle). */
extern _Atomic int fake_n_unsettled;

struct fake_stats {
    int64_t n_steps, n_rows;
    int64_t max_rows; /* of a step */
    int n_seqs;       /* alive now */
};
struct fake_stats fake_stats(const struct engine *en);

/* Checks every invariant of the pool and its tree, in time of all blocks. */
void fake_check(const struct engine *en);

/* Called in every step with its rows; NULL: not. */
extern void (*fake_on_step)(const struct engine_row *rows, int64_t n);
/* A step with a row of this token fails with ERR_NUMERIC; -1: none does. */
extern int32_t fake_poison;
/* Texts of a step that failed so can be computed in another way (engine_can_retry), in which that
 * token is as any other. */
extern bool fake_has_ways;
/* The tokens of a sequence, for fake_on_step. */
const int32_t *fake_tokens(const struct engine_seq *s, int64_t *ret_n);

/* What the logits after these tokens are (FAKE_VOCAB of them): for oracles. */
void fake_logits(const int32_t *tokens, int64_t n, float *ret);

#endif
