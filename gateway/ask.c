/* The beginning of every request to the worker (see ask.h). Runs on the gateway's loop. */
#include "gateway/ask.h"
#include "gateway/server.h"

#include <errno.h>
#include <string.h>

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
        return NULL;
    }
    int64_t alien = alien_bias(ret, m);
    if (alien >= 0) {
        err_set(&e.err, ERR_BAD_TOKEN, "logit_bias names token %lld, the vocabulary has %u",
                (long long)alien, m->n_vocab);
        exchange_error(x, &e.err, "logit_bias");
        request_finish(ret);
        return NULL;
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
