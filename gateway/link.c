/* Rings and epochs (see link.h). Runs on the gateway's loop, blocks never. Invariant: what the
 * worker sends is checked by msg_check and the journal before anybody acts on it; the first wrong
 * record ends the epoch. */
#include "gateway/link.h"
#include "gateway/metrics.h"
#include "gateway/outbox.h"
#include "ipc/memfd.h"
#include "shared/clock.h"
#include "shared/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Records taken before the loop serves others, and notices which readers fall behind. */
enum { BATCH = 256 };

/* No progress for so long, with work there, is a stall. The supervisor's watchdog ends the worker;
 * here it only makes /ready honest. */
enum { STALL_MS = 2000, STALL_PREFILL_MS = 5000 };

/* How often requests without a worker are looked at. */
enum { PATIENCE_MS = 250 };

static void on_poll(uv_timer_t *t);
static void flush_outbox(struct link *l);
static void send_all(struct link *l);

static void set_state(struct link *l, enum link_state state)
{
    if (l->state != state) {
        l->state = state;
        l->since_unix_s = clock_unix_s();
        l->since_ms = clock_ms();
    }
}

/* Drains and flushes soon, so that no event comes out of a caller's own call; and then polls while
 * something is awaited, so that a lost bell costs 50 ms at most. From within a drain it waits a
 * millisecond: libuv runs a timer of 0 again at once, before anybody else. */
static void kick(struct link *l)
{
    uv_timer_start(&l->poll, on_poll, l->is_draining ? 1 : 0, LIMIT_BELL_POLL_MS);
}

/* At rest nothing ticks. */
static void rest(struct link *l)
{
    if (l->state != LINK_LOADING && (l->state != LINK_READY || l->journal.n_live == 0)) {
        uv_timer_stop(&l->poll);
        l->waiting_since_ms = 0;
    }
}

/* Notes since when requests are in flight and the worker says it idles. Paused ones do not count.
 */
static void watch(struct link *l)
{
    bool waits = l->state == LINK_READY && l->journal.n_live > l->n_paused &&
                 atomic_load_explicit(&l->status->phase, memory_order_relaxed) == STATUS_IDLE;
    if (!waits) {
        l->waiting_since_ms = 0;
    } else if (!l->waiting_since_ms) {
        l->waiting_since_ms = clock_ms();
    }
}

static void forget(struct link *l, struct journal_entry *en)
{
    outbox_remove(l, en);
    l->n_paused -= en->wants_pause;
    bool others_go = trial_note(&l->trial, en, 0);
    journal_remove(&l->journal, en);
    if (others_go && l->state == LINK_READY) {
        send_all(l);
    }
}

/* ---- the end of an epoch ---- */

static void close_bell(uv_handle_t *h)
{
    free(h);
}

/* Lets go of everything that belonged to the epoch. */
static void release(struct link *l)
{
    if (l->bell) {
        uv_close((uv_handle_t *)l->bell, close_bell);
        l->bell = NULL;
    }
    for (size_t i = 0; i < COUNT_OF(l->maps); i++) {
        memfd_unmap(l->maps[i], l->map_bytes[i]);
        l->maps[i] = NULL;
    }
    for (size_t i = 0; i < COUNT_OF(l->bells); i++) {
        if (l->bells[i] >= 0) {
            close(l->bells[i]);
            l->bells[i] = -1;
        }
    }
    l->status = NULL;
    l->requests.dead = l->events.dead = true;
}

/* The request is over, by no word of the worker. */
static void fail(struct link *l, struct journal_entry *en, const struct err *e)
{
    struct link_event ev = {.type = MSG_FAIL, .err = *e};
    uint64_t id = en->id;
    link_event_fn *on_event = en->on_event;
    void *owner = en->owner;
    link_cancel(l, id); /* first: the owner may submit or cancel others */
    if (on_event) {
        on_event(owner, id, &ev);
    }
}

static void fail_all(struct link *l)
{
    struct err e;
    err_set(&e, ERR_WORKER_DOWN, "%s", l->why.detail);
    for (size_t i = 0; i < LIMIT_LIVE_REQUESTS; i++) {
        if (l->journal.entries[i].id) {
            fail(l, &l->journal.entries[i], &e);
        }
    }
}

