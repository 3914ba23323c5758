/* The memory that all constrained requests may take together: each has tables of its own, which
 * grow with what its grammar allows. Any thread. */
#ifndef WORKER_GRAMMAR_BUDGET_H
#define WORKER_GRAMMAR_BUDGET_H

#include "shared/err.h"

enum { GRAMMAR_BUDGET_BYTES = 512 * 1024 * 1024 };

/* False: others have it. */
MUST_CHECK bool grammar_budget_take(size_t bytes);
void grammar_budget_give(size_t bytes);
int grammar_budget_refuse(struct err *e); /* ERR_BUSY, in words */
/* Most of it is taken: tables that can be made again give back what they grew. */
bool grammar_budget_is_tight(void);

#endif
