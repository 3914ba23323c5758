/* Listeners and the list of connections. Runs on the gateway's loop. libuv's own accept is not
 * used: when descriptors run out it opens a file, which the sandbox forbids. */
#include "gateway/server.h"
#include "gateway/crashes.h"
#include "gateway/metrics.h"
#include "shared/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPTS_A_TURN = 64, RESERVED_FILES = 32 };

/* Without a length: the end of the connection ends it. */
static const char full_answer[] =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    "Connection: close\r\n\r\n"
    "{\"error\":{\"message\":\"too many connections\",\"type\":\"server_error\",\"param\":null,"
    "\"code\":\"server_busy\"}}";

void server_mark_dirty(struct server *s, struct conn *c)
{
    if (!c->is_dirty && c->state != CONN_CLOSED) {
        c->is_dirty = true;
        c->next_dirty = s->dirty;
        s->dirty = c;
    }
}

static void check_drained(struct server *s)
{
    if (s->is_draining && !s->is_drained && s->n_active == 0) {
        s->is_drained = true;
        uv_timer_stop(&s->drain);
        s->host.drained(s->host.arg);
    }
}

void server_count_active(struct server *s, int change)
{
    s->n_active += (size_t)change;
    check_drained(s);
}

void server_count_held(struct server *s, int change)
{
    s->n_held += (size_t)change;
    metrics_set(METRIC_HELD, s->n_held);
}

void server_count_body(struct server *s, struct conn *c, size_t n)
{
    s->body_bytes = s->body_bytes - c->n_body_counted + n;
    c->n_body_counted = n;
}

/* What a turn's callbacks produced leaves in one write a connection. Before the loop sleeps and
 * after, so that no dirty connection is freed (which happens at the end of a turn) before it is
 * flushed. */
static void flush_all(struct server *s)
{
    while (s->dirty) {
        struct conn *c = s->dirty;
        s->dirty = c->next_dirty;
        c->is_dirty = false;
        conn_flush(c);
    }
}

static void on_before_sleep(uv_prepare_t *p)
{
    flush_all(p->data);
}

static void on_after_sleep(uv_check_t *p)
{
    flush_all(p->data);
}

static void say_full(int fd)
{
    metrics_add(METRIC_CONNECTIONS_REFUSED, 0, 1);
    ssize_t n = send(fd, full_answer, strlen(full_answer), MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)n; /* a courtesy */
    close(fd);
}

static void on_connection(uv_poll_t *p, int status, int events)
{
    (void)events;
    struct listener *l = p->data;
    struct server *s = l->server;
    if (status < 0) {
        log_error("a listening socket failed: %s", uv_strerror(status));
        uv_poll_stop(p);
        return;
    }
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE) && s->spare_fd >= 0) {
            close(s->spare_fd);
            fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fd >= 0) {
                say_full(fd);
            }
            s->spare_fd = fcntl(l->fd, F_DUPFD_CLOEXEC, 0);
            continue;
        }
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED) {
                continue;
            }
            return; /* EAGAIN: all taken */
        }
        if (s->n_conns >= s->max_conns) {
            say_full(fd);
        } else {
            conn_open(s, fd, l->is_unix);
        }
    }
}

/* ---- the front ---- */

static void *open_server(uv_loop_t *loop, struct link *link, size_t n_files,
                         const struct front_host *host)
{
    struct server *s = base_alloc(sizeof(*s));
    s->loop = loop;
    s->link = link;
    s->host = *host;
    s->max_conns = MIN((size_t)LIMIT_CONNECTIONS,
                       n_files > 2 * RESERVED_FILES ? n_files - RESERVED_FILES : n_files / 2);
    s->spare_fd = eventfd(0, EFD_CLOEXEC);
    uv_prepare_init(loop, &s->before_sleep);
    uv_check_init(loop, &s->after_sleep);
    s->before_sleep.data = s->after_sleep.data = s;
    uv_prepare_start(&s->before_sleep, on_before_sleep);
    uv_check_start(&s->after_sleep, on_after_sleep);
    uv_timer_init(loop, &s->drain);
    s->drain.data = s;
    /* libuv opens a file with the first stream of a loop; it must be before the sandbox. */
    uv_pipe_t *first = base_alloc(sizeof(*first));
    uv_pipe_init(loop, first, 0);
    uv_close((uv_handle_t *)first, (uv_close_cb)free);
    return s;
}

static void stop_listening(struct server *s)
{
    for (size_t i = 0; i < s->n_listeners; i++) {
        uv_poll_stop(&s->listeners[i].poll);
        if (s->listeners[i].fd >= 0) {
            close(s->listeners[i].fd);
            s->listeners[i].fd = -1;
        }
    }
}

