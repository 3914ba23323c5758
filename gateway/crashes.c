/* Questions about crash reports (see crashes.h). Runs on the gateway's loop, blocks never. Every
 * question is answered: the supervisor has a deadline for its helper, and a supervisor that is gone
 * ends the gateway. */
#include "gateway/crashes.h"
#include "gateway/api.h"
#include "gateway/server.h"
#include "ipc/memfd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* As many as the supervisor keeps. More would only fill its channel, and the gateway's news with
 * it. */
enum { OPEN_ASKS = 8 };

struct crashes {
    struct exchange *x; /* borrowed */
    uint64_t ask;
    char name[MSG_NAME_BYTES]; /* of a report, or "" */
    struct crashes *next;
};

static void forget(struct crashes *a)
{
    struct crashes **at = &a->x->server->asks;
    while (*at != a) {
        at = &(*at)->next;
    }
    *at = a->next;
    free(a);
}

static void on_gone(void *work)
{
    forget(work);
}

static void on_fail(void *work, const struct err *e)
{
    struct crashes *a = work;
    exchange_error(a->x, e, NULL);
    forget(a);
}

static const struct exchange_work work_ops = {.gone = on_gone, .fail = on_fail};

void crashes_told(void *server, const struct msg_told *m, int fd)
{
    struct server *s = server;
    struct crashes *a = s->asks;
    s->n_asks_open -= s->n_asks_open > 0;
    while (a && a->ask != m->ask) {
        a = a->next;
    }
    if (!a) {
        return; /* who asked has left */
    }
    void *map = NULL;
    size_t bytes = 0;
    int rc = m->err < 0 ? m->err
             : fd < 0   ? ERR_PROTOCOL
                        : memfd_map(fd, 1, LIMIT_BULK_BYTES, true, false, &map, &bytes);
    if (rc == 0) {
        exchange_reply(a->x, 200, "application/json", map, bytes, NULL);
        memfd_unmap(map, bytes);
    } else {
        struct err e;
        err_set(&e, rc, "GET %s%s", a->x->route->path, a->name);
        exchange_error(a->x, &e, NULL);
    }
    forget(a);
}

static void ask(struct exchange *x, const char *name, size_t n)
{
    struct server *s = x->server;
    struct msg_ask m = {.ask = s->n_asks + 1};
    bool is_busy = s->n_asks_open == OPEN_ASKS, is_name = n < sizeof(m.name);
    struct crashes *a = is_busy || !is_name ? NULL : calloc(1, sizeof(*a));
    if (!a) {
        struct err e;
        err_set(&e, !is_name ? ERR_REPORT_NOT_FOUND : is_busy ? ERR_BUSY : ERR_NO_MEMORY, "GET %s",
                x->route->path);
        exchange_error(x, &e, NULL);
        return;
    }
    memcpy(m.name, name, n);
    *a = (struct crashes){.x = x, .ask = m.ask, .next = s->asks};
    memcpy(a->name, name, n);
    s->asks = a;
    s->n_asks++;
    s->n_asks_open++;
    exchange_leave_work(x, &work_ops, a);
    notice_send(&s->link->notice, MSG_ASK, s->link->epoch, &m, sizeof(m));
}

void crashes_list(struct exchange *x)
{
    ask(x, "", 0);
}

void crashes_one(struct exchange *x)
{
    size_t skip = strlen(x->route->path);
    ask(x, x->http->head.data + x->http->path + skip, x->http->n_path - skip);
}
