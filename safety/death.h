/* A child died: judged by the rules of policy.h, reported once in the log, and answered. */
#ifndef SAFETY_DEATH_H
#define SAFETY_DEATH_H

#include "safety/supervisor.h"

/* The child was reaped. */
void death_of(struct supervisor *s, struct child *c, const struct policy_death *d, uint64_t now_ms);

/* The child does not die of SIGKILL: it is set aside, its slot is free again. */
void death_abandon(struct supervisor *s, struct child *c, uint64_t now_ms);

/* What the worker says takes so long, printable; or "". */
void death_doing(const struct status_page *page, char ret[STATUS_DOING_BYTES]);

/* A child set aside died after all. */
void death_of_stuck(struct supervisor *s, struct child *c, uint64_t now_ms);

#endif
