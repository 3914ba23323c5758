/* Requests to handlers, answers to bytes. Runs on the gateway's loop. Invariant: an exchange gets
 * exactly one answer, whose head is decided once. */
#include "gateway/exchange.h"
#include "gateway/metrics.h"
#include "gateway/origin.h"
#include "gateway/server.h"
#include "gateway/sse.h"
#include "shared/clock.h"
#include "shared/json.h"
#include "shared/log.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- before the handler ---- */

static int check_key(const struct exchange *x, struct err *e)
{
    const struct auth *a = &x->server->auth;
    size_t n;
    bool needs_admin = (x->route->flags & ROUTE_ADMIN) && !x->conn->is_unix;
    if ((!a->is_on && !needs_admin) || (x->route->flags & ROUTE_PUBLIC)) {
        return 0;
    }
    const char *header = http_find(x->http, "authorization", &n);
    const char *key = header ? auth_bearer(header, n, &n) : http_find(x->http, "x-api-key", &n);
    enum auth_verdict v = key ? auth_check(a, key, n) : AUTH_UNKNOWN;
    if (needs_admin && (v == AUTH_USER || !a->is_on)) {
        return err_set(e, ERR_ADMIN_ONLY, "%s", x->route->path);
    }
    return v != AUTH_UNKNOWN
               ? 0
               : err_set(e, ERR_UNAUTHORIZED, "%s", key ? "this key is not known" : "no key came");
}

static unsigned method_bit(const struct http *h)
{
    return h->method == HTTP_GET || h->method == HTTP_HEAD ? ROUTE_GET
           : h->method == HTTP_POST                        ? ROUTE_POST
           : h->method == HTTP_DELETE                      ? ROUTE_DELETE
                                                           : 0;
}

static const char *allowed(const struct route *r)
{
    return !r                          ? "GET, HEAD, POST, OPTIONS"
           : r->methods & ROUTE_DELETE ? "GET, HEAD, DELETE, OPTIONS"
           : r->methods & ROUTE_POST   ? "POST, OPTIONS"
                                       : "GET, HEAD, OPTIONS";
}

int exchange_judge(struct exchange *x, struct err *e)
{
    const struct http *h = x->http;
    const struct server *s = x->server;
    const char *head = h->head.data;
    x->route = route_find(head + h->path, h->n_path);
    /* A Unix socket cannot be rebound by DNS, and HTTP/1.0 may name no host. */
    if (!x->conn->is_unix && h->n_host > 0 &&
        !origin_host_ok(&s->config.v[CONFIG_allowed_host].list, head + h->host, h->n_host)) {
        return err_set(e, ERR_BAD_HOST, "the Host is not one of this server's names");
    }
    size_t n_origin;
    const char *origin = http_find(h, "origin", &n_origin);
    enum origin_verdict v = origin_judge(&s->config.v[CONFIG_cors_origin].list, head + h->host,
                                         h->n_host, origin, n_origin);
    if (v == ORIGIN_REFUSED) {
        return err_set(e, ERR_BAD_HOST, "the Origin is not allowed; --cors-origin allows one");
    }
    x->is_cross_origin = v == ORIGIN_CROSS;
    if (h->method == HTTP_OPTIONS) {
        return 0;
    }
    if (!x->route) {
        return err_set(e, ERR_NOT_FOUND, "%.*s", (int)MIN(h->n_path, 200u), head + h->path);
    }
    if (!(x->route->methods & method_bit(h))) {
        return err_set(e, ERR_METHOD, "%s takes %s", x->route->path,
                       x->route->methods & ROUTE_DELETE ? "GET and DELETE"
                       : x->route->methods & ROUTE_POST ? "POST"
                                                        : "GET");
    }
    if (s->is_draining && !(x->route->flags & ROUTE_PUBLIC)) {
        return err_set(e, ERR_DRAINING, "requests under way are being finished");
    }
    return check_key(x, e);
}

