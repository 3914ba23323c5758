/* One HTTP/1.1 request at a time, from bytes: a pure function over state, without sockets, so that
 * it can be fuzzed alone. Two parsers read every byte, framing.c and llhttp (all lenient flags
 * off), and must agree on where things end; on disagreement the request is refused.
 *
 * After any error the connection cannot be used further: answer and close. */
#ifndef GATEWAY_HTTP_H
#define GATEWAY_HTTP_H

#include "gateway/framing.h"
#include "shared/buf.h"
#include "shared/limits.h"
#include <llhttp.h>

struct http_header {
    uint32_t name, n_name;   /* into head */
    uint32_t value, n_value; /* without white space at both ends */
};

struct http {
    llhttp_t parser;
    struct framing framing;
    uint8_t phase;   /* enum in http.c */
    struct buf head; /* owned: request line and headers as they came */
    struct buf body; /* owned: decoded */
    /* Valid from HTTP_STEP_HEAD to http_next: */
    struct http_header headers[LIMIT_HEADERS];
    size_t n_headers;
    uint8_t method;        /* llhttp's HTTP_GET, ... */
    uint32_t path, n_path; /* into head; without query */
    uint32_t host, n_host; /* into head: "name", "name:port" or empty (HTTP/1.0) */
    bool is_1_0;
    bool is_keep_alive; /* the client's wish; never for HTTP/1.0 */
    bool is_chunked, is_chunked_for_llhttp;
    bool wants_continue; /* Expect: 100-continue */
    uint64_t content_length;
};

enum http_step {
    HTTP_STEP_MORE = 0, /* everything was taken; more is wanted */
    HTTP_STEP_HEAD = 1, /* the head is complete: the moment to refuse, or to say 100 Continue */
    HTTP_STEP_DONE = 2, /* the request is complete */
};

void http_init(struct http *h);
void http_finish(struct http *h);
/* Ready for the next request of the connection. */
void http_next(struct http *h);

/* Has the client begun a request? */
bool http_is_begun(const struct http *h);
bool http_has_body(const struct http *h);

/* Takes up to n bytes, stops after head and end; call again with the rest (also when there is none
 * after HTTP_STEP_HEAD). Returns an http_step, or an error to answer with: ERR_BAD_REQUEST,
 * ERR_HTTP_VERSION, ERR_URI_TOO_LONG, ERR_HEADERS_TOO_LARGE, ERR_TOO_LARGE, ERR_EXPECTATION,
 * -ENOMEM. */
MUST_CHECK int http_feed(struct http *h, const char *p, size_t n, size_t *ret_used, struct err *e);

/* Value of a header, borrowed and not terminated, or NULL. name is lower-case. */
const char *http_find(const struct http *h, const char *name, size_t *ret_n);

#endif
