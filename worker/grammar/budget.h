/* The memory that all constrained requests may take together: each has tables of its own, which grow
 * with what its grammar allows. Any thread. */
#ifndef WORKER_GRAMMAR_BUDGET_H
#define WORKER_GRAMMAR_BUDGET_H

#include "shared/err.h"

enum { BUDGET_BYTES = 512 * 1024 * 1024 };

/* False: others have it. */
MUST_CHECK bool budget_take(size_t bytes);
void budget_give(size_t bytes);
int budget_refuse(struct err *e); /* ERR_BUSY, in words */
/* Most of it is taken: tables that can be made again give back what they grew. */
bool budget_is_tight(void);

#endif
