/* The strict byte discipline of HTTP/1.1 messages (RFC 9112), checked before llhttp sees a byte:
 * llhttp forgives bare LF, spaces and control bytes in places, and each such leniency has been a
 * way to smuggle requests. framing finds where a head and a chunked body end; llhttp must come to
 * the same end (http.c). Pure: state and bytes in, state out. */
#ifndef GATEWAY_FRAMING_H
#define GATEWAY_FRAMING_H

#include "shared/err.h"

struct framing {
    uint8_t state;       /* enum in framing.c */
    uint8_t n_spaces;    /* seen in the request line */
    uint8_t n_digits;    /* of a chunk size */
    uint32_t line_bytes; /* of the current line, or of one part of the request line */
    uint32_t head_bytes; /* of head or trailer so far */
    uint32_t n_fields;
    uint32_t extension_bytes; /* over all chunks */
    uint64_t chunk_left;
};

/* Ready for a request; empty lines before it are skipped. */
void framing_begin_head(struct framing *f);
/* Ready for the body of a request whose head said "chunked". */
void framing_begin_chunks(struct framing *f);

/* Checks up to n bytes. Returns 1 when the message part ends after *ret_used bytes, 0 when all n
 * were taken and more are wanted, or an error to answer with: ERR_BAD_REQUEST, ERR_URI_TOO_LONG,
 * ERR_HEADERS_TOO_LARGE, ERR_TOO_LARGE. *ret_skip (head only): how many of the used bytes come
 * before the request line. After an error in chunks *ret_used bytes before it were good. */
MUST_CHECK int framing_head(struct framing *f, const char *p, size_t n, size_t *ret_used,
                            size_t *ret_skip, struct err *e);
MUST_CHECK int framing_chunks(struct framing *f, const char *p, size_t n, size_t *ret_used,
                              struct err *e);

/* RFC 9110 token characters, as in field names. */
bool framing_is_token(unsigned char c);

#endif
