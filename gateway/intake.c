/* What the worker says (see intake.h). Runs on the gateway's loop, blocks never. Invariant: a
 * record is checked by msg_check and the journal before anybody acts on it; the first wrong one
 * ends the epoch. */
#include "gateway/intake.h"
#include "gateway/epoch.h"
#include "gateway/metrics.h"
#include "shared/clock.h"

#include <string.h>

/* Records taken before the loop serves others, and notices which readers fall behind. */
enum { BATCH = 256 };

static int take_model(struct link *l, const struct msg_model *m, struct err *e)
{
    bool is_news = l->state == LINK_READY && m->index < l->n_models &&
                   strcmp(m->name, l->models[m->index].name) == 0;
    if ((l->state != LINK_LOADING || m->index != l->n_models) && !is_news) {
        return err_set(e, ERR_PROTOCOL, "a model out of turn");
    }
    if (!m->name[0] || m->n_vocab == 0 || m->n_ctx == 0) {
        return err_set(e, ERR_PROTOCOL, "a model without name or size");
    }
    if (m->n_vocab > LIMIT_VOCAB || m->n_ctx > LIMIT_CONTEXT_TOKENS) { /* memory follows them */
        return err_set(e, ERR_PROTOCOL, "a model with %u tokens and %u of context", m->n_vocab,
                       m->n_ctx);
    }
    if (is_news) {
        l->models[m->index] = *m;
        return 0;
    }
    l->models[l->n_models++] = *m;
    l->n_models_known = MAX(l->n_models_known, l->n_models);
    if (l->n_models < m->n_models) {
        return 0;
    }
    l->n_models_known = l->n_models;
    link_set_state(l, LINK_READY);
    if (l->down_ms) {
        l->reload_ms = (uint32_t)MIN(clock_ms() - l->down_ms, (uint64_t)UINT32_MAX);
        l->down_ms = 0;
    }
    epoch_resume(l);
    struct msg_ready ready = {.epoch = l->epoch};
    notice_send(&l->notice, MSG_READY, l->epoch, &ready, sizeof(ready));
    l->on_change(l->arg);
    return 0;
}

/* The record's parts; msg_check has measured them. */
static void decode(struct link_event *ev, uint32_t type, const uint8_t *payload)
{
    size_t fixed = msg_info(type)->fixed_bytes;
    *ev = (struct link_event){.type = type};
    if (type == MSG_FAIL) {
        struct msg_fail m;
        memcpy(&m, payload, sizeof(m));
        err_set(&ev->err, m.err, "%s", m.detail);
        return;
    }
    memcpy(&ev->m, payload, fixed);
    ev->text = (const char *)payload + fixed;
    if (type == MSG_TOKEN) {
        ev->top = (const struct msg_logprob *)(const void *)(payload + fixed);
        ev->text += ev->m.token.n_top * sizeof(struct msg_logprob);
        ev->n_text = ev->m.token.text_bytes;
        ev->pieces = ev->text + ev->n_text;
    } else if (type == MSG_FINISH) {
        ev->n_text = ev->m.finish.text_bytes;
    } else if (type == MSG_RESULT) {
        ev->n_text = ev->m.result.bytes;
    }
}

static int take_event(struct link *l, uint32_t type, struct err *e)
{
    uint64_t id;
    memcpy(&id, l->record, sizeof(id)); /* every event begins with it */
    struct journal_entry *en = journal_find(&l->journal, id);
    if (!en) {
        return err_set(e, ERR_PROTOCOL, "%s of a request that is not live", msg_info(type)->name);
    }
    int rc = journal_note(en, type, l->record, e);
    if (rc == ERR_PROTOCOL) {
        return rc;
    }
    if (rc < 0) { /* this request fails, the worker is told */
        link_fail(l, en, e);
        return 0;
    }
    if (en->waits_ms && type != MSG_STARTED && type != MSG_PREFILLED) {
        metrics_observe(METRIC_RESUME_SECONDS, 0, (double)(clock_ms() - en->waits_ms) * 1e-3);
        en->waits_ms = 0;
    }
    bool others_go = trial_note(&l->trial, en, type);
    if (en->is_left && !en->is_suspect) { /* acquitted, and nobody waits for it */
        link_drop(l, en);
    }
    if (others_go) {
        link_send_all(l);
    }
    if (rc == JOURNAL_KNOWN) {
        return 0;
    }
    struct link_event ev;
    char resumed_on[sizeof(en->model.device)];
    decode(&ev, type, l->record);
    if (type == MSG_DONE) {
        ev.m.done.n_cached = en->n_cached;
        if (en->is_interrupted) { /* the last worker knows only its own part */
            ev.m.done.decode_ns = clock_ns() - en->first_ns;
        }
        memcpy(resumed_on, en->model.device, sizeof(resumed_on));
        ev.resumed_on = en->is_forced ? resumed_on : NULL;
    } else if (type == MSG_RESULT && en->result_bytes_before > en->result_bytes - ev.n_text) {
        size_t known = (size_t)(en->result_bytes_before - (en->result_bytes - ev.n_text));
        known = MIN(known, ev.n_text);
        ev.text += known;
        ev.n_text -= known;
    }
    link_event_fn *on_event = en->on_event;
    void *owner = en->owner;
    if (rc == JOURNAL_ENDS) {
        link_forget(l, en);
    }
    if (on_event) {
        on_event(owner, id, &ev);
    }
    return 0;
}

static int take_record(struct link *l, const struct ring_record *r, struct err *e)
{
    if (msg_check(r->type, MSG_RING, MSG_WORKER, MSG_GATEWAY, MSG_STATE_RUNNING, l->record, r->len,
                  0) < 0) {
        return err_set(e, ERR_PROTOCOL, "a record of type %u with %u bytes that is not well-formed",
                       r->type, r->len);
    }
    if (r->type == MSG_MODEL) {
        struct msg_model m;
        memcpy(&m, l->record, sizeof(m));
        return take_model(l, &m, e);
    }
    return take_event(l, r->type, e);
}

/* Takes what is there; true if the ring is empty now. */
bool intake_batch(struct link *l)
{
    for (int i = 0; i < BATCH && !l->events.dead; i++) {
        struct ring_record r;
        struct err e = {0};
        int rc = ring_take(&l->events, l->record, &r);
        if (rc == 0) {
            return true;
        }
        if (rc < 0) {
            err_set(&e, ERR_PROTOCOL, "its event ring is damaged");
        } else {
            rc = take_record(l, &r, &e);
        }
        if (rc < 0) {
            epoch_breach(l, &e);
            return true;
        }
    }
    return l->events.dead;
}
