/* Having the worker give back the card's memory when others need it (safety/vram.h), in the
 * order of the ladder: it is told the ceiling (BUDGET), makes its KV caches smaller and unloads
 * idle models, and answers what it has (GAVE). Where that is not enough for
 * GIVEBACK_PATIENCE_MS, and --cpu-fallback allows it, the next worker takes its place: it takes
 * what is there, and computes the rest on the processor; requests go on with it. When the
 * ceiling has risen again, caches grow, and a worker that idles makes room for one with all of
 * it. */
#ifndef SAFETY_GIVEBACK_H
#define SAFETY_GIVEBACK_H

#include "safety/supervisor.h"

enum { GIVEBACK_PATIENCE_MS = 5000, GIVEBACK_AGAIN_MS = 60 * 1000 };

/* The monitor has measured: s->watch.last is fresh. */
void giveback_saw(struct supervisor *s, uint64_t now_ms);
/* GAVE came. */
void giveback_heard(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms);
/* In every turn. */
void giveback_tick(struct supervisor *s, uint64_t now_ms);
/* The worker is gone, and what it held. */
void giveback_died(struct supervisor *s);

/* What models of the worker take by its own count, which is there where the driver tells
 * nothing. */
uint64_t giveback_held(const struct supervisor *s);
/* The present worker, or the next, is one that does with less: it may leave the GPU. */
bool giveback_is_squeezed(const struct supervisor *s);

#endif
