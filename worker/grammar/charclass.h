/* Sets of characters, and the byte sequences that spell them in UTF-8. */
#ifndef WORKER_GRAMMAR_CHARCLASS_H
#define WORKER_GRAMMAR_CHARCLASS_H

#include "shared/base.h"

enum { CHARCLASS_RANGES = 512 };

struct charclass {
    size_t n;
    struct charclass_range {
        uint32_t lo, hi;
    } v[CHARCLASS_RANGES];
};

/* False: there are too many ranges. */
MUST_CHECK bool charclass_add(struct charclass *c, uint32_t lo, uint32_t hi);
/* Sorts and merges; inverts it if wanted; surrogates are in no class. False: too many ranges. */
MUST_CHECK bool charclass_settle(struct charclass *c, bool invert);

struct charclass_bytes { /* one byte of each range in turn */
    size_t n;
    uint8_t lo[4], hi[4];
};
/* Calls fn for each sequence of ranges; together they match the class's characters and no others.
 * Stops when fn returns a negative value, and returns it. */
int charclass_spell(const struct charclass *c,
                    int (*fn)(void *arg, const struct charclass_bytes *b), void *arg);

#endif
