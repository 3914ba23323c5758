/* The supervisor's side of the monitor (safety/probe_vram.c): a process that looks at the card's
 * memory while a worker holds it. The supervisor never reads a file of the driver; a monitor that
 * is silent for MONITOR_SILENCE_MS is ended and started again later, and the ceiling stays what it
 * was. */
#ifndef SAFETY_MONITOR_H
#define SAFETY_MONITOR_H

#include "safety/supervisor.h"

enum { MONITOR_SILENCE_MS = 5000, MONITOR_AGAIN_MS = 10 * 1000 };

/* In every turn: starts it, ends one that is silent or not wanted any more. */
void monitor_tick(struct supervisor *s, uint64_t now_ms);
void monitor_saw(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms);
/* CARD came. */
void monitor_heard(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms);
/* The machine is about to sleep: the worker is ended, and the card let go of before. It woke: a
 * worker is started, with a preflight of its own. Requests wait meanwhile. */
void monitor_slept(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms);
void monitor_died(struct supervisor *s, const struct policy_death *d, uint64_t now_ms);
/* A new gateway has greeted: it is told what is known. */
void monitor_tell(struct supervisor *s, uint64_t now_ms);

#endif
