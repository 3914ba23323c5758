/* Requests out, events in (see link.h); how an epoch begins and ends is epoch.c's, what the worker
 * says intake.c's. Runs on the gateway's loop, blocks never. */
#include "gateway/epoch.h"
#include "gateway/intake.h"
#include "gateway/outbox.h"
#include "shared/clock.h"

#include <string.h>

/* No progress for so long, with work there, is a stall. The supervisor's watchdog ends the worker;
 * here it only makes /ready honest. */
enum { STALL_MS = 2000, STALL_PREFILL_MS = 5000 };

static void on_poll(uv_timer_t *t);

void link_set_state(struct link *l, enum link_state state)
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
void link_kick(struct link *l)
{
    uv_timer_start(&l->poll, on_poll, l->is_draining ? 1 : 0, LIMIT_BELL_POLL_MS);
}

/* At rest nothing ticks. */
void link_rest(struct link *l)
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

void link_forget(struct link *l, struct journal_entry *en)
{
    outbox_remove(l, en);
    l->n_paused -= en->wants_pause;
    bool others_go = trial_note(&l->trial, en, 0);
    journal_remove(&l->journal, en);
    if (others_go && l->state == LINK_READY) {
        link_send_all(l);
    }
}

void link_drop(struct link *l, struct journal_entry *en)
{
    en->on_event = NULL;
    en->owner = NULL;
    if (!en->is_sent && !en->is_bulk_passed) {
        link_forget(l, en); /* the worker has never heard of it */
        return;
    }
    en->wants_cancel = true;
    outbox_add(l, en);
    link_kick(l);
}

static void leave(struct link *l, struct journal_entry *en)
{
    if (!en->is_suspect) {
        link_drop(l, en);
        return;
    }
    en->on_event = NULL;
    en->owner = NULL;
    en->is_left = true;
}

static void fail(struct link *l, struct journal_entry *en, const struct err *e,
                 void (*end)(struct link *l, struct journal_entry *en))
{
    struct link_event ev = {.type = MSG_FAIL, .err = *e};
    uint64_t id = en->id;
    link_event_fn *on_event = en->on_event;
    void *owner = en->owner;
    end(l, en); /* first: the owner may submit or cancel others */
    if (on_event) {
        on_event(owner, id, &ev);
    }
}

void link_fail(struct link *l, struct journal_entry *en, const struct err *e)
{
    fail(l, en, e, link_drop);
}

void link_give_up(struct link *l, struct journal_entry *en, const struct err *e)
{
    fail(l, en, e, leave);
}

/* What may go now goes, in order of arrival. */
void link_send_all(struct link *l)
{
    trial_arrange(&l->trial, &l->journal);
    for (struct journal_entry *en = l->journal.oldest; en; en = en->newer) {
        outbox_add(l, en);
    }
    link_kick(l);
}

/* ---- the rings ---- */

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
            epoch_breach(l, &e);
            return;
        }
        outbox_remove(l, en);
        if (rc < 0) { /* the memfd or the channel failed: this request cannot go */
            struct err e;
            err_set(&e, rc, "passing the request to the worker");
            link_fail(l, en, &e);
        }
    }
}

static void drain(struct link *l)
{
    if (l->events.dead) {
        return;
    }
    l->is_draining = true;
    ring_wake(&l->events);
    bool is_empty = intake_batch(l);
    flush_outbox(l); /* the worker has read, too: there may be room */
    if (is_empty && !l->events.dead) {
        is_empty = ring_sleep(&l->events);
    }
    if (is_empty) {
        link_rest(l);
    } else {
        link_kick(l); /* others first, then on without waiting for a bell */
    }
    l->is_draining = false;
}

static void on_poll(uv_timer_t *t)
{
    struct link *l = t->data;
    drain(l);
    watch(l);
}

void link_on_bell(uv_poll_t *p, int status, int events)
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
    epoch_release(l);
    outbox_init(l);
    journal_finish(&l->journal);
    uv_close((uv_handle_t *)&l->poll, NULL);
    uv_close((uv_handle_t *)&l->patience, NULL);
    notice_close(&l->notice);
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
    for (const struct journal_entry *en = l->journal.oldest; en; en = en->newer) {
        ret->n_waiting += en->waits_ms > 0 && !en->is_left;
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
        ret->kv_restored = atomic_load_explicit(&s->kv_restored, memory_order_relaxed);
        ret->kv_broken = atomic_load_explicit(&s->kv_broken, memory_order_relaxed);
        ret->n_ways_off = atomic_load_explicit(&s->n_ways_off, memory_order_relaxed);
        ret->weights_bytes = atomic_load_explicit(&s->weights_bytes, memory_order_relaxed);
        ret->cache_bytes = atomic_load_explicit(&s->cache_bytes, memory_order_relaxed);
        ret->n_preempted = atomic_load_explicit(&s->n_preempted, memory_order_relaxed);
        ret->busy_ns = atomic_load_explicit(&s->busy_ns, memory_order_relaxed);
        ret->compute_ns = atomic_load_explicit(&s->compute_ns, memory_order_relaxed);
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
        ret->is_own_fault = l->why.is_counted;
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
    link_kick(l);
    return 0;
}

void link_cancel(struct link *l, uint64_t id)
{
    struct journal_entry *en = journal_find(&l->journal, id);
    if (en) {
        leave(l, en);
    }
}

void link_pause(struct link *l, uint64_t id, bool pause)
{
    struct journal_entry *en = journal_find(&l->journal, id);
    if (en && en->wants_pause != pause) {
        en->wants_pause = pause;
        l->n_paused = pause ? l->n_paused + 1 : l->n_paused - 1;
        outbox_add(l, en);
        link_kick(l);
    }
}

void link_poison(struct link *l, const struct msg_poison *m)
{
    uint64_t now_ms = clock_ms(), longest_ms = (uint64_t)LIMIT_POISON_S * 1000;
    if (m->until_ms == 0) { /* the supervisor has forgiven as well */
        l->n_forgiving -= l->n_forgiving > 0;
        return;
    }
    if (l->n_forgiving > 0) { /* said before it knew */
        return;
    }
    poison_add(&l->poison, m->digest, m->since_unix_s, MIN(m->until_ms, now_ms + longest_ms),
               now_ms);
}

void link_forgive(struct link *l)
{
    struct msg_poison none = {.until_ms = 0};
    poison_clear(&l->poison);
    l->n_forgiving++;
    notice_send(&l->notice, MSG_POISON, l->epoch, &none, sizeof(none));
}
