/* The beginning of every request to the worker (see ask.h). Runs on the gateway's loop. */
#include "gateway/ask.h"
#include "gateway/server.h"

#include <errno.h>

const struct msg_model *ask_read(struct exchange *x, enum request_api api, struct request *ret)
{
    struct request_err e;
    const struct buf *body = &x->http->body;
    if (request_parse(api, body->data ? body->data : "", body->len, ret, &e) < 0) {
        exchange_error(x, &e.err, e.param);
        return NULL;
    }
    const struct msg_model *m = link_model(x->server->link, ret->model.data, ret->model.n);
    if (!m) {
        err_set(&e.err, ERR_MODEL_NOT_FOUND, "'%.*s'", (int)MIN(ret->model.n, (size_t)128),
                ret->model.data ? ret->model.data : "");
        exchange_error(x, &e.err, "model");
        request_finish(ret);
    }
    return m;
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
