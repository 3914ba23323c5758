/* Client connections (see conn.h). Runs on the gateway's loop. Invariants: bytes are parsed only
 * between exchanges, so a pipelined request never overtakes; memory per connection is bounded by
 * the limits of head, body and read-ahead, and by back-pressure on streams. */
#include "gateway/conn.h"
#include "gateway/ask.h"
#include "gateway/metrics.h"
#include "gateway/server.h"
#include "shared/clock.h"
#include "shared/log.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_AHEAD_BYTES = 64 * 1024, /* of pipelined requests */
    NOTSENT_BYTES = 16 * 1024, /* in the kernel: so that our count of unsent bytes is the truth */
    /* Unsent bytes of one stream, whatever the worker does. Far above LIMIT_STREAM_BUFFER_BYTES,
     * for a fast worker can fill a whole ring with one stream before it sees PAUSE. */
    FLOOD_BYTES = 16 * 1024 * 1024,
    KEEP_BYTES = 16 * 1024, /* memory that an idle buffer may hold */
    TICK_MS = 1000,
    LINGER_MS = 2000,
};
/* After the end of the client's input, while an answer is computed: waits between probes. */
static const uint64_t probe_ms[] = {10, 100, 1000};

static void on_tick(uv_timer_t *t);
static void feed(struct conn *c, const char *p, size_t n);
static void refuse(struct conn *c, const struct err *e);
static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b);

/* ---- life ---- */

static void on_handle_closed(uv_handle_t *h)
{
    struct conn *c = h->data;
    if (--c->n_handles == 0) {
        http_finish(&c->http);
        buf_finish(&c->pending);
        buf_finish(&c->out);
        buf_finish(&c->sending);
        free(c);
    }
}

static void on_timer_closed(uv_handle_t *h)
{
    struct exchange *x = h->data;
    h->data = x->conn;
    on_handle_closed(h);
}

void conn_close(struct conn *c)
{
    struct server *s = c->server;
    if (c->state == CONN_CLOSED) {
        return;
    }
    c->state = CONN_CLOSED;
    if (c->x.is_held) {
        c->x.is_held = false;
        server_count_held(s, -1);
    }
    if (c->x.ops) {
        c->x.ops->gone(c->x.work);
        c->x.ops = NULL;
    }
    if (c->x.is_active) {
        c->x.is_active = false;
        server_count_active(s, -1);
    }
    server_count_body(s, c, 0);
    *c->at = c->next;
    if (c->next) {
        c->next->at = c->at;
    }
    s->n_conns--;
    metrics_set(METRIC_CONNECTIONS_OPEN, s->n_conns);
    uv_close(&c->io.handle, on_handle_closed);
    uv_close((uv_handle_t *)&c->timer, on_handle_closed);
    uv_close((uv_handle_t *)&c->x.timer, on_timer_closed);
}

/* Time is over; but after a sleep of this process timers come before what lies in the socket, so
 * that gets one turn of the loop, which restarts the timer where it was the request. */
static bool has_last_turn(struct conn *c, uv_timer_cb on_timeout)
{
    c->had_last_turn = !c->had_last_turn;
    if (c->had_last_turn) {
        uv_timer_start(&c->timer, on_timeout, 1, 0);
    }
    return c->had_last_turn;
}

static void on_idle_timeout(uv_timer_t *t)
{
    struct conn *c = t->data;
    if (!has_last_turn(c, on_idle_timeout)) {
        conn_close(c);
    }
}

static void on_late(uv_timer_t *t)
{
    struct conn *c = t->data;
    struct err e;
    if (has_last_turn(c, on_late)) {
        return;
    }
    if (c->state == CONN_WAIT) { /* a connection that never asked */
        conn_close(c);
        return;
    }
    bool is_head = c->state == CONN_HEAD;
    err_set(&e, ERR_TIMEOUT, "the %s took longer than %d s", is_head ? "headers" : "body",
            (is_head ? LIMIT_HEADER_TIMEOUT_MS : LIMIT_BODY_TIMEOUT_MS) / 1000);
    refuse(c, &e);
}

static void enter(struct conn *c, enum conn_state state)
{
    c->state = state;
    c->had_last_turn = false;
    switch (state) {
    case CONN_HEAD:
        uv_timer_start(&c->timer, on_late, LIMIT_HEADER_TIMEOUT_MS, 0);
        break;
    case CONN_BODY:
        uv_timer_start(&c->timer, on_late, LIMIT_BODY_TIMEOUT_MS, 0);
        break;
    case CONN_WAIT:
        uv_timer_start(&c->timer, on_idle_timeout, LIMIT_IDLE_TIMEOUT_MS, 0);
        break;
    case CONN_LINGER:
        uv_timer_start(&c->timer, on_idle_timeout, LINGER_MS, 0);
        break;
    default:
        uv_timer_stop(&c->timer);
        if (c->is_writing) {
            uv_timer_start(&c->timer, on_tick, TICK_MS, TICK_MS);
        }
    }
}

