/* A grammar as an automaton over bytes, made while it is walked. A state is the set of all places
 * at which the text so far may stand; a place is an element and the stack of those behind it. Equal
 * stacks and equal sets have one number each, so that a state met again is known by its number and
 * a step taken before is one look.
 *
 * Tables grow up to limits; then automaton_step says AUTOMATON_FULL, and after automaton_reset
 * (which makes all numbers void) whoever stands somewhere walks there again. Not for two threads at
 * once. */
#ifndef WORKER_GRAMMAR_AUTOMATON_H
#define WORKER_GRAMMAR_AUTOMATON_H

#include "worker/grammar/grammar.h"

struct automaton;

enum { AUTOMATON_DEAD = 0, AUTOMATON_BEGIN = 1 };
#define AUTOMATON_FULL UINT32_MAX

/* g is borrowed. Errors: ERR_GRAMMAR where the grammar is left-recursive or too ambiguous;
 * ERR_BUSY where others have the memory that it takes (grammar_budget.h); -ENOMEM. */
MUST_CHECK int automaton_create(const struct grammar *g, struct automaton **ret, struct err *e);
void automaton_destroy(struct automaton **a);

/* The state behind this byte: AUTOMATON_DEAD where it does not fit, AUTOMATON_FULL when there is no
 * room to find out. */
uint32_t automaton_step(struct automaton *a, uint32_t state, uint8_t byte);
/* May the text end here? */
bool automaton_accepts(const struct automaton *a, uint32_t state);

/* Places looked at so far: what new steps cost. */
uint64_t automaton_work(const struct automaton *a);

void automaton_reset(struct automaton *a);
/* How often it was reset. */
uint32_t automaton_generation(const struct automaton *a);

#endif