static void convict(struct link *l, struct journal_entry *en)
{
    uint8_t digest[HASH_SHA256_BYTES];
    struct err e;
    journal_digest(en->type, &en->payload, digest);
    struct msg_poison m = {.since_unix_s = clock_unix_s(),
                           .left_ms = (uint64_t)LIMIT_POISON_S * 1000};
    memcpy(m.digest, digest, sizeof(m.digest));
    link_poison(l, &m);
    notice_send(&l->notice, MSG_POISON, l->epoch, &m, sizeof(m));
    log_error("request %llu brought the worker down twice; it is refused for %d minutes",
              (unsigned long long)en->id, LIMIT_POISON_S / 60);
    err_set(&e, ERR_POISON, "%s", l->why.detail);
    fail(l, en, &e);
}

/* Has a request that no worker has waited long enough, for us or for its client? */
static int end_of_patience(const struct link *l, const struct journal_entry *en, struct err *e)
{
    uint64_t now = clock_ms();
    int why = journal_overdue(en, now);
    if (why < 0) {
        return err_set(e, why, "%.3f s, while no worker could go on",
                       (double)(now - en->since_ms) / 1000);
    }
    return now - en->waits_ms < l->resume_ms
               ? 0
               : err_set(e, ERR_WORKER_DOWN, "%s; no worker went on within %.1f s", l->why.detail,
                         (double)(now - en->waits_ms) / 1000);
}

static void on_patience(uv_timer_t *t)
{
    struct link *l = t->data;
    bool any = false;
    for (size_t i = 0; i < LIMIT_LIVE_REQUESTS; i++) {
        struct journal_entry *en = &l->journal.entries[i];
        bool is_served = l->state == LINK_READY && en->is_sent;
        struct err e;
        if (en->id && en->waits_ms && !is_served && end_of_patience(l, en, &e) < 0) {
            fail(l, en, &e);
        }
        any = any || (en->id && en->waits_ms);
    }
    if (!any) {
        uv_timer_stop(t);
    }
}

/* The worker is gone. Its requests wait for the next one, or end where none is to come. */
static void end_epoch(struct link *l, const struct msg_detach *why)
{
    set_state(l, LINK_DOWN);
    l->why = *why;
    l->n_models = 0;
    l->down_ms = l->down_ms ? l->down_ms : clock_ms();
    outbox_init(l);
    struct journal_entry *convicted =
        trial_death(&l->trial, &l->journal, why->is_counted, ring_is_read(&l->requests));
    for (size_t i = 0; i < LIMIT_LIVE_REQUESTS; i++) {
        struct journal_entry *en = &l->journal.entries[i];
        en->is_in_outbox = false;
        if (en->id && en->wants_cancel) {
            forget(l, en);
        } else if (en->id) {
            journal_rewind(en);
            en->waits_ms = en->waits_ms ? en->waits_ms : clock_ms();
        }
    }
    if (convicted && convicted->id) {
        convict(l, convicted);
    }
    if (why->retry_after_ms == 0) {
        fail_all(l);
    } else if (l->journal.n_live > 0) {
        uv_timer_start(&l->patience, on_patience, MIN(l->resume_ms, (uint64_t)PATIENCE_MS),
                       PATIENCE_MS);
    }
    rest(l);
    l->on_change(l->arg);
}

/* What may go now goes, in order of arrival. */
static void send_all(struct link *l)
{
    struct journal *j = &l->journal;
    trial_arrange(&l->trial, j);
    uint64_t first = UINT64_MAX;
    for (size_t i = 0; i < LIMIT_LIVE_REQUESTS; i++) {
        first = j->entries[i].id ? MIN(first, j->entries[i].id) : first;
    }
    for (uint64_t id = first; id <= j->n_ever; id++) {
        struct journal_entry *en = journal_find(j, id);
        if (en) {
            outbox_add(l, en);
        }
    }
    kick(l);
}

/* A worker serves: it gets what the dead one left. */
static void resume_all(struct link *l)
{
    for (size_t i = 0; i < LIMIT_LIVE_REQUESTS; i++) {
        struct journal_entry *en = &l->journal.entries[i];
        if (!en->id) {
            continue;
        }
        struct err e;
        const struct msg_model *m = link_model(l, en->model.name, strlen(en->model.name));
        int rc =
            m ? journal_replay(en, m, &e)
              : err_set(&e, ERR_MODEL_NOT_FOUND, "'%s' is not served any more", en->model.name);
        if (rc < 0) {
            fail(l, en, &e);
        } else {
            l->n_resumed++;
        }
    }
    send_all(l);
}