static void on_alloc(uv_handle_t *h, size_t wanted, uv_buf_t *ret)
{
    (void)wanted;
    struct conn *c = h->data;
    *ret = uv_buf_init(c->server->read_buffer, sizeof(c->server->read_buffer));
}

static void start_reading(struct conn *c)
{
    if (!c->is_reading && !c->is_eof) {
        c->is_reading = uv_read_start(&c->io.stream, on_alloc, on_read) == 0;
    }
}

/* ---- bytes out ---- */

static size_t unsent(const struct conn *c)
{
    return c->out.len + (c->is_writing ? uv_stream_get_write_queue_size(&c->io.stream) : 0);
}

/* Tells the work when its reader falls behind and when it has caught up. */
static void update_pressure(struct conn *c)
{
    size_t n = unsent(c);
    if (!c->x.is_stream || !c->x.ops) {
        return;
    }
    bool was_full = c->is_full;
    if (!was_full && n > LIMIT_STREAM_BUFFER_BYTES) {
        c->is_full = true;
        metrics_add(METRIC_PAUSES, 0, 1);
    } else if (was_full && n < LIMIT_STREAM_BUFFER_BYTES / 2) {
        c->is_full = false;
    }
    if (c->is_full != was_full && c->x.ops->pressure) {
        c->x.ops->pressure(c->x.work, c->is_full);
    }
}

void conn_send(struct conn *c, const void *data, size_t n)
{
    if (c->state == CONN_CLOSED) {
        return;
    }
    buf_add(&c->out, data, n);
    server_mark_dirty(c->server, c);
}

void conn_fail(struct conn *c)
{
    c->out.failed = true;
    server_mark_dirty(c->server, c);
}

static void on_shutdown(uv_shutdown_t *r, int status)
{
    struct conn *c = r->handle->data;
    if (status < 0) {
        conn_close(c);
    }
}

/* Everything was sent and the connection is to end. */
static void linger(struct conn *c)
{
    if (c->is_eof || uv_shutdown(&c->shutdown, &c->io.stream, on_shutdown) < 0) {
        conn_close(c);
        return;
    }
    enter(c, CONN_LINGER);
    start_reading(c);
}

static void on_written(uv_write_t *w, int status)
{
    struct conn *c = w->data;
    c->is_writing = false;
    if (c->sending.cap > KEEP_BYTES) {
        buf_finish(&c->sending);
    }
    buf_clear(&c->sending);
    if (c->state == CONN_CLOSED) {
        return;
    }
    if (status < 0) {
        conn_close(c);
        return;
    }
    if (c->state == CONN_WAIT) {
        enter(c, CONN_WAIT); /* it idles from now on */
    }
    server_mark_dirty(c->server, c);
}

/* Moves `out` to the kernel as far as it takes it. False: the connection is closed. */
static bool write_out(struct conn *c)
{
    uv_buf_t b = uv_buf_init(c->out.data, (unsigned)c->out.len);
    int n = uv_try_write(&c->io.stream, &b, 1);
    if (n < 0 && n != UV_EAGAIN) {
        conn_close(c);
        return false;
    }
    size_t sent = n > 0 ? (size_t)n : 0;
    if (sent < c->out.len) {
        struct buf empty = c->sending;
        c->sending = c->out;
        c->out = empty;
        b = uv_buf_init(c->sending.data + sent, (unsigned)(c->sending.len - sent));
        c->write.data = c;
        if (uv_write(&c->write, &c->io.stream, &b, 1, on_written) < 0) {
            conn_close(c);
            return false;
        }
        c->is_writing = true;
        c->last_unsent = unsent(c);
        c->progress_ms = clock_ms();
        if (c->state != CONN_HEAD && c->state != CONN_BODY) { /* these have a clock of their own */
            uv_timer_start(&c->timer, on_tick, TICK_MS, TICK_MS);
        }
    } else if (c->out.cap > KEEP_BYTES) {
        buf_finish(&c->out);
    }
    buf_clear(&c->out);
    return true;
}

