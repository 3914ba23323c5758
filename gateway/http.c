/* llhttp glue. Pure; runs on the gateway's loop. Invariant: body and head never exceed their
 * limits, and llhttp's codes do not leave this file. */
#include "gateway/http.h"
#include "gateway/origin.h"
#include "shared/num.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

enum { PHASE_HEAD, PHASE_BODY, PHASE_DONE };
enum { KEEP_BYTES = 4096 }; /* memory a waiting connection may hold per buffer */

static int on_url(llhttp_t *p, const char *at, size_t n)
{
    struct http *h = p->data;
    h->path = (uint32_t)(at - h->head.data);
    h->n_path = (uint32_t)n;
    return 0;
}

static int on_field(llhttp_t *p, const char *at, size_t n)
{
    struct http *h = p->data;
    if (h->phase != PHASE_HEAD) {
        return 0; /* a trailer: dropped */
    }
    if (h->n_headers == LIMIT_HEADERS) {
        return HPE_USER;
    }
    h->headers[h->n_headers++] =
        (struct http_header){.name = (uint32_t)(at - h->head.data), .n_name = (uint32_t)n};
    return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
    struct http *h = p->data;
    if (h->phase != PHASE_HEAD) {
        return 0;
    }
    if (h->n_headers == 0) {
        return HPE_USER;
    }
    while (n && (at[n - 1] == ' ' || at[n - 1] == '\t')) {
        n--;
    }
    struct http_header *f = &h->headers[h->n_headers - 1];
    f->value = (uint32_t)(at - h->head.data);
    f->n_value = (uint32_t)n;
    return 0;
}

static int on_headers_complete(llhttp_t *p)
{
    struct http *h = p->data;
    /* Asked now: the end of a message, which may come in the same call, clears llhttp's flags. */
    h->is_keep_alive = llhttp_should_keep_alive(p);
    h->is_chunked_for_llhttp = (p->flags & F_CHUNKED) != 0;
    /* "Upgrade" may be ignored (RFC 9110 7.8), and is: what follows is HTTP/1.1. */
    p->upgrade = 0;
    return 0;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct http *h = p->data;
    buf_add(&h->body, at, n);
    return h->body.failed ? HPE_USER : 0;
}

