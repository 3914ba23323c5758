/* A growing byte buffer. Fails once and stays failed: check `failed` at the end, not every call. */
#ifndef SHARED_BUF_H
#define SHARED_BUF_H

#include "shared/base.h"

struct buf {
    char *data; /* owned; always terminated once anything was added */
    size_t len;
    size_t cap;
    size_t limit; /* 0: none */
    bool failed;  /* out of memory or over the limit */
};

void buf_init(struct buf *b, size_t limit_bytes);
void buf_finish(struct buf *b);
void buf_clear(struct buf *b); /* keeps the memory */
void buf_add(struct buf *b, const void *data, size_t n);
void buf_str(struct buf *b, const char *s);
void buf_char(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Removes the first n bytes. */
void buf_consume(struct buf *b, size_t n);

#endif
