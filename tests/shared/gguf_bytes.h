/* Builds the bytes of a GGUF file piece by piece, right or wrong. */
#ifndef TESTS_SHARED_GGUF_BYTES_H
#define TESTS_SHARED_GGUF_BYTES_H

#include "shared/buf.h"
#include "shared/gguf.h"
#include <string.h>

static inline void put_u32(struct buf *b, uint32_t v)
{
    buf_add(b, &v, sizeof(v));
}
static inline void put_u64(struct buf *b, uint64_t v)
{
    buf_add(b, &v, sizeof(v));
}
static inline void put_str(struct buf *b, const char *s)
{
    put_u64(b, strlen(s));
    buf_str(b, s);
}
static inline void put_head(struct buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    buf_str(b, "GGUF");
    put_u32(b, version);
    put_u64(b, n_tensors);
    put_u64(b, n_kv);
}
/* A key up to its value. */
static inline void put_key(struct buf *b, const char *key, uint32_t kind)
{
    put_str(b, key);
    put_u32(b, kind);
}
static inline void put_key_u32(struct buf *b, const char *key, uint32_t v)
{
    put_key(b, key, GGUF_U32);
    put_u32(b, v);
}
static inline void put_array(struct buf *b, const char *key, uint32_t elem, uint64_t n)
{
    put_key(b, key, GGUF_ARRAY);
    put_u32(b, elem);
    put_u64(b, n);
}
static inline void put_tensor(struct buf *b, const char *name, uint32_t n_dims, const uint64_t *ne,
                              uint32_t type, uint64_t offset)
{
    put_str(b, name);
    put_u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) {
        put_u64(b, ne[i]);
    }
    put_u32(b, type);
    put_u64(b, offset);
}
static inline void put_zeros(struct buf *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        buf_char(b, 0);
    }
}
static inline void put_padding(struct buf *b, size_t align)
{
    put_zeros(b, (align - b->len % align) % align);
}

#endif
