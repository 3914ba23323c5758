/* Checked size arithmetic: the only arithmetic allowed on numbers that come from a file or a peer.
 * Each returns true and writes *ret, or returns false and leaves *ret untouched. */
#ifndef SHARED_NUM_H
#define SHARED_NUM_H

#include "shared/base.h"

MUST_CHECK static inline bool num_add(uint64_t a, uint64_t b, uint64_t *ret)
{
    uint64_t r;
    if (__builtin_add_overflow(a, b, &r)) {
        return false;
    }
    *ret = r;
    return true;
}

MUST_CHECK static inline bool num_mul(uint64_t a, uint64_t b, uint64_t *ret)
{
    uint64_t r;
    if (__builtin_mul_overflow(a, b, &r)) {
        return false;
    }
    *ret = r;
    return true;
}

/* Rounds up to a power of two. */
MUST_CHECK static inline bool num_align(uint64_t n, uint64_t align, uint64_t *ret)
{
    uint64_t r;
    if (align == 0 || (align & (align - 1)) != 0 || !num_add(n, align - 1, &r)) {
        return false;
    }
    *ret = r & ~(align - 1);
    return true;
}

/* Rounds up a size of our own making (never one from outside). */
static inline size_t num_pad(size_t n, size_t align)
{
    return (n + align - 1) & ~(align - 1);
}

/* Strict decimal parsing of a whole string: no sign for u64, no spaces, no trailing bytes. */
MUST_CHECK bool num_parse_u64(const char *text, uint64_t *ret);
MUST_CHECK bool num_parse_i64(const char *text, int64_t *ret);
MUST_CHECK bool num_parse_f64(const char *text, double *ret);

#endif