/* CORS preflight and plain OPTIONS. Any header may be asked for: SDKs send many of their own, and
 * the origin was allowed by name. */
static void answer_options(struct exchange *x)
{
    char extra[1024];
    const char *methods = allowed(x->route);
    size_t n;
    const char *wanted = http_find(x->http, "access-control-request-headers", &n);
    if (x->is_cross_origin) {
        n = wanted && n < 512 ? n : 0;
        snprintf(extra, sizeof(extra),
                 "Access-Control-Allow-Methods: %s\r\n%s%.*s%sAccess-Control-Max-Age: 600\r\n",
                 methods, n ? "Access-Control-Allow-Headers: " : "", (int)n, wanted,
                 n ? "\r\n" : "");
    } else {
        snprintf(extra, sizeof(extra), "Allow: %s\r\n", methods);
    }
    exchange_reply(x, 204, NULL, NULL, 0, extra);
}

static void on_hold_timeout(uv_timer_t *t);

static void set_held(struct exchange *x, bool held)
{
    if (x->is_held != held) {
        x->is_held = held;
        server_count_held(x->server, held ? 1 : -1);
        if (!held) {
            uv_timer_stop(&x->timer);
        }
    }
}

/* Says 503 with the best guess of when to come back. */
static void answer_unavailable(struct exchange *x, const struct link_status *st)
{
    struct err e;
    if (st->state == LINK_DOWN) {
        /* What the supervisor said, if it is a passing state; a worker that cannot load its model
         * is down for the client. */
        int code = err_http(st->err) == 503 ? st->err : ERR_WORKER_DOWN;
        err_set(&e, code, "%s", st->detail);
    } else {
        err_set(&e, ERR_LOADING, "%s", st->state == LINK_STARTING ? "the worker is starting" : "");
    }
    exchange_error(x, &e, NULL);
}

/* Runs the handler, waits for a worker that is expected soon, or says that there is none. */
static void gate(struct exchange *x)
{
    struct link_status st;
    link_status(x->server->link, &st);
    bool needs = (x->route->flags & ROUTE_NEEDS_WORKER) ||
                 ((x->route->flags & ROUTE_NEEDS_MODELS) && x->server->link->n_models_known == 0);
    if (!needs || st.state == LINK_READY) {
        set_held(x, false);
        x->route->handler(x);
        return;
    }
    if (!st.is_expected || st.retry_after_ms > LIMIT_HOLD_MS) {
        set_held(x, false);
        answer_unavailable(x, &st);
    } else if (!x->is_held) {
        set_held(x, true);
        uv_timer_start(&x->timer, on_hold_timeout, LIMIT_HOLD_MS, 0);
    }
}

static void on_hold_timeout(uv_timer_t *t)
{
    struct exchange *x = t->data;
    struct link_status st;
    link_status(x->server->link, &st);
    set_held(x, false);
    answer_unavailable(x, &st);
}

void exchange_reconsider(struct exchange *x)
{
    if (x->is_held) {
        gate(x);
    }
}

void exchange_run(struct exchange *x)
{
    x->begin_ns = clock_ns();
    if (x->http->method == HTTP_OPTIONS) {
        answer_options(x);
    } else {
        gate(x);
    }
}

static void on_silence(uv_timer_t *t)
{
    struct exchange *x = t->data;
    if (x->ops->silence) {
        x->ops->silence(x->work);
    }
}

void exchange_leave_work(struct exchange *x, const struct exchange_work *ops, void *work)
{
    x->ops = ops;
    x->work = work;
    buf_finish(&x->http->body); /* it has been read, and an answer may take minutes */
    server_count_body(x->server, x->conn, 0);
    uv_timer_start(&x->timer, on_silence, LIMIT_KEEPALIVE_MS, LIMIT_KEEPALIVE_MS);
}

/* ---- answers ---- */