static int configure(void *front, const struct config *c, int key_fd, struct err *e)
{
    struct server *s = front;
    struct buf text;
    struct config copy;
    static struct auth auth;
    auth = (struct auth){0};
    if (*c->v[CONFIG_api_key_file].str) {
        if (key_fd < 0) {
            return err_set(e, ERR_CONFIG, "'api_key_file' is set, but the file was not passed");
        }
        int rc = auth_read(key_fd, &auth, e);
        if (rc < 0) {
            return rc;
        }
    }
    buf_init(&text, 0);
    config_encode(c, &text);
    config_init(&copy);
    int rc = config_decode(&copy, text.data, text.len, e);
    buf_finish(&text);
    if (rc < 0) {
        config_finish(&copy);
        return rc;
    }
    if (s->has_config) {
        config_finish(&s->config);
    }
    s->config = copy;
    s->has_config = true;
    s->auth = auth;
    s->link->resume_ms = (uint64_t)(copy.v[CONFIG_resume_timeout].num * 1000);
    return 0;
}

static int listen_on(void *front, int *fds, size_t n_tcp, size_t n_unix, struct err *e)
{
    struct server *s = front;
    if (n_tcp + n_unix > SERVER_LISTENERS || !s->has_config) {
        return err_set(e, ERR_PROTOCOL, "LISTEN with too many sockets, or before CONFIG");
    }
    for (size_t i = 0; i < n_tcp + n_unix; i++) {
        struct listener *l = &s->listeners[i];
        *l = (struct listener){.fd = fds[i], .is_unix = i >= n_tcp, .server = s};
        int flags = fcntl(fds[i], F_GETFL);
        if (flags < 0 || fcntl(fds[i], F_SETFL, flags | O_NONBLOCK) < 0 ||
            listen(fds[i], SOMAXCONN) < 0) {
            return err_set(e, -errno, "listening");
        }
        int rc = uv_poll_init(s->loop, &l->poll, fds[i]);
        l->poll.data = l;
        if (rc == 0) {
            s->n_listeners++;
            fds[i] = -1;
            rc = uv_poll_start(&l->poll, UV_READABLE, on_connection);
        }
        if (rc < 0) {
            return err_set(e, rc, "listening");
        }
    }
    return 0;
}

static void worker_changed(void *front)
{
    struct server *s = front;
    for (struct conn *c = s->conns, *next; c && s->n_held > 0; c = next) {
        next = c->next;
        exchange_reconsider(&c->x);
    }
}

static void on_drain_deadline(uv_timer_t *t)
{
    struct server *s = t->data;
    struct err e;
    err_set(&e, ERR_DRAINING, "the time for running requests is over");
    for (struct conn *c = s->conns, *next; c; c = next) {
        next = c->next;
        if (c->x.ops) {
            c->x.ops->fail(c->x.work, &e);
        } else if (c->x.is_held) {
            exchange_error(&c->x, &e, NULL);
        } else if (c->x.is_active) {
            conn_close(c);
        }
    }
}

static void drain(void *front, uint64_t deadline_ms)
{
    struct server *s = front;
    if (s->is_draining) {
        return;
    }
    s->is_draining = true;
    stop_listening(s);
    for (struct conn *c = s->conns, *next; c; c = next) {
        next = c->next;
        conn_retire(c);
    }
    uv_timer_start(&s->drain, on_drain_deadline, deadline_ms, 0);
    check_drained(s);
}

static void on_handle_closed(uv_handle_t *h)
{
    struct server *s = h->data;
    if (--s->n_handles == 0) {
        free(s);
    }
}

static void close_handle(struct server *s, uv_handle_t *h)
{
    s->n_handles++;
    h->data = s;
    uv_close(h, on_handle_closed);
}

static void close_server(void *front)
{
    struct server *s = front;
    stop_listening(s);
    while (s->conns) {
        conn_close(s->conns);
    }
    s->dirty = NULL;
    for (size_t i = 0; i < s->n_listeners; i++) {
        close_handle(s, (uv_handle_t *)&s->listeners[i].poll);
    }
    if (s->spare_fd >= 0) {
        close(s->spare_fd);
    }
    if (s->has_config) {
        config_finish(&s->config);
    }
    close_handle(s, (uv_handle_t *)&s->before_sleep);
    close_handle(s, (uv_handle_t *)&s->after_sleep);
    close_handle(s, (uv_handle_t *)&s->drain);
}

const struct front server_front = {
    .role = "gateway",
    .open = open_server,
    .close = close_server,
    .configure = configure,
    .listen = listen_on,
    .worker_changed = worker_changed,
    .drain = drain,
    .told = crashes_told,
};
