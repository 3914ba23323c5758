/* What an answer must look like, over tokens: which may come next. One for all choices of a
 * request; a choice has a place in it, which follows from its ids alone, so that a replay stands
 * where the first run stood. Made in a prepare thread, then the token loop's. */
#ifndef WORKER_GRAMMAR_CONSTRAINT_H
#define WORKER_GRAMMAR_CONSTRAINT_H

#include "worker/grammar/pieces.h"

struct constraint;

struct constraint_place {
    uint32_t state, generation; /* of the automaton */
};

/* text: GBNF. pieces and tokenizer are borrowed; n_vocab: logits of a row. Errors: those of
 * grammar_create and automaton_create. */
MUST_CHECK int constraint_create(const char *text, size_t n, const struct pieces *pieces,
                                 const struct tokenizer *t, int64_t n_vocab,
                                 struct constraint **ret, struct err *e);
void constraint_destroy(struct constraint **c);

void constraint_begin(const struct constraint *c, struct constraint_place *place);
/* The place behind ids[n - 1]; the n - 1 before it were taken already. ERR_BAD_TOKEN: it may not
 * stand there. ERR_GRAMMAR: too much is possible at once. */
MUST_CHECK int constraint_take(struct constraint *c, struct constraint_place *place,
                               const int32_t *ids, size_t n, struct err *e);
/* These logits with -INFINITY for every token that may not follow the n ids; ends where the text
 * may end. Valid until the next call. *ret NULL: nothing may follow. Time is bounded: ERR_GRAMMAR.
 */
MUST_CHECK int constraint_mask(struct constraint *c, struct constraint_place *place,
                               const int32_t *ids, size_t n, const float *logits, const float **ret,
                               struct err *e);

#endif