static const char *reason(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 204:
        return "No Content";
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 408:
        return "Request Timeout";
    case 413:
        return "Content Too Large";
    case 414:
        return "URI Too Long";
    case 417:
        return "Expectation Failed";
    case 429:
        return "Too Many Requests";
    case 431:
        return "Request Header Fields Too Large";
    case 500:
        return "Internal Server Error";
    case 503:
        return "Service Unavailable";
    case 505:
        return "HTTP Version Not Supported";
    default:
        return "Error";
    }
}

/* Names are fixed in HTTP, whatever the locale. */
static void put_date(struct buf *b)
{
    static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t now = (time_t)clock_unix_s();
    struct tm t;
    gmtime_r(&now, &t);
    buf_printf(b, "Date: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n", days[t.tm_wday], t.tm_mday,
               months[t.tm_mon], t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
}

/* Up to and without the empty line. */
static void put_head(struct exchange *x, struct buf *b, int status, const char *type)
{
    x->status = status;
    buf_printf(b, "HTTP/1.1 %d %s\r\n", status, reason(status));
    put_date(b);
    buf_str(b, "Server: rocmforge\r\n");
    if (type) {
        buf_printf(b, "Content-Type: %s\r\n", type);
    }
    if (x->is_cross_origin) {
        size_t n;
        const char *origin = http_find(x->http, "origin", &n);
        buf_printf(b, "Access-Control-Allow-Origin: %.*s\r\nVary: Origin\r\n", (int)n,
                   origin ? origin : "");
    }
    buf_printf(b, "Connection: %s\r\n", x->is_keep_alive ? "keep-alive" : "close");
}

/* The exchange is over: counts, logs, and lets the connection go on. */
static void finish(struct exchange *x)
{
    enum route_id id = x->route ? x->route->id : ROUTE_NONE;
    double seconds = x->begin_ns ? (double)(clock_ns() - x->begin_ns) * 1e-9 : 0;
    metrics_add(METRIC_REQUESTS, id, 1);
    metrics_add(METRIC_RESPONSES, metrics_status(x->status), 1);
    metrics_observe(METRIC_REQUEST_SECONDS, id, seconds);
    bool is_probe = x->route && (x->route->flags & ROUTE_PUBLIC);
    log_event(is_probe ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO, "%s %d in %.1f ms", route_path(id),
              x->status, seconds * 1e3);
    set_held(x, false);
    uv_timer_stop(&x->timer);
    x->ops = NULL;
    x->work = NULL;
    conn_next(x->conn, x->is_keep_alive);
}

void exchange_reply(struct exchange *x, int status, const char *type, const char *body, size_t n,
                    const char *extra)
{
    ASSERT(x->is_active && x->status == 0);
    struct buf b;
    buf_init(&b, 0);
    put_head(x, &b, status, type);
    buf_str(&b, extra ? extra : "");
    if (status != 204) {
        buf_printf(&b, "Content-Length: %zu\r\n", n);
    }
    buf_str(&b, "\r\n");
    if (x->http->method != HTTP_HEAD && n) {
        buf_add(&b, body, n);
    }
    if (b.failed) {
        conn_fail(x->conn);
    } else {
        conn_send(x->conn, b.data, b.len);
    }
    buf_finish(&b);
    finish(x);
}

void exchange_put_error(struct buf *b, const struct err *e, const char *param)
{
    char text[ERR_DETAIL_BYTES + 256];
    err_format(e, text, sizeof(text));
    buf_str(b, "{\"error\":{\"message\":");
    json_put_string(b, text, strlen(text));
    buf_printf(b, ",\"type\":\"%s\",\"param\":", err_type(e->code));
    if (param && *param) {
        json_put_string(b, param, strlen(param));
    } else {
        buf_str(b, "null");
    }
    buf_printf(b, ",\"code\":\"%s\"}}", err_code(e->code));
}

/* Anthropic's words for types of errors. */
static const char *named_type(int code)
{
    int status = err_http(code);
    return status == 404   ? "not_found_error"
           : status == 503 ? "overloaded_error"
           : status >= 500 ? "api_error"
                           : err_type(code);
}

void exchange_put_named_error(struct buf *b, const struct err *e)
{
    char text[ERR_DETAIL_BYTES + 256];
    err_format(e, text, sizeof(text));
    buf_printf(b,
               "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":", named_type(e->code));
    json_put_string(b, text, strlen(text));
    buf_printf(b, ",\"code\":\"%s\"}}", err_code(e->code));
}

/* When to come back. The SDKs ignore more than 60 s (and retry 500 unless told not to). */
static void retry_headers(const struct exchange *x, int code, char *out, size_t bytes)
{
    int status = err_http(code);
    *out = 0;
    if (code == ERR_POISON) {
        snprintf(out, bytes, "x-should-retry: false\r\n");
    } else if (status == 503 || status == 429) {
        struct link_status st;
        link_status(x->server->link, &st);
        uint32_t ms = st.retry_after_ms ? st.retry_after_ms : status == 429 ? 1000 : 2000;
        ms = MIN(MAX(ms, 100u), 59000u);
        snprintf(out, bytes, "Retry-After: %u\r\nretry-after-ms: %u\r\nx-should-retry: true\r\n",
                 (ms + 999) / 1000, ms);
    }
}

void exchange_error(struct exchange *x, const struct err *e, const char *param)
{
    char extra[256];
    retry_headers(x, e->code, extra, sizeof(extra));
    if (e->code == ERR_METHOD) {
        snprintf(extra, sizeof(extra), "Allow: %s\r\n", allowed(x->route));
    } else if (e->code == ERR_UNAUTHORIZED) {
        snprintf(extra, sizeof(extra), "WWW-Authenticate: Bearer\r\n");
    }
    if (err_http(e->code) == 500) {
        log_warn("%s: %s: %s", err_code(e->code), err_text(e->code), e->detail);
    }
    struct buf b;
    buf_init(&b, 0);
    if (x->route && x->route->id == ROUTE_MESSAGES) {
        exchange_put_named_error(&b, e);
    } else {
        exchange_put_error(&b, e, param);
    }
    exchange_reply(x, err_http(e->code), "application/json", b.data, b.failed ? 0 : b.len, extra);
    buf_finish(&b);
}

void exchange_stream_begin(struct exchange *x)
{
    ASSERT(x->is_active && x->status == 0);
    struct buf b;
    buf_init(&b, 0);
    x->is_stream = true;
    x->is_chunked = !x->http->is_1_0; /* HTTP/1.0: the end of the connection ends it */
    put_head(x, &b, 200, "text/event-stream");
    buf_str(&b, "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n");
    buf_str(&b, x->is_chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
    if (b.failed) {
        conn_fail(x->conn);
    } else {
        conn_send(x->conn, b.data, b.len);
    }
    buf_finish(&b);
}

void exchange_stream(struct exchange *x, const char *data, size_t n)
{
    if (!data) {
        conn_fail(x->conn);
        return;
    }
    if (x->is_chunked) {
        char size[24];
        int len = snprintf(size, sizeof(size), "%zx\r\n", n);
        conn_send(x->conn, size, (size_t)len);
    }
    conn_send(x->conn, data, n);
    if (x->is_chunked) {
        conn_send(x->conn, "\r\n", 2);
    }
    uv_timer_again(&x->timer);
}

void exchange_stream_end(struct exchange *x)
{
    if (x->is_chunked) {
        conn_send(x->conn, "0\r\n\r\n", 5);
    }
    finish(x);
}

bool exchange_probe(struct exchange *x)
{
    static const char interim[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (x->is_stream) {
        exchange_stream(x, SSE_COMMENT, strlen(SSE_COMMENT));
        return true;
    }
    if (x->http->is_1_0) {
        return false;
    }
    conn_send(x->conn, interim, strlen(interim));
    return true;
}