void conn_flush(struct conn *c)
{
    if (c->state == CONN_CLOSED) {
        return;
    }
    if (c->out.failed || (c->x.is_stream && unsent(c) > FLOOD_BYTES)) {
        log_warn("a connection is closed: %s", c->out.failed ? "there is no memory for its answer"
                                                             : "its stream outgrew what may wait");
        conn_close(c);
        return;
    }
    if (!c->is_writing && c->out.len && !write_out(c)) {
        return;
    }
    update_pressure(c);
    if (c->is_writing || c->out.len) {
        return;
    }
    if (c->closes) {
        linger(c);
        return;
    }
    if (c->state == CONN_WAIT && c->pending.len) {
        struct buf ahead = c->pending;
        buf_init(&c->pending, 0);
        feed(c, ahead.data, ahead.len);
        buf_finish(&ahead);
    }
    if (c->is_eof && c->state <= CONN_BODY && c->out.len == 0) {
        conn_close(c); /* nothing more can come of it */
    }
}

/* Is an answer awaited from the worker, or a worker? */
static bool is_computing(const struct conn *c)
{
    return c->x.ops || c->x.is_held;
}

/* Does the client take bytes? */
static void check_progress(struct conn *c)
{
    size_t n = uv_stream_get_write_queue_size(&c->io.stream);
    uint64_t now = clock_ms();
    if (n < c->last_unsent) {
        c->progress_ms = now;
    }
    c->last_unsent = n;
    if (now - c->progress_ms >= LIMIT_SLOW_READER_MS) {
        log_info("a client took nothing for %d s, with %zu bytes waiting; closed",
                 LIMIT_SLOW_READER_MS / 1000, unsent(c));
        /* By a reset: an orderly end would wait in the kernel behind the unread bytes. */
        const struct linger none = {.l_onoff = 1, .l_linger = 0};
        uv_os_fd_t fd;
        if (uv_fileno(&c->io.handle, &fd) == 0) {
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
        }
        conn_close(c);
    }
}

/* Every second while bytes are waiting; and, after the end of the client's input, to find out
 * whether it is still there. */
static void on_tick(uv_timer_t *t)
{
    struct conn *c = t->data;
    if (c->is_writing) {
        check_progress(c);
    } else if (!c->is_eof || !is_computing(c) || c->n_probes == COUNT_OF(probe_ms)) {
        uv_timer_stop(t);
    } else if (exchange_probe(&c->x)) {
        uv_timer_start(t, on_tick, probe_ms[c->n_probes++], 0);
    } else {
        conn_close(c);
    }
}

/* ---- bytes in ---- */

static void begin_exchange(struct conn *c)
{
    c->x.is_active = true;
    c->x.is_keep_alive = c->http.is_keep_alive && !c->closes && !c->server->is_draining;
    server_count_active(c->server, 1);
    enter(c, CONN_ANSWER);
}

static void refuse(struct conn *c, const struct err *e)
{
    begin_exchange(c);
    c->x.is_keep_alive = false;
    exchange_error(&c->x, e, NULL);
}

/* The head is there. False: it was answered already and the connection ends. */
static bool take_head(struct conn *c, bool has_more)
{
    struct err e;
    int rc = exchange_judge(&c->x, &e);
    bool has_body = http_has_body(&c->http);
    if (rc < 0 && has_body) {
        refuse(c, &e); /* without reading a body that nobody wants */
        return false;
    }
    if (rc < 0) {
        size_t used;
        rc = http_feed(&c->http, NULL, 0, &used, &(struct err){0});
        ASSERT(rc == HTTP_STEP_DONE);
        begin_exchange(c);
        exchange_error(&c->x, &e, NULL);
        return c->state != CONN_CLOSED;
    }
    enter(c, CONN_BODY);
    if (c->http.wants_continue && !has_more) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        conn_send(c, go_on, strlen(go_on));
    }
    return true;
}

/* One step of the parser; returns how many bytes it took. */
static size_t step(struct conn *c, const char *p, size_t n)
{
    struct err e;
    size_t used = 0;
    int rc = http_feed(&c->http, p, n, &used, &e);
    if (rc < 0) {
        refuse(c, &e);
        return n;
    }
    if (c->state == CONN_WAIT && http_is_begun(&c->http)) {
        enter(c, CONN_HEAD);
    }
    if (rc == HTTP_STEP_HEAD) {
        if (!take_head(c, used < n)) {
            return n;
        }
        if (c->state == CONN_BODY && !http_has_body(&c->http)) {
            size_t none;
            rc = http_feed(&c->http, NULL, 0, &none, &e);
        }
    }
    if (c->state == CONN_BODY) {
        server_count_body(c->server, c, c->http.body.len);
        if (c->server->body_bytes + ask_pending_bytes() > LIMIT_BODIES_BYTES) {
            err_set(&e, ERR_BUSY, "the request bodies in memory are at their limit");
            refuse(c, &e);
            return n;
        }
        if (rc == HTTP_STEP_DONE) {
            begin_exchange(c);
            exchange_run(&c->x);
        }
    }
    return used;
}

