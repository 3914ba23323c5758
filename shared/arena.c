/* Arena: a list of chunks, each twice the last up to 1 MiB. */
#include "shared/arena.h"
#include "shared/num.h"

#include <stdlib.h>
#include <string.h>

enum { ARENA_ALIGN = 16, ARENA_FIRST_BYTES = 4096, ARENA_MAX_BYTES = 1024 * 1024 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, cap;
    _Alignas(ARENA_ALIGN) unsigned char data[];
};

void arena_init(struct arena *a, size_t limit_bytes)
{
    *a = (struct arena){.limit_bytes = limit_bytes};
}

void arena_finish(struct arena *a)
{
    while (a->chunk) {
        struct arena_chunk *next = a->chunk->next;
        free(a->chunk);
        a->chunk = next;
    }
    a->used_bytes = 0;
}

void *arena_alloc(struct arena *a, size_t bytes)
{
    uint64_t need, total;
    if (!num_align(MAX(bytes, (size_t)1), ARENA_ALIGN, &need) ||
        !num_add(a->used_bytes, need, &total) || (a->limit_bytes && total > a->limit_bytes)) {
        return NULL;
    }
    struct arena_chunk *c = a->chunk;
    if (!c || c->cap - c->used < need) {
        size_t cap = c ? MIN(c->cap * 2, (size_t)ARENA_MAX_BYTES) : ARENA_FIRST_BYTES;
        cap = MAX(cap, (size_t)need);
        uint64_t chunk_bytes;
        if (!num_add(sizeof(*c), cap, &chunk_bytes) || chunk_bytes > PTRDIFF_MAX ||
            !(c = malloc(chunk_bytes))) {
            return NULL;
        }
        *c = (struct arena_chunk){.next = a->chunk, .cap = cap};
        a->chunk = c;
    }
    void *p = c->data + c->used;
    c->used += need;
    a->used_bytes = total;
    return memset(p, 0, need);
}

char *arena_str(struct arena *a, const char *s, size_t n)
{
    char *p = n < SIZE_MAX ? arena_alloc(a, n + 1) : NULL;
    if (p && n) {
        memcpy(p, s, n);
    }
    return p;
}