static void breach(struct link *l, const struct err *e)
{
    log_error("the worker of epoch %llu broke the protocol: %s", (unsigned long long)l->epoch,
              e->detail);
    l->n_breaches++;
    l->requests.dead = l->events.dead = true;
    if (l->bell) {
        uv_poll_stop(l->bell);
    }
    struct msg_breach m = {.epoch = l->epoch};
    snprintf(m.detail, sizeof(m.detail), "%s", e->detail);
    notice_send(&l->notice, MSG_BREACH, l->epoch, &m, sizeof(m));
    struct msg_detach why = {
        .epoch = l->epoch, .err = ERR_WORKER_DOWN, .retry_after_ms = 2000, .is_counted = 1};
    snprintf(why.detail, sizeof(why.detail), "it broke the protocol");
    end_epoch(l, &why);
}

/* ---- events ---- */

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
    set_state(l, LINK_READY);
    if (l->down_ms) {
        l->reload_ms = (uint32_t)MIN(clock_ms() - l->down_ms, (uint64_t)UINT32_MAX);
        l->down_ms = 0;
    }
    resume_all(l);
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
        fail(l, en, e);
        return 0;
    }
    if (en->waits_ms && type != MSG_STARTED && type != MSG_PREFILLED) {
        metrics_observe(METRIC_RESUME_SECONDS, 0, (double)(clock_ms() - en->waits_ms) * 1e-3);
        en->waits_ms = 0;
    }
    if (trial_note(&l->trial, en, type)) {
        send_all(l);
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
        forget(l, en);
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
static bool take_batch(struct link *l)
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
            breach(l, &e);
            return true;
        }
    }
    return l->events.dead;
}

static void drain(struct link *l)
{
    if (l->events.dead) {
        return;
    }
    l->is_draining = true;
    ring_wake(&l->events);
    bool is_empty = take_batch(l);
    flush_outbox(l); /* the worker has read, too: there may be room */
    if (is_empty && !l->events.dead) {
        is_empty = ring_sleep(&l->events);
    }
    if (is_empty) {
        rest(l);
    } else {
        kick(l); /* others first, then on without waiting for a bell */
    }
    l->is_draining = false;
}

static void on_poll(uv_timer_t *t)
{
    struct link *l = t->data;
    drain(l);
    watch(l);
}

static void flush_outbox(struct link *l)
{
    while (l->outbox && !l->requests.dead) {
        struct journal_entry *en = l->outbox;
        int rc = outbox_send(l, en);
        if (rc == -EAGAIN) {
            break;
        }
        if (rc == ERR_PROTOCOL) {
            struct err e;
            err_set(&e, rc, "its request ring is damaged");
            breach(l, &e);
            return;
        }
        outbox_remove(l, en);
        if (rc < 0) { /* the memfd or the channel failed: this request cannot go */
            struct err e;
            err_set(&e, rc, "passing the request to the worker");
            fail(l, en, &e);
        }
    }
}

static void on_bell(uv_poll_t *p, int status, int events)
{
    (void)status;
    (void)events;
    drain(p->data);
}

/* ---- the life of the link ---- */

int link_open(struct link *l, uv_loop_t *loop, struct channel *channel,
              void (*on_change)(void *arg), void *arg)
{
    *l = (struct link){
        .loop = loop,
        .channel = channel,
        .on_change = on_change,
        .arg = arg,
        .state = LINK_STARTING,
        .since_unix_s = clock_unix_s(),
        .since_ms = clock_ms(),
        .bells = {-1, -1},
        .requests = {.dead = true},
        .events = {.dead = true},
    };
    outbox_init(l);
    journal_init(&l->journal);
    int rc = notice_open(&l->notice, loop, channel);
    rc = rc == 0 ? uv_timer_init(loop, &l->poll) : rc;
    l->poll.data = l;
    if (rc == 0) {
        rc = uv_timer_init(loop, &l->patience);
        l->patience.data = l;
    }
    return rc;
}

void link_close(struct link *l)
{
    release(l);
    outbox_init(l);
    journal_finish(&l->journal);
    uv_close((uv_handle_t *)&l->poll, NULL);
    uv_close((uv_handle_t *)&l->patience, NULL);
    notice_close(&l->notice);
}