static int on_message_complete(llhttp_t *p)
{
    struct http *h = p->data;
    h->phase = PHASE_DONE;
    return 0;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

static void buf_empty(struct buf *b)
{
    if (b->cap > KEEP_BYTES) {
        buf_finish(b);
    }
    buf_clear(b);
}

void http_init(struct http *h)
{
    *h = (struct http){0};
    buf_init(&h->head, LIMIT_HEADER_BYTES + LIMIT_URI_BYTES * 2);
    buf_init(&h->body, LIMIT_BODY_BYTES);
    http_next(h);
}

void http_finish(struct http *h)
{
    buf_finish(&h->head);
    buf_finish(&h->body);
}

void http_next(struct http *h)
{
    llhttp_init(&h->parser, HTTP_REQUEST, &settings);
    h->parser.data = h;
    framing_begin_head(&h->framing);
    h->phase = PHASE_HEAD;
    buf_empty(&h->head);
    buf_empty(&h->body);
    h->n_headers = 0;
    h->method = 0;
    h->path = h->n_path = h->host = h->n_host = 0;
    h->is_1_0 = h->is_keep_alive = h->is_chunked = h->wants_continue = false;
    h->is_chunked_for_llhttp = false;
    h->content_length = 0;
}

bool http_is_begun(const struct http *h)
{
    return h->head.len > 0;
}

bool http_has_body(const struct http *h)
{
    return h->is_chunked || h->content_length > 0;
}

static const struct http_header *find(const struct http *h, const char *name, size_t *ret_count)
{
    const struct http_header *first = NULL;
    size_t n = strlen(name);
    *ret_count = 0;
    for (size_t i = 0; i < h->n_headers; i++) {
        const struct http_header *f = &h->headers[i];
        if (f->n_name == n && strncasecmp(h->head.data + f->name, name, n) == 0) {
            first = first ? first : f;
            (*ret_count)++;
        }
    }
    return first;
}

const char *http_find(const struct http *h, const char *name, size_t *ret_n)
{
    size_t count;
    const struct http_header *f = find(h, name, &count);
    *ret_n = f ? f->n_value : 0;
    return f ? h->head.data + f->value : NULL;
}

static bool is_word(const char *s, size_t n, const char *word)
{
    return n == strlen(word) && strncasecmp(s, word, n) == 0;
}

static int bad(struct err *e, const char *what)
{
    return err_set(e, ERR_BAD_REQUEST, "%s", what);
}

/* Content-Length and Transfer-Encoding: exactly one reading, or none. */
static int check_body_headers(struct http *h, struct err *e)
{
    size_t n_length, n_coding;
    const struct http_header *length = find(h, "content-length", &n_length);
    const struct http_header *coding = find(h, "transfer-encoding", &n_coding);
    if (n_length + n_coding > 1) {
        return bad(e, n_coding == 0 ? "Content-Length is given twice"
                      : n_length    ? "Content-Length and Transfer-Encoding are both given"
                                    : "Transfer-Encoding is given twice");
    }
    if (coding) {
        if (h->is_1_0) {
            return bad(e, "Transfer-Encoding in HTTP/1.0");
        }
        if (!is_word(h->head.data + coding->value, coding->n_value, "chunked")) {
            return bad(e, "Transfer-Encoding is not 'chunked'");
        }
        h->is_chunked = true;
    }
    if (length) {
        char digits[24] = "";
        if (length->n_value < sizeof(digits)) {
            memcpy(digits, h->head.data + length->value, length->n_value);
        }
        if (!num_parse_u64(digits, &h->content_length)) {
            return bad(e, "Content-Length is not a number");
        }
        if (h->content_length > LIMIT_BODY_BYTES) {
            return err_set(e, ERR_TOO_LARGE, "it has %llu bytes, allowed are %d",
                           (unsigned long long)h->content_length, LIMIT_BODY_BYTES);
        }
    }
    size_t n;
    const char *encoding = http_find(h, "content-encoding", &n);
    if (encoding && !is_word(encoding, n, "identity")) {
        return bad(e, "Content-Encoding is not supported");
    }
    return 0;
}

/* Splits the target: "/path?query", "*" or "http://host/path?query" (RFC 9112 3.2). */
static int check_target(struct http *h, struct err *e)
{
    const char *t = h->head.data + h->path;
    size_t n = h->n_path, skip = 0;
    if (memchr(t, '#', n)) {
        return bad(e, "the target holds a fragment");
    }
    if (n > 7 && strncasecmp(t, "http://", 7) == 0) {
        skip = 7;
    } else if (n > 8 && strncasecmp(t, "https://", 8) == 0) {
        skip = 8;
    }
    if (skip) {
        size_t end = skip;
        while (end < n && t[end] != '/' && t[end] != '?') {
            end++;
        }
        h->host = h->path + (uint32_t)skip; /* it outranks the Host header */
        h->n_host = (uint32_t)(end - skip);
        h->path += (uint32_t)end;
        h->n_path -= (uint32_t)end;
        if (!origin_split(t + skip, end - skip, &(size_t){0})) {
            return bad(e, "the target's host is not valid");
        }
    } else if (t[0] != '/' && !(n == 1 && t[0] == '*' && h->method == HTTP_OPTIONS)) {
        return bad(e, "the target is neither a path nor an http URL");
    }
    const char *query = memchr(h->head.data + h->path, '?', h->n_path);
    if (query) {
        h->n_path = (uint32_t)(query - (h->head.data + h->path));
    }
    return 0;
}

static int check_host(struct http *h, struct err *e)
{
    size_t count;
    const struct http_header *f = find(h, "host", &count);
    if (count > 1 || (count == 0 && !h->is_1_0)) {
        return bad(e, count ? "Host is given twice" : "Host is missing");
    }
    if (f) {
        if (!origin_split(h->head.data + f->value, f->n_value, &(size_t){0})) {
            return bad(e, "Host is not a valid host");
        }
        if (h->n_host == 0) {
            h->host = f->value;
            h->n_host = f->n_value;
        }
    }
    return 0;
}

/* The end of the request line, "HTTP/1.1". llhttp also knows RTSP and ICE, and of what is no
 * version at all it says that it is not supported. */
static int check_version(const struct http *h, struct err *e)
{
    const char *line = h->head.data, *end = memchr(line, '\r', h->head.len);
    size_t n = end ? (size_t)(end - line) : h->head.len;
    const char *v = line + (n > 9 ? n - 9 : 0);
    if (n <= 9 || memcmp(v, " HTTP/", 6) != 0 || v[6] < '0' || v[6] > '9' || v[7] != '.' ||
        v[8] < '0' || v[8] > '9') {
        return bad(e, "the request line does not end with an HTTP version");
    }
    if (v[6] != '1' || v[8] > '1') {
        return err_set(e, ERR_HTTP_VERSION, "it is HTTP/%c.%c", v[6], v[8]);
    }
    return 0;
}

static int check_head(struct http *h, struct err *e)
{
    h->method = h->parser.method;
    h->is_1_0 = h->parser.http_minor == 0;
    int r = check_version(h, e);
    if (r < 0) {
        return r;
    }
    if (h->method == HTTP_CONNECT) {
        return bad(e, "CONNECT is not for this server");
    }
    r = check_target(h, e);
    r = r < 0 ? r : check_host(h, e);
    r = r < 0 ? r : check_body_headers(h, e);
    if (r < 0) {
        return r;
    }
    size_t n;
    const char *expect = http_find(h, "expect", &n);
    if (expect && !h->is_1_0) { /* RFC 9110 10.1.1: in HTTP/1.0 it means nothing */
        if (!is_word(expect, n, "100-continue")) {
            return err_set(e, ERR_EXPECTATION, "Expect is not '100-continue'");
        }
        h->wants_continue = http_has_body(h);
    }
    h->is_keep_alive = h->is_keep_alive && !h->is_1_0;
    return 0;
}

static int run_parser(struct http *h, const char *p, size_t n, struct err *e)
{
    llhttp_errno_t r = llhttp_execute(&h->parser, p, n);
    if (h->head.failed || h->body.failed) {
        return h->body.limit && h->body.len + n > h->body.limit
                   ? err_set(e, ERR_TOO_LARGE, "allowed are %d bytes", LIMIT_BODY_BYTES)
                   : err_set(e, -ENOMEM, "while reading a request");
    }
    if (r == HPE_OK) {
        return 0;
    }
    if (r == HPE_INVALID_VERSION && check_version(h, e) < 0) {
        return e->code;
    }
    const char *reason = llhttp_get_error_reason(&h->parser);
    return err_set(e, ERR_BAD_REQUEST, "%s", reason && *reason ? reason : "it is malformed");
}

static int feed_head(struct http *h, const char *p, size_t n, size_t *ret_used, struct err *e)
{
    size_t used, skip;
    int r = framing_head(&h->framing, p, n, &used, &skip, e);
    if (r < 0) {
        return r;
    }
    buf_add(&h->head, p + skip, used - skip);
    if (h->head.failed) {
        return err_set(e, -ENOMEM, "while reading headers");
    }
    *ret_used = used;
    if (r == 0) {
        return HTTP_STEP_MORE;
    }
    /* The whole head at once, so that llhttp's spans point into it. Without a body llhttp also ends
     * the message here. */
    r = run_parser(h, h->head.data, h->head.len, e);
    bool ended = h->phase == PHASE_DONE;
    if (r == 0) {
        r = check_head(h, e);
    }
    if (r < 0) {
        return r;
    }
    if (ended == http_has_body(h) || h->is_chunked != h->is_chunked_for_llhttp) {
        return bad(e, "its length can be read in two ways");
    }
    h->phase = PHASE_BODY;
    framing_begin_chunks(&h->framing);
    return HTTP_STEP_HEAD;
}

static int feed_body(struct http *h, const char *p, size_t n, size_t *ret_used, struct err *e)
{
    size_t used = 0;
    bool ends = true;
    if (h->is_chunked) {
        int r = framing_chunks(&h->framing, p, n, &used, e);
        if (r < 0) {
            /* If llhttp stumbles earlier, its error counts: so the verdict does not depend on how
             * the bytes were cut. */
            struct err first;
            int r2 = used ? run_parser(h, p, used, &first) : 0;
            if (r2 < 0) {
                *e = first;
            }
            return r2 < 0 ? r2 : r;
        }
        ends = r == 1;
    } else if (h->content_length > 0) {
        used = MIN(n, (size_t)h->content_length - h->body.len);
        ends = h->body.len + used == h->content_length;
    }
    if (used) {
        int r = run_parser(h, p, used, e);
        if (r < 0) {
            return r;
        }
        if (ends != (h->phase == PHASE_DONE)) {
            return bad(e, "its length can be read in two ways");
        }
    }
    *ret_used = used;
    if (ends) {
        h->phase = PHASE_DONE;
        return HTTP_STEP_DONE;
    }
    return HTTP_STEP_MORE;
}

int http_feed(struct http *h, const char *p, size_t n, size_t *ret_used, struct err *e)
{
    ASSERT(h->phase != PHASE_DONE);
    return h->phase == PHASE_HEAD ? feed_head(h, p, n, ret_used, e)
                                  : feed_body(h, p, n, ret_used, e);
}
