/* JSON with limits (jansson beneath). Reading: depth, item and byte limits checked before and while
 * parsing, duplicate keys refused, errors that name line and column. Writing: straight into a
 * buf. */
#ifndef SHARED_JSON_H
#define SHARED_JSON_H

#include "shared/base.h"
#include "shared/buf.h"
#include "shared/err.h"
#include <jansson.h>

/* One JSON value and nothing after it but white space. *ret is a new reference. Strings may hold
 * NUL (written \u0000), so their length is json_string_length; keys may not. Integers beyond 64
 * bits and reals beyond double are refused. e never quotes the text.
 * Errors: ERR_BAD_JSON with place; -ENOMEM (within a string jansson calls that bad text, too).
 * Jansson reads /dev/urandom when it makes its first object: a process that is to be sandboxed
 * calls json_object_seed(0) before. */
MUST_CHECK int json_parse(const char *text, size_t n, json_t **ret, struct err *e);

/* Appends a JSON string literal with quotes. Bytes that are not UTF-8 become U+FFFD. */
void json_put_string(struct buf *b, const char *s, size_t n);
/* Appends a short decimal that reads back as the same double; null for NaN and infinities. */
void json_put_number(struct buf *b, double v);
/* Appends a value, compact, keys in order of insertion. */
void json_put_value(struct buf *b, const json_t *v);

#endif