static int map_epoch(struct link *l, const struct msg_attach *m, const int fds[5])
{
    size_t ring_bytes = ring_memfd_bytes(LIMIT_RING_BYTES);
    int rc = memfd_map(fds[0], ring_memfd_bytes(4096), ring_bytes, false, true, &l->maps[0],
                       &l->map_bytes[0]);
    if (rc == 0) {
        rc = memfd_map(fds[1], ring_memfd_bytes(4096), ring_bytes, false, true, &l->maps[1],
                       &l->map_bytes[1]);
    }
    if (rc == 0) {
        rc = memfd_map(fds[4], STATUS_PAGE_BYTES, STATUS_PAGE_BYTES, false, false, &l->maps[2],
                       &l->map_bytes[2]);
    }
    if (rc == 0) {
        rc = ring_attach(&l->requests, l->maps[0], l->map_bytes[0], m->epoch, fds[2]);
    }
    if (rc == 0) {
        rc = ring_attach(&l->events, l->maps[1], l->map_bytes[1], m->epoch, fds[3]);
    }
    if (rc == 0) {
        l->status = status_attach(l->maps[2], l->map_bytes[2], m->epoch);
        rc = l->status ? 0 : ERR_PROTOCOL;
    }
    return rc;
}

int link_attach(struct link *l, const struct msg_attach *m, int fds[5])
{
    if (l->state == LINK_READY || l->state == LINK_LOADING) {
        struct msg_detach why = {.epoch = l->epoch, .err = ERR_WORKER_DOWN, .retry_after_ms = 1};
        snprintf(why.detail, sizeof(why.detail), "a new worker took its place");
        link_detach(l, &why);
    }
    release(l);
    int rc = map_epoch(l, m, fds);
    uv_poll_t *bell = rc == 0 ? calloc(1, sizeof(*bell)) : NULL;
    if (rc == 0) {
        rc = bell ? uv_poll_init(l->loop, bell, fds[3]) : -ENOMEM;
    }
    if (rc < 0) {
        free(bell);
        release(l);
        set_state(l, LINK_DOWN);
        return rc;
    }
    l->bell = bell;
    bell->data = l;
    l->bells[0] = fds[2];
    l->bells[1] = fds[3];
    fds[2] = fds[3] = -1;
    l->epoch = m->epoch;
    l->n_epochs++;
    l->n_models = 0;
    l->waiting_since_ms = 0;
    set_state(l, LINK_LOADING);
    rc = uv_poll_start(bell, UV_READABLE, on_bell);
    kick(l); /* for what is there already */
    l->on_change(l->arg);
    return rc;
}

void link_detach(struct link *l, const struct msg_detach *m)
{
    if (m->epoch < l->epoch) {
        return; /* old news */
    }
    if (l->state == LINK_LOADING || l->state == LINK_READY) {
        while (!l->events.dead && !take_batch(l)) {
        }
    }
    if (l->state == LINK_LOADING || l->state == LINK_READY) {
        end_epoch(l, m);
    } else { /* it never came, or broke the protocol before: only the outlook is new */
        set_state(l, LINK_DOWN);
        l->why = *m;
        if (m->retry_after_ms == 0) {
            fail_all(l);
        }
        l->on_change(l->arg);
    }
    release(l);
}

/* ---- asking and telling ---- */

/* Is there work and no progress? */
static bool is_stalled(const struct link *l, uint32_t phase)
{
    uint64_t now = clock_ms(), since = l->waiting_since_ms, limit = STALL_MS;
    if (phase == STATUS_PREFILL || phase == STATUS_DECODE) {
        since = atomic_load_explicit(&l->status->beat_ns, memory_order_relaxed) / 1000000;
        limit = phase == STATUS_PREFILL ? STALL_PREFILL_MS : STALL_MS;
    }
    return since && now > since && now - since > limit;
}

