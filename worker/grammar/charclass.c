/* Character sets (see charclass.h). Pure. A range of characters is cut where the length of their
 * UTF-8 changes, and then until all but the first differing byte run through everything. */
#include "worker/grammar/charclass.h"

#include <stdlib.h>

enum { LAST_CHAR = 0x10FFFF, SURROGATE = 0xD800, SURROGATE_END = 0xDFFF };

bool charclass_add(struct charclass *c, uint32_t lo, uint32_t hi)
{
    if (c->n == CHARCLASS_RANGES) {
        return false;
    }
    c->v[c->n++] = (struct charclass_range){lo, hi};
    return true;
}

static int by_start(const void *a, const void *b)
{
    const struct charclass_range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

static bool invert_sorted(struct charclass *c)
{
    struct charclass out = {0};
    uint32_t next = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (c->v[i].lo > next && !charclass_add(&out, next, c->v[i].lo - 1)) {
            return false;
        }
        next = c->v[i].hi + 1;
    }
    if (next <= LAST_CHAR && !charclass_add(&out, next, LAST_CHAR)) {
        return false;
    }
    *c = out;
    return true;
}

static bool drop_surrogates(struct charclass *c)
{
    struct charclass out = {0};
    for (size_t i = 0; i < c->n; i++) {
        uint32_t lo = c->v[i].lo, hi = c->v[i].hi;
        if (lo < SURROGATE && !charclass_add(&out, lo, MIN(hi, (uint32_t)SURROGATE - 1))) {
            return false;
        }
        if (hi > SURROGATE_END && !charclass_add(&out, MAX(lo, (uint32_t)SURROGATE_END + 1), hi)) {
            return false;
        }
    }
    *c = out;
    return true;
}

bool charclass_settle(struct charclass *c, bool invert)
{
    size_t n = 0;
    qsort(c->v, c->n, sizeof(c->v[0]), by_start);
    for (size_t i = 0; i < c->n; i++) {
        if (n > 0 && c->v[i].lo <= c->v[n - 1].hi + 1) {
            c->v[n - 1].hi = MAX(c->v[n - 1].hi, c->v[i].hi);
        } else {
            c->v[n++] = c->v[i];
        }
    }
    c->n = n;
    return (!invert || invert_sorted(c)) && drop_surrogates(c);
}

static size_t encode(uint32_t c, uint8_t out[4])
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--) {
        out[i] = (uint8_t)(0x80 | (c & 0x3F));
        c >>= 6;
    }
    out[0] = (uint8_t)(c | (n == 2 ? 0xC0 : n == 3 ? 0xE0 : 0xF0));
    return n;
}

typedef int bytes_fn(void *arg, const struct charclass_bytes *b);

/* lo and hi have the same length. */
static int spell_same_length(uint32_t lo, uint32_t hi, bytes_fn *fn, void *arg)
{
    /* Where all bits below 6k are to run freely, the range has to begin and end at such a border.
     */
    for (unsigned bits = 6; bits <= 18; bits += 6) {
        uint32_t mask = ((uint32_t)1 << bits) - 1;
        if (lo < 0x80 || (lo & ~mask) == (hi & ~mask)) {
            break;
        }
        if (lo & mask) {
            int rc = spell_same_length(lo, lo | mask, fn, arg);
            return rc < 0 ? rc : spell_same_length((lo | mask) + 1, hi, fn, arg);
        }
        if ((hi & mask) != mask) {
            int rc = spell_same_length(lo, (hi & ~mask) - 1, fn, arg);
            return rc < 0 ? rc : spell_same_length(hi & ~mask, hi, fn, arg);
        }
    }
    struct charclass_bytes b;
    b.n = encode(lo, b.lo);
    encode(hi, b.hi);
    return fn(arg, &b);
}

int charclass_spell(const struct charclass *c, bytes_fn *fn, void *arg)
{
    static const uint32_t ends[] = {0x7F, 0x7FF, 0xFFFF, LAST_CHAR};
    for (size_t i = 0; i < c->n; i++) {
        uint32_t lo = c->v[i].lo;
        for (size_t k = 0; k < COUNT_OF(ends) && lo <= c->v[i].hi; k++) {
            if (lo <= ends[k]) {
                uint32_t hi = MIN(ends[k], c->v[i].hi);
                int rc = spell_same_length(lo, hi, fn, arg);
                if (rc < 0) {
                    return rc;
                }
                lo = hi + 1;
            }
        }
    }
    return 0;
}
