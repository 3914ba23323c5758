/* Event records and their back-pressure (see events.h). Token loop; never blocks. */
#include "worker/events.h"
#include "worker/choice.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct pending { /* before each pending event */
    uint32_t type;
    uint32_t len;
};

void events_init(struct events *ev)
{
    *ev = (struct events){0};
    buf_init(&ev->text, 0);
    buf_init(&ev->pieces, 0);
}

void events_finish(struct events *ev)
{
    buf_finish(&ev->text);
    buf_finish(&ev->pieces);
}

/* 0, or -EAGAIN when there is no room. Other errors end the ring and are kept in ev->err. */
static int put(struct events *ev, uint32_t type, const void *payload, size_t len)
{
    if (!ev->ring || ev->err < 0) {
        return 0;
    }
    int err = ring_put(ev->ring, type, payload, len, NULL, 0);
    if (err < 0 && err != -EAGAIN) {
        ev->err = err;
        return 0;
    }
    return err;
}

bool events_flush(struct events *ev, struct request *r)
{
    while (r->pending_at < r->pending.len) {
        struct pending p;
        memcpy(&p, r->pending.data + r->pending_at, sizeof(p));
        if (put(ev, p.type, r->pending.data + r->pending_at + sizeof(p), p.len) < 0) {
            return false;
        }
        r->pending_at += sizeof(p) + p.len;
    }
    buf_clear(&r->pending);
    r->pending_at = 0;
    if (!r->is_paused) {
        r->stalled_ns = 0;
    }
    return true;
}

static void send(struct events *ev, struct request *r, uint32_t type, const void *payload,
                 size_t len)
{
    if (r->is_orphan) {
        return;
    }
    if (r->pending.len == 0 && put(ev, type, payload, len) == 0) {
        return;
    }
    struct pending p = {.type = type, .len = (uint32_t)len};
    buf_add(&r->pending, &p, sizeof(p));
    buf_add(&r->pending, payload, len);
    if (r->pending.failed) {
        ev->err = -ENOMEM; /* an event would be lost */
    }
    if (!r->stalled_ns) {
        r->stalled_ns = ev->now_ns;
    }
}

void events_model(struct events *ev, struct models *models, uint32_t index)
{
    struct model *m = &models->v[index];
    if (m->engine) {
        models_describe(m);
    }
    struct msg_model e = m->card;
    e.index = index;
    e.n_models = (uint32_t)models->n;
    models->is_card_due[index] = put(ev, MSG_MODEL, &e, sizeof(e)) == -EAGAIN;
}

void events_started(struct events *ev, struct request *r)
{
    r->started_ns = ev->now_ns;
    trace_add(ev->trace, TRACE_QUEUE, r->id, r->received_ns, ev->now_ns, r->n_cached);
    struct msg_started e = {
        .request = r->id,
        .n_prompt = (uint32_t)r->n_prompt,
        .n_cached = (uint32_t)r->n_cached,
        .queue_ns = r->started_ns - r->received_ns,
    };
    send(ev, r, MSG_STARTED, &e, sizeof(e));
}

void events_prefilled(struct events *ev, struct request *r, int64_t n_done)
{
    struct msg_prefilled e = {
        .request = r->id, .n_done = (uint32_t)n_done, .n_prompt = (uint32_t)r->n_prompt};
    send(ev, r, MSG_PREFILLED, &e, sizeof(e));
}

static size_t append(struct events *ev, size_t at, const void *data, size_t n)
{
    ASSERT(n <= sizeof(ev->record) - at);
    if (n) {
        memcpy(ev->record + at, data, n);
    }
    return at + n;
}

