/* The beginning of every request to the worker (see ask.h). Runs on the gateway's loop. */
#include "gateway/ask.h"
#include "gateway/server.h"
#include "shared/hash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Reading JSON takes 10 ms a MiB, and five times that where it is made to hurt: what is larger than
 * this is read elsewhere. */
enum { POOL_BYTES = 64 * 1024 };

static size_t pending_bytes; /* of bodies in the pool */

uint64_t ask_random(void)
{
    uint64_t v = 0;
    ssize_t n = getrandom(&v, sizeof(v), 0); /* never short for so few bytes */
    ASSERT(n == sizeof(v));
    return v;
}

size_t ask_pending_bytes(void)
{
    return pending_bytes;
}

/* The first id of logit_bias that the model does not have; -1 none. What is not loaded yet is not
 * known well enough. */
static int64_t alien_bias(const struct request *r, const struct msg_model *m)
{
    for (size_t at = 0; at < r->logit_bias.len && m->is_loaded;
         at += sizeof(struct msg_logit_bias)) {
        struct msg_logit_bias b;
        memcpy(&b, r->logit_bias.data + at, sizeof(b));
        if ((uint32_t)b.id >= m->n_vocab) {
            return b.id;
        }
    }
    return -1;
}

/* Who asks, for the worker's fairness between clients. */
static uint64_t client_of(const struct exchange *x, const struct request *r)
{
    const char *const keys[] = {"authorization", "x-api-key"};
    uint64_t client = r->user.data ? hash64(r->user.data, r->user.n, 0) : 0;
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        size_t n;
        const char *key = http_find(x->http, keys[i], &n);
        client = key ? hash64(key, n, client) : client;
    }
    return client;
}

/* Refuses, or lets the handler go on. */
static void go_on(struct exchange *x, struct request *r, int rc, struct request_err *e,
                  ask_fn *then, const void *arg)
{
    if (rc < 0) {
        exchange_error(x, &e->err, e->param);
        return;
    }
    const struct msg_model *m = link_model(x->server->link, r->model.data, r->model.n);
    if (!m) {
        err_set(&e->err, ERR_MODEL_NOT_FOUND, "'%.*s'", (int)MIN(r->model.n, (size_t)128),
                r->model.data ? r->model.data : "");
        exchange_error(x, &e->err, "model");
        return;
    }
    int64_t alien = alien_bias(r, m);
    if (alien >= 0) {
        err_set(&e->err, ERR_BAD_TOKEN, "logit_bias names token %lld, the vocabulary has %u",
                (long long)alien, m->n_vocab);
        exchange_error(x, &e->err, "logit_bias");
        return;
    }
    r->client = client_of(x, r);
    then(x, r, m, arg);
}

/* ---- large bodies ---- */

struct job {
    uv_work_t work;
    struct exchange *x; /* borrowed; NULL: it ended meanwhile */
    enum request_api api;
    ask_fn *then;
    const void *arg;
    struct buf body; /* owned */
    size_t n_bytes;  /* of it */
    struct request request;
    struct request_err e;
    int rc;
};

/* In a thread of the pool: touches nothing but the job. */
static void parse_job(uv_work_t *w)
{
    struct job *j = w->data;
    j->rc = request_parse(j->api, j->body.data, j->body.len, &j->request, &j->e);
    buf_finish(&j->body);
}

static void free_in_pool(uv_work_t *w)
{
    struct job *j = w->data;
    request_finish(&j->request); /* a million values take a while, too */
}

static void on_freed(uv_work_t *w, int status)
{
    (void)status; /* nothing is ever cancelled */
    free(w->data);
}

static void on_parsed(uv_work_t *w, int status)
{
    struct job *j = w->data;
    struct exchange *x = j->x;
    (void)status;
    pending_bytes -= j->n_bytes;
    if (x) {
        go_on(x, &j->request, j->rc, &j->e, j->then, j->arg);
    }
    if (j->rc < 0 || uv_queue_work(w->loop, w, free_in_pool, on_freed) < 0) {
        free(j);
    }
}

static void on_gone(void *work)
{
    struct job *j = work;
    j->x = NULL;
}

static void on_fail(void *work, const struct err *e)
{
    struct job *j = work;
    struct exchange *x = j->x;
    j->x = NULL;
    exchange_error(x, e, NULL);
}

static const struct exchange_work job_ops = {.gone = on_gone, .fail = on_fail};

void ask(struct exchange *x, enum request_api api, ask_fn *then, const void *arg)
{
    struct buf *body = &x->http->body;
    struct job *j = body->len > POOL_BYTES ? calloc(1, sizeof(*j)) : NULL;
    if (!j) {
        struct request r;
        struct request_err e;
        int rc = request_parse(api, body->data ? body->data : "", body->len, &r, &e);
        go_on(x, &r, rc, &e, then, arg);
        if (rc == 0) {
            request_finish(&r);
        }
        return;
    }
    *j = (struct job){
        .x = x, .api = api, .then = then, .arg = arg, .body = *body, .n_bytes = body->len};
    j->work.data = j;
    pending_bytes += j->n_bytes;
    buf_init(body, LIMIT_BODY_BYTES);
    exchange_leave_work(x, &job_ops, j);
    int rc = uv_queue_work(x->server->loop, &j->work, parse_job, on_parsed);
    ASSERT(rc == 0); /* its only error is no callback */
}

void ask_refuse(struct exchange *x, int rc)
{
    struct err e;
    err_set(&e, rc == -ENOMEM ? ERR_NO_MEMORY : rc, "%s",
            rc == ERR_BUSY     ? "too many requests are queued and running"
            : rc == ERR_POISON ? "it is refused for an hour after that"
                               : "");
    exchange_error(x, &e, NULL);
}
