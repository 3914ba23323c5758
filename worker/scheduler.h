/* Which rows an engine computes next: continuous batching over the requests of one model.
 *
 * Every choice of a request is a sequence of known tokens (prompt and answer); what is not yet in
 * the KV cache is computed, and behind the last known token the next is drawn. So a fresh prompt, a
 * decode step, a sequence that lost its blocks, and a replay are one case.
 *
 * A step holds one row of every sequence that needs just one (decode), then prompt rows, the
 * prompts taking turns: up to the chunk size, beside streams no more than delay them by a fifth of
 * a second. Order of age is order of arrival.
 *
 * - Admission: of the client that has least running the oldest, after ten seconds the oldest of
 *   all, goes in when slots for all its choices and blocks for all its tokens are there; until then
 *   nobody overtakes it, unless its reader is slow. So the longest wait is ten seconds and what
 *   those before it take.
 * - Blocks run out: the youngest goes back to the queue, sequences with slow readers first; later
 *   what the prefix cache still has of it is taken from there and the rest is recomputed (with the
 *   cache in main memory a copy elsewhere would save nothing). The oldest always goes on, so
 *   everything ends.
 * - Forks: the first choice computes the prompt; the others take it over by reference.
 * - A failed step: its requests are computed again one at a time, and one that fails alone fails.
 *
 * Token loop; blocks only in engine_step. No allocation in a step. */
#ifndef WORKER_SCHEDULER_H
#define WORKER_SCHEDULER_H

#include "ipc/status.h"
#include "worker/choice.h"

struct scheduler;

/* Of the model with that index; models and events are borrowed. */
struct scheduler *scheduler_create(const struct models *models, size_t index, struct events *ev);
/* Its requests must be gone. NULL-safe. */
void scheduler_destroy(struct scheduler **s);

/* Takes a prepared GENERATE (stage ACTIVE until ENDED). */
void scheduler_add(struct scheduler *s, struct request *r);

/* Lets go of a request: no further rows, no events. */
void scheduler_remove(struct scheduler *s, struct request *r);
/* The same with the events of a cancelled request. */
void scheduler_cancel(struct scheduler *s, struct request *r);

/* Decides the next step. STATUS_IDLE: there is nothing to compute; else STATUS_PREFILL or
 * STATUS_DECODE, and scheduler_run must follow. */
enum status_phase scheduler_plan(struct scheduler *s);
int64_t scheduler_n_rows(const struct scheduler *s); /* of the planned step */
/* Tokens that these rows attend to, at most, added up. */
int64_t scheduler_n_looks(const struct scheduler *s);
/* Computes it and sends what came out. */
void scheduler_run(struct scheduler *s);

struct scheduler_stats {                 /* since the start */
    uint64_t n_preempted;                /* choices that went back to the queue */
    uint64_t n_prompt_tok, n_cached_tok; /* of requests that started: all, taken from the cache */
};
struct scheduler_stats scheduler_stats(const struct scheduler *s);

int scheduler_n_running(const struct scheduler *s); /* sequences in the KV cache */
const struct choice *scheduler_running(const struct scheduler *s, int i); /* oldest first */
/* sequences in the queue whose reader is not slow: they are owed progress */
int scheduler_n_waiting(const struct scheduler *s);

#endif