/* Keeps bytes whose turn has not come. */
static void read_ahead(struct conn *c, const char *p, size_t n)
{
    buf_add(&c->pending, p, n);
    if (c->pending.failed) {
        conn_fail(c);
    } else if (c->pending.len > READ_AHEAD_BYTES && c->is_reading) {
        uv_read_stop(&c->io.stream); /* until the answer is done */
        c->is_reading = false;
    }
}

/* A request begins only when the one before has been answered and the answer has left. */
static bool may_parse(const struct conn *c)
{
    return !c->closes && (c->state == CONN_WAIT ? !c->is_writing : c->state <= CONN_BODY);
}

static void feed(struct conn *c, const char *p, size_t n)
{
    while (n > 0 && may_parse(c)) {
        size_t used = step(c, p, n);
        p += used;
        n -= used;
    }
    if (n > 0 && !c->closes && c->state <= CONN_ANSWER) {
        read_ahead(c, p, n);
    }
}

static void on_eof(struct conn *c)
{
    c->is_eof = true;
    if (c->state <= CONN_BODY && !c->is_writing && c->out.len == 0 && c->pending.len == 0) {
        conn_close(c);
        return;
    }
    /* Gone, or only done with sending (half-close)? What we send tells. While bytes are waiting,
     * libuv watches the connection and sees a reset by itself. */
    if (is_computing(c) && !c->is_writing) {
        uv_timer_start(&c->timer, on_tick, 0, 0);
    }
    server_mark_dirty(c->server, c);
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
    struct conn *c = h->data;
    if (n == UV_EOF) {
        on_eof(c);
    } else if (n < 0) {
        conn_close(c);
    } else if (n > 0 && c->state != CONN_LINGER) {
        if (c->pending.len) {
            read_ahead(c, b->base, (size_t)n);
        } else {
            feed(c, b->base, (size_t)n);
        }
    }
}

void conn_next(struct conn *c, bool keep_alive)
{
    struct exchange *x = &c->x;
    x->is_active = x->is_stream = x->is_chunked = x->is_cross_origin = false;
    x->status = 0;
    x->route = NULL;
    x->begin_ns = 0;
    c->is_full = false;
    c->n_probes = 0;
    server_count_active(c->server, -1);
    server_count_body(c->server, c, 0);
    http_next(&c->http);
    server_mark_dirty(c->server, c);
    if (!keep_alive || c->server->is_draining) {
        c->closes = true;
        buf_finish(&c->pending);
        return;
    }
    enter(c, CONN_WAIT);
    start_reading(c);
}

void conn_retire(struct conn *c)
{
    if (c->state > CONN_HEAD) {
        return;
    }
    if (c->is_writing || c->out.len) {
        c->closes = true;
    } else {
        conn_close(c);
    }
}

void conn_open(struct server *s, int fd, bool is_unix)
{
    struct conn *c = calloc(1, sizeof(*c));
    if (!c) {
        close(fd);
        return;
    }
    c->server = s;
    c->is_unix = is_unix;
    c->n_handles = 3;
    http_init(&c->http);
    c->x.conn = c;
    c->x.server = s;
    c->x.http = &c->http;
    uv_timer_init(s->loop, &c->timer);
    uv_timer_init(s->loop, &c->x.timer);
    int rc;
    if (is_unix) {
        uv_pipe_init(s->loop, &c->io.pipe, 0);
        rc = uv_pipe_open(&c->io.pipe, fd);
    } else {
        uv_tcp_init(s->loop, &c->io.tcp);
        rc = uv_tcp_open(&c->io.tcp, fd);
        const int yes = 1, notsent = NOTSENT_BYTES;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
        setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &notsent, sizeof(notsent));
    }
    c->io.handle.data = c->timer.data = c;
    c->x.timer.data = &c->x;
    c->next = s->conns;
    c->at = &s->conns;
    if (c->next) {
        c->next->at = &c->next;
    }
    s->conns = c;
    s->n_conns++;
    metrics_add(METRIC_CONNECTIONS, 0, 1);
    metrics_set(METRIC_CONNECTIONS_OPEN, s->n_conns);
    if (rc < 0) {
        close(fd); /* libuv took nothing */
    } else {
        start_reading(c);
    }
    if (!c->is_reading) {
        conn_close(c);
        return;
    }
    /* A fresh connection gets the time of a head, not that of an idle one. */
    uv_timer_start(&c->timer, on_late, LIMIT_HEADER_TIMEOUT_MS, 0);
}
