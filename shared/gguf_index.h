/* Inside of the GGUF reader: the memory behind a struct gguf, and names to positions in O(1). */
#ifndef SHARED_GGUF_INDEX_H
#define SHARED_GGUF_INDEX_H

#include "shared/arena.h"
#include "shared/gguf.h"

struct gguf_names { /* open addressing with linear probing, at most half full */
    struct gguf_str *names; /* in order of addition; borrowed texts */
    uint32_t *slots;        /* position + 1, 0: free */
    size_t n, cap, mask;
};

struct gguf_index {
    struct arena arena; /* everything a struct gguf owns but the mappings */
    struct gguf_names keys, tensors;
};

/* Room for cap names. -ENOMEM. */
MUST_CHECK int gguf_names_init(struct gguf_names *t, struct arena *a, size_t cap);
/* 0; -EEXIST: the name stands there already; -ELOOP: names chosen to collide. */
MUST_CHECK int gguf_names_add(struct gguf_names *t, struct gguf_str name);
/* Position, or -1. */
int64_t gguf_names_find(const struct gguf_names *t, const char *name, size_t len);

/* gguf_parse into an existing index: the arena is shared between parts, the tables are replaced. */
MUST_CHECK int gguf_parse_part(const uint8_t *data, size_t bytes, struct gguf_index *index,
                               struct gguf *ret, struct err *e);

/* A name from a file for an error message: printable ASCII, at most 63 characters; returns out. */
const char *gguf_printable(struct gguf_str name, char out[64]);

#endif
