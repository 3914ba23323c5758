/* What the worker answers by a text: POST /tokenize, /detokenize, /apply-template, /v1/models/load
 * and /unload, GET /slots, /props and /traces: a MSG_TEXT each, the answer collected until its last
 * part; progress of loading may be streamed. Runs on the gateway's loop. */
#include "gateway/api.h"
#include "gateway/ask.h"
#include "gateway/server.h"
#include "gateway/sse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct text {
    struct exchange *x; /* borrowed */
    enum msg_text_op op;
    bool is_stream;
    uint64_t id;       /* 0: over */
    struct buf result; /* owned */
};

static void free_text(struct text *t)
{
    buf_finish(&t->result);
    free(t);
}

static void send_event(struct text *t, const char *json, size_t n)
{
    struct buf b;
    buf_init(&b, LIMIT_ANSWER_BYTES);
    if (t->x->status == 0) {
        exchange_stream_begin(t->x);
    }
    sse_begin(&b);
    buf_add(&b, json, n);
    sse_end(&b);
    exchange_stream(t->x, b.data, b.len);
    buf_finish(&b);
}

static void fail(struct text *t, const struct err *e)
{
    link_cancel(t->x->server->link, t->id);
    if (t->x->status == 0) {
        bool is_prompt = t->op == MSG_APPLY_TEMPLATE && err_http(e->code) == 400;
        exchange_error(t->x, e, is_prompt ? "messages" : NULL);
    } else {
        struct buf b;
        buf_init(&b, 0);
        exchange_put_error(&b, e, NULL);
        send_event(t, b.data, b.len);
        buf_finish(&b);
        exchange_stream_end(t->x);
    }
    free_text(t);
}

/* A record about loading: a JSON object and a newline. */
static void on_state(struct text *t, const struct link_event *ev)
{
    size_t n = ev->n_text > 0 && ev->text[ev->n_text - 1] == '\n' ? ev->n_text - 1 : ev->n_text;
    if (t->is_stream) {
        send_event(t, ev->text, n);
        if (ev->m.result.is_last) {
            exchange_stream_end(t->x);
            free_text(t);
        }
    } else if (ev->m.result.is_last) {
        exchange_reply(t->x, 200, "application/json", ev->text, n, NULL);
        free_text(t);
    }
}

static void reply(struct text *t)
{
    struct buf b;
    buf_init(&b, LIMIT_ANSWER_BYTES);
    if (t->op > MSG_APPLY_TEMPLATE) { /* JSON already */
        buf_add(&b, t->result.data, t->result.len);
    } else if (t->op == MSG_TOKENIZE) {
        buf_str(&b, "{\"tokens\":[");
        for (size_t at = 0; at + sizeof(int32_t) <= t->result.len; at += sizeof(int32_t)) {
            int32_t id;
            memcpy(&id, t->result.data + at, sizeof(id));
            buf_printf(&b, at ? ",%d" : "%d", id);
        }
        buf_str(&b, "]}");
    } else {
        buf_str(&b, t->op == MSG_DETOKENIZE ? "{\"content\":" : "{\"prompt\":");
        json_put_string(&b, t->result.data ? t->result.data : "", t->result.len);
        buf_char(&b, '}');
    }
    if (b.failed) {
        struct err e;
        err_set(&e, ERR_NO_MEMORY, "the answer is larger than %d bytes", LIMIT_ANSWER_BYTES);
        exchange_error(t->x, &e, NULL);
    } else {
        exchange_reply(t->x, 200, "application/json", b.data, b.len, NULL);
    }
    buf_finish(&b);
}

static void on_event(void *owner, uint64_t id, const struct link_event *ev)
{
    struct text *t = owner;
    (void)id;
    if (ev->type == MSG_FAIL) {
        t->id = 0;
        fail(t, &ev->err);
        return;
    }
    if (t->op >= MSG_LOAD) {
        on_state(t, ev);
        return;
    }
    buf_add(&t->result, ev->text, ev->n_text);
    if (t->result.failed) {
        struct err e;
        err_set(&e, ERR_NO_MEMORY, "the answer is larger than %d bytes", LIMIT_BULK_BYTES);
        fail(t, &e);
    } else if (ev->m.result.is_last) {
        reply(t);
        free_text(t);
    }
}

static void on_gone(void *work)
{
    struct text *t = work;
    link_cancel(t->x->server->link, t->id);
    free_text(t);
}

static void on_fail(void *work, const struct err *e)
{
    fail(work, e);
}

static const struct exchange_work work_ops = {.gone = on_gone, .fail = on_fail};

/* Sends the payload (finished here) and leaves the exchange waiting for what comes. */
static void submit(struct exchange *x, enum msg_text_op op, bool is_stream,
                   const struct msg_model *model, struct buf *payload)
{
    struct text *t = calloc(1, sizeof(*t));
    int rc = t && !payload->failed ? 0 : -ENOMEM;
    if (rc == 0) {
        t->x = x;
        t->op = op;
        t->is_stream = is_stream;
        buf_init(&t->result, LIMIT_BULK_BYTES);
        rc = link_submit(x->server->link, MSG_TEXT, payload, model, on_event, t, &t->id);
    }
    buf_finish(payload);
    if (rc == 0) {
        exchange_leave_work(x, &work_ops, t);
        return;
    }
    free(t);
    ask_refuse(x, rc);
}

static void start(struct exchange *x, struct request *r, const struct msg_model *model,
                  const void *op)
{
    struct buf payload;
    buf_init(&payload, LIMIT_BULK_BYTES);
    request_encode(r, 0, model->index, 0, &payload);
    submit(x, *(const enum msg_text_op *)op, false, model, &payload);
}

/* What the worker tells of itself; of the first model where one is meant. */
static void inquire(struct exchange *x, enum msg_text_op op)
{
    const struct msg_model *model = link_model(x->server->link, NULL, 0);
    struct msg_text m = {.op = op};
    struct buf payload;
    ASSERT(model); /* the route waits for a worker, and none is without */
    buf_init(&payload, 0);
    buf_add(&payload, &m, sizeof(m));
    submit(x, op, false, model, &payload);
}

void text_tokenize(struct exchange *x)
{
    static const enum msg_text_op op = MSG_TOKENIZE;
    ask(x, REQUEST_TOKENIZE, start, &op);
}

void text_detokenize(struct exchange *x)
{
    static const enum msg_text_op op = MSG_DETOKENIZE;
    ask(x, REQUEST_DETOKENIZE, start, &op);
}

void text_apply_template(struct exchange *x)
{
    static const enum msg_text_op op = MSG_APPLY_TEMPLATE;
    ask(x, REQUEST_TEMPLATE, start, &op);
}

void text_slots(struct exchange *x)
{
    inquire(x, MSG_SLOTS);
}

void text_props(struct exchange *x)
{
    inquire(x, MSG_PROPS);
}

void text_traces(struct exchange *x)
{
    inquire(x, MSG_TRACES);
}

static void order(struct exchange *x, struct request *r, const struct msg_model *model,
                  const void *op)
{
    struct msg_text m = {.op = *(const enum msg_text_op *)op, .model = model->index};
    struct buf payload;
    buf_init(&payload, 0);
    buf_add(&payload, &m, sizeof(m));
    submit(x, m.op, r->is_stream, model, &payload);
}

void text_load(struct exchange *x)
{
    static const enum msg_text_op op = MSG_LOAD;
    ask(x, REQUEST_MODEL, order, &op);
}

void text_unload(struct exchange *x)
{
    static const enum msg_text_op op = MSG_UNLOAD;
    ask(x, REQUEST_MODEL, order, &op);
}
