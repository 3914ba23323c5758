/* How much of the GPU's speed a worker is trusted with, by what became of its predecessors. A pure
 * function of events and the time given with them.
 *
 *   down  LADDER_DEATHS deaths within LADDER_WINDOW_MS, each by the worker's own fault while it
 * held the GPU (LADDER_LOAD_DEATHS before it was ready; one alone while a rung is on trial): the
 *         next rung. Deaths that a convicted request explains do not count.
 *   up    LADDER_QUIET_MS without such a death, doubled with every fall of a rung on trial (at most
 *         LADDER_MAX_DOUBLINGS times): the rung above is tried, and is on trial for as long.
 *
 * The last rung computes on the CPU and is taken only where that is allowed (cpu_fallback). What it
 * comes to is remembered over restarts (remember.h). */
#ifndef SAFETY_LADDER_H
#define SAFETY_LADDER_H

#include "shared/config.h"

enum ladder_rung {
    LADDER_FULL,
#define RUNG(name, setting, value, meaning) LADDER_##name,
#include "safety/ladder.def"
#undef RUNG
    LADDER_RUNGS
};

enum {
    LADDER_DEATHS = 3,
    LADDER_LOAD_DEATHS = 2,
    LADDER_WINDOW_MS = 10 * 60 * 1000,
    LADDER_QUIET_MS = 30 * 60 * 1000,
    LADDER_MAX_DOUBLINGS = 4,
};

struct ladder {
    uint32_t rung; /* of the next worker */
    uint32_t n_doublings;
    bool is_on_trial;
    uint32_t n_deaths; /* counted for the present rung */
    uint64_t deaths_ms[LADDER_DEATHS];
    bool is_loading[LADDER_DEATHS];
    uint64_t quiet_since_ms;
};

/* As remembered; numbers out of range are nothing. */
void ladder_init(struct ladder *l, uint32_t rung, uint32_t n_doublings, uint64_t now_ms);
/* A worker that held the GPU died by its own fault. max: the lowest rung allowed (LADDER_cpu or the
 * one above it). True: the rung changed. */
bool ladder_died(struct ladder *l, bool was_ready, uint32_t max, uint64_t now_ms);
/* The GPU is out of reach: straight to max. */
bool ladder_lose(struct ladder *l, uint32_t max, uint64_t now_ms);
/* A request was convicted: it explains the deaths so far. */
void ladder_pardon(struct ladder *l);
/* The user changed something. */
void ladder_forgive(struct ladder *l, uint64_t now_ms);
/* Has it been quiet for long enough? Then the rung above is tried. True: the rung changed. */
bool ladder_tick(struct ladder *l, uint64_t now_ms);
uint64_t ladder_quiet_ms(const struct ladder *l);

const char *ladder_name(uint32_t rung);    /* "full", "safe" */
const char *ladder_meaning(uint32_t rung); /* "" of the full speed */

/* Puts the settings of a rung in place of the user's. Errors as config_set. */
MUST_CHECK int ladder_apply(uint32_t rung, struct config *c, struct err *e);

#endif
