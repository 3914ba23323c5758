/* Unicode as Python's str sees it: code points, their classes and full case mappings. Texts are
 * valid UTF-8; with others the results mean nothing, but no byte outside is touched. */
#ifndef WORKER_JINJA_JINJA_UNICODE_H
#define WORKER_JINJA_JINJA_UNICODE_H

#include "worker/jinja/jinja_value.h"

/* The first character of n > 0 bytes: its length, and its code point (U+FFFD for a bad byte). */
size_t jinja_unicode_get(const char *s, size_t n, uint32_t *ret_cp);
size_t jinja_unicode_step(const char *s, size_t n);
/* Characters in n bytes. */
size_t jinja_unicode_count(const char *s, size_t n);
/* The byte offset of the at-th character, n when there are fewer. */
size_t jinja_unicode_offset(const char *s, size_t n, size_t at);
/* The length of the last character of n > 0 bytes. */
size_t jinja_unicode_last(const char *s, size_t n);

enum jinja_class {
    JINJA_ALPHA,
    JINJA_DECIMAL,
    JINJA_DIGIT,
    JINJA_NUMERIC,
    JINJA_ALNUM,
    JINJA_LOWER,
    JINJA_UPPER,
    JINJA_TITLE,
    JINJA_SPACE,
    JINJA_PRINTABLE,
};
bool jinja_unicode_is(uint32_t cp, enum jinja_class what);

enum jinja_case {
    JINJA_TO_UPPER,
    JINJA_TO_LOWER,
    JINJA_TO_TITLE,   /* every run of letters begins with a capital */
    JINJA_TO_CAPITAL, /* the first character, the rest in lower case */
    JINJA_TO_SWAPPED,
    JINJA_TO_FOLDED,
};
struct jinja_value jinja_unicode_map(struct jinja *j, const char *s, size_t n, enum jinja_case to);
/* Prints instead. */
void jinja_unicode_put(struct jinja *j, const char *s, size_t n, enum jinja_case to);

/* s without the white space at its ends. */
struct jinja_value jinja_unicode_trim(struct jinja_value s, bool left, bool right);

#endif
