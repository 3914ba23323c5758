/* Arena: many small allocations that die together. Not thread-safe; one owner. */
#ifndef SHARED_ARENA_H
#define SHARED_ARENA_H

#include "shared/base.h"

struct arena_chunk;
struct arena {
    struct arena_chunk *chunk; /* owned, newest first */
    size_t used_bytes;         /* handed out in all */
    size_t limit_bytes;        /* 0: none */
};

void arena_init(struct arena *a, size_t limit_bytes);
void arena_finish(struct arena *a);

/* Zeroed, aligned to 16; NULL when memory or the limit is exhausted. */
void *arena_alloc(struct arena *a, size_t bytes);
char *arena_str(struct arena *a, const char *s, size_t n); /* terminated copy */

#endif