void events_token(struct events *ev, struct request *r, uint32_t number, int64_t position,
                  int32_t id, bool is_prompt, struct msg_logprob *top, uint32_t n_top)
{
    struct msg_token e = {
        .request = r->id,
        .choice = number,
        .position = (uint32_t)position,
        .id = id,
        .n_top = (uint16_t)n_top,
        .is_prompt = is_prompt,
        .text_bytes = (uint32_t)ev->text.len,
    };
    const struct tokenizer *t = r->model->tokenizer;
    buf_clear(&ev->pieces);
    for (uint32_t i = 0; i < n_top; i++) {
        size_t before = ev->pieces.len;
        if (t && top[i].id < tokenizer_size(t) &&
            tokenizer_piece(t, top[i].id, false, true, &ev->pieces) < 0) {
            ev->pieces.failed = true;
        }
        ev->pieces.len = MIN(ev->pieces.len, before + MSG_PIECE_BYTES);
        top[i].piece_bytes = (uint32_t)(ev->pieces.len - before);
    }
    if (ev->pieces.failed) {
        ev->err = -ENOMEM;
        return;
    }
    size_t n = append(ev, 0, &e, sizeof(e));
    n = append(ev, n, top, n_top * sizeof(*top));
    n = append(ev, n, ev->text.data, ev->text.len);
    n = append(ev, n, ev->pieces.data, ev->pieces.len);
    send(ev, r, MSG_TOKEN, ev->record, n);
}

void events_finish_choice(struct events *ev, const struct choice *c)
{
    struct msg_finish e = {
        .request = c->request->id,
        .choice = c->number,
        .reason = c->reason,
        .n_tokens = (uint32_t)(c->n_ids + c->drew_end),
        .stop_index = c->stop_index,
        .text_bytes = (uint32_t)ev->text.len,
        .logprob_sum = (float)c->logprob_sum,
    };
    size_t n = append(ev, 0, &e, sizeof(e));
    n = append(ev, n, ev->text.data, ev->text.len);
    send(ev, c->request, MSG_FINISH, ev->record, n);
}

void events_done(struct events *ev, struct request *r)
{
    struct msg_done e = {
        .request = r->id,
        .n_prompt = (uint32_t)r->n_prompt,
        .n_cached = (uint32_t)r->n_cached,
        .queue_ns = (r->started_ns ? r->started_ns : ev->now_ns) - r->received_ns,
        .prefill_ns = r->first_ns ? r->first_ns - r->started_ns : 0,
        .decode_ns = r->last_ns - r->first_ns,
    };
    for (uint32_t i = 0; r->choices && i < r->generate.n_choices; i++) {
        e.n_completion += (uint32_t)(r->choices[i].n_ids + r->choices[i].drew_end);
    }
    r->stage = REQUEST_ENDED;
    trace_add(ev->trace, TRACE_REQUEST, r->id, r->received_ns, ev->now_ns, e.n_completion);
    send(ev, r, MSG_DONE, &e, sizeof(e));
}

void events_fail(struct events *ev, struct request *r, const struct err *why)
{
    struct msg_fail e = {.request = r->id, .err = why->code};
    snprintf(e.detail, sizeof(e.detail), "%s", why->detail);
    r->stage = REQUEST_ENDED;
    send(ev, r, MSG_FAIL, &e, sizeof(e));
}

void events_part(struct events *ev, struct request *r, const char *text, bool is_last)
{
    size_t len = strlen(text);
    struct msg_result e = {.request = r->id, .is_last = is_last, .bytes = (uint32_t)len};
    size_t n = append(ev, 0, &e, sizeof(e));
    n = append(ev, n, text, len);
    if (is_last) {
        r->stage = REQUEST_ENDED;
    }
    send(ev, r, MSG_RESULT, ev->record, n);
}

void events_result(struct events *ev, struct request *r)
{
    while (r->stage != REQUEST_ENDED && r->pending.len == 0) {
        size_t left = r->is_cancelled ? 0 : r->result.len - r->result_sent;
        struct msg_result e = {.request = r->id};
        e.bytes = (uint32_t)MIN(left, sizeof(ev->record) - sizeof(e));
        e.is_last = e.bytes == left;
        size_t n = append(ev, 0, &e, sizeof(e));
        n = append(ev, n, r->result.data ? r->result.data + r->result_sent : NULL, e.bytes);
        r->result_sent += e.bytes;
        if (e.is_last) {
            r->stage = REQUEST_ENDED;
        }
        send(ev, r, MSG_RESULT, ev->record, n);
    }
}