void link_status(const struct link *l, struct link_status *ret)
{
    *ret = (struct link_status){
        .state = l->state, .since_unix_s = l->since_unix_s, .epoch = l->epoch, .detail = ""};
    uint64_t in_state_ms = clock_ms() - l->since_ms;
    for (size_t i = 0; i < LIMIT_LIVE_REQUESTS && l->journal.n_live > 0; i++) {
        ret->n_waiting += l->journal.entries[i].id && l->journal.entries[i].waits_ms;
    }
    if (l->status && l->state != LINK_DOWN) {
        const struct status_page *s = l->status;
        ret->phase = atomic_load_explicit(&s->phase, memory_order_relaxed);
        ret->n_active = atomic_load_explicit(&s->n_active, memory_order_relaxed);
        ret->n_queued = atomic_load_explicit(&s->n_queued, memory_order_relaxed);
        ret->load_done_bytes = atomic_load_explicit(&s->load_done_bytes, memory_order_relaxed);
        ret->load_total_bytes = atomic_load_explicit(&s->load_total_bytes, memory_order_relaxed);
        ret->kv_blocks = atomic_load_explicit(&s->kv_blocks, memory_order_relaxed);
        ret->kv_used = atomic_load_explicit(&s->kv_used, memory_order_relaxed);
        ret->kv_cached = atomic_load_explicit(&s->kv_cached, memory_order_relaxed);
        ret->kv_evicted = atomic_load_explicit(&s->kv_evicted, memory_order_relaxed);
        ret->n_preempted = atomic_load_explicit(&s->n_preempted, memory_order_relaxed);
        ret->is_stalled = l->state == LINK_READY && is_stalled(l, ret->phase);
    }
    switch (l->state) {
    case LINK_STARTING:
        ret->is_expected = true;
        break;
    case LINK_LOADING:
        ret->is_expected = true;
        if (ret->load_done_bytes > 0 && ret->load_done_bytes < ret->load_total_bytes) {
            double left = (double)(ret->load_total_bytes - ret->load_done_bytes) /
                          (double)ret->load_done_bytes;
            ret->retry_after_ms = (uint32_t)MIN(left * (double)in_state_ms, 3600e3);
        } else if (l->down_ms && clock_ms() - l->down_ms < l->reload_ms) {
            ret->retry_after_ms = l->reload_ms - (uint32_t)(clock_ms() - l->down_ms);
        }
        break;
    case LINK_DOWN:
        ret->is_expected = l->why.retry_after_ms > 0;
        ret->retry_after_ms =
            (uint32_t)(l->why.retry_after_ms > in_state_ms ? l->why.retry_after_ms - in_state_ms
                                                           : 0);
        ret->err = l->why.err;
        ret->detail = l->why.detail;
        break;
    case LINK_READY:
        break;
    }
}

const struct msg_model *link_model(const struct link *l, const char *name, size_t n)
{
    for (uint32_t i = 0; i < l->n_models_known; i++) {
        if (!name || (strlen(l->models[i].name) == n && memcmp(l->models[i].name, name, n) == 0)) {
            return &l->models[i];
        }
    }
    return NULL;
}

int link_submit(struct link *l, uint32_t type, struct buf *payload, const struct msg_model *model,
                link_event_fn *on_event, void *owner, uint64_t *ret_id)
{
    if (l->state != LINK_READY) {
        return ERR_WORKER_DOWN;
    }
    if (l->poison.n > 0) {
        uint8_t digest[HASH_SHA256_BYTES];
        journal_digest(type, payload, digest);
        struct poison_row *row = poison_find(&l->poison, digest, clock_ms());
        if (row) {
            row->n_refused++;
            l->poison.n_refused++;
            return ERR_POISON;
        }
    }
    struct journal_entry *en;
    int rc = journal_add(&l->journal, type, payload, model, &en);
    if (rc < 0) {
        return rc;
    }
    en->is_held = l->trial.id != 0;
    en->waits_ms = en->is_held ? clock_ms() : 0;
    en->on_event = on_event;
    en->owner = owner;
    *ret_id = en->id;
    outbox_add(l, en);
    kick(l);
    return 0;
}

void link_cancel(struct link *l, uint64_t id)
{
    struct journal_entry *en = journal_find(&l->journal, id);
    if (!en) {
        return;
    }
    en->on_event = NULL;
    en->owner = NULL;
    if (!en->is_sent && !en->is_bulk_passed) {
        forget(l, en); /* the worker has never heard of it */
        return;
    }
    en->wants_cancel = true;
    outbox_add(l, en);
    kick(l);
}

void link_pause(struct link *l, uint64_t id, bool pause)
{
    struct journal_entry *en = journal_find(&l->journal, id);
    if (en && en->wants_pause != pause) {
        en->wants_pause = pause;
        l->n_paused = pause ? l->n_paused + 1 : l->n_paused - 1;
        outbox_add(l, en);
        kick(l);
    }
}

void link_poison(struct link *l, const struct msg_poison *m)
{
    uint64_t now_ms = clock_ms(), longest_ms = (uint64_t)LIMIT_POISON_S * 1000;
    poison_add(&l->poison, m->digest, m->since_unix_s, now_ms + MIN(m->left_ms, longest_ms),
               now_ms);
}

void link_forgive(struct link *l)
{
    struct msg_poison none = {.left_ms = 0};
    poison_clear(&l->poison);
    notice_send(&l->notice, MSG_POISON, l->epoch, &none, sizeof(none));
}
