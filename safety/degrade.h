/* The degrade ladder (ladder.h) in the supervisor: which deaths move it, what the next worker is
 * given, and when a worker that idles makes room for a better one. */
#ifndef SAFETY_DEGRADE_H
#define SAFETY_DEGRADE_H

#include "safety/supervisor.h"

/* At start: what was remembered. Reads a file. */
void degrade_start(struct supervisor *s, uint64_t now_ms);
/* SIGHUP: everything is tried again. */
void degrade_reload(struct supervisor *s, uint64_t now_ms);

/* The worker died. Its successor may get other settings; then its restart budget is new as well. */
void degrade_died(struct supervisor *s, const struct policy_death *d, enum policy_blame blame,
                  uint64_t now_ms);
/* In every turn. */
void degrade_tick(struct supervisor *s, uint64_t now_ms);

/* The worker may not leave the GPU by itself (--cpu-fallback). */
bool degrade_is_bound(const struct supervisor *s);
/* Nobody would miss the present worker. */
bool degrade_is_idle(const struct supervisor *s);
/* What the next worker is trusted with: the ladder's rung, or, while the card is wedged and the CPU
 * may compute, the lowest. */
uint32_t degrade_rung(const struct supervisor *s);
/* Will the next worker stay away from the GPU? */
bool degrade_is_cpu(const struct supervisor *s);
/* 1 and a sealed memfd with the worker's settings (the caller's) in *ret_fd; 0 where they are the
 * user's; -errno. */
MUST_CHECK int degrade_config(const struct supervisor *s, int *ret_fd);

#endif
