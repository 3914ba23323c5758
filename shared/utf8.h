/* UTF-8 (RFC 3629): no surrogates, no overlong forms, nothing above U+10FFFF. */
#ifndef SHARED_UTF8_H
#define SHARED_UTF8_H

#include "shared/base.h"

/* Decodes one code point. Returns its length in bytes (1-4) and writes *ret_cp;
 * 0: the n bytes are a proper prefix of a character (more needed, or n is 0);
 * -1: the first byte cannot begin a valid character here. */
int utf8_decode(const char *s, size_t n, uint32_t *ret_cp);

/* Writes 1-4 bytes; returns their number, 0 for a code point that has no UTF-8 form. */
int utf8_encode(uint32_t cp, char out[4]);

bool utf8_is_valid(const char *s, size_t n);

/* Length of the longest prefix that does not end inside a character. Invalid bytes count as
 * whole. */
size_t utf8_complete_prefix(const char *s, size_t n);

/* Where utf8_decode gives 0 or -1: the bytes (1-3) that one U+FFFD stands for, which is the longest
 * beginning of a character found there (Unicode 3.9, "maximal subpart"). n must not be 0. */
size_t utf8_invalid_part(const char *s, size_t n);

/* Copies with every maximal invalid part replaced by U+FFFD. out needs 3*n bytes. Returns the
 * length. */
size_t utf8_repair(const char *s, size_t n, char *out);

/* For a terminal or a log line: the same, and what a terminal would obey (controls below U+0020,
 * DEL, U+0080 to U+009F) is a space. out needs 3*n bytes. Returns the length. */
size_t utf8_tame(const char *s, size_t n, char *out);

#endif
