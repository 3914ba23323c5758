/* How epochs begin and end (see epoch.h). Runs on the gateway's loop, blocks never. */
#include "gateway/epoch.h"
#include "gateway/intake.h"
#include "gateway/outbox.h"
#include "ipc/memfd.h"
#include "shared/clock.h"
#include "shared/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How often requests without a worker are looked at. */
enum { PATIENCE_MS = 250 };

/* ---- the end ---- */

static void close_bell(uv_handle_t *h)
{
    free(h);
}

/* Lets go of everything that belonged to the epoch. */
void epoch_release(struct link *l)
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

/* What a client is told of the worker's absence: why it is absent, if that may pass. */
static int reason(const struct link *l)
{
    return err_http(l->why.err) == 503 ? l->why.err : ERR_WORKER_DOWN;
}

static void fail_all(struct link *l)
{
    struct err e;
    err_set(&e, reason(l), "%s", l->why.detail);
    uint64_t ids[LIMIT_LIVE_REQUESTS];
    size_t n = journal_ids(&l->journal, ids);
    for (size_t i = 0; i < n; i++) {
        struct journal_entry *en = journal_find(&l->journal, ids[i]);
        if (en) {
            link_fail(l, en, &e);
        }
    }
}

/* Its digest is refused from now on, even if its own client has left. */
static void refuse(struct link *l, const struct journal_entry *en)
{
    uint8_t digest[HASH_SHA256_BYTES];
    journal_digest(en->type, &en->payload, digest);
    uint64_t now_ms = clock_ms();
    struct msg_poison m = {.since_unix_s = clock_unix_s(),
                           .until_ms = now_ms + (uint64_t)LIMIT_POISON_S * 1000};
    memcpy(m.digest, digest, sizeof(m.digest));
    poison_add(&l->poison, m.digest, m.since_unix_s, m.until_ms, now_ms);
    notice_send(&l->notice, MSG_POISON, l->epoch, &m, sizeof(m));
    log_error("request %llu brought the worker down twice; it is refused for %d minutes",
              (unsigned long long)en->id, LIMIT_POISON_S / 60);
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
               : err_set(e, reason(l), "%s; no worker went on within %.1f s", l->why.detail,
                         (double)(now - en->waits_ms) / 1000);
}

static void on_patience(uv_timer_t *t)
{
    struct link *l = t->data;
    bool any = false;
    uint64_t ids[LIMIT_LIVE_REQUESTS];
    size_t n = journal_ids(&l->journal, ids);
    for (size_t i = 0; i < n; i++) {
        struct journal_entry *en = journal_find(&l->journal, ids[i]);
        struct err e;
        if (!en || !en->waits_ms) {
            continue;
        }
        bool is_awaited = !en->is_left && !(l->state == LINK_READY && en->is_sent);
        if (is_awaited && end_of_patience(l, en, &e) < 0) {
            link_give_up(l, en, &e);
        }
        any = true;
    }
    if (!any) {
        uv_timer_stop(t);
    }
}

/* The convicted one fails, and with it those that are the same request sent again: each would bring
 * down two more workers before it is refused. */
static void fail_alike(struct link *l, const struct journal_entry *convicted, const char *detail)
{
    uint32_t type = convicted->type;
    size_t bytes = convicted->payload.len;
    uint8_t digest[HASH_SHA256_BYTES], other[HASH_SHA256_BYTES];
    journal_digest(type, &convicted->payload, digest);
    struct err e;
    err_set(&e, ERR_POISON, "%s", detail);
    uint64_t ids[LIMIT_LIVE_REQUESTS];
    size_t n = journal_ids(&l->journal, ids);
    for (size_t i = 0; i < n; i++) {
        struct journal_entry *en = journal_find(&l->journal, ids[i]);
        if (!en || en->type != type || en->payload.len != bytes) {
            continue;
        }
        journal_digest(type, &en->payload, other);
        if (memcmp(digest, other, sizeof(digest)) == 0) {
            link_fail(l, en, &e);
        }
    }
}

/* The worker is gone. Its requests wait for the next one, or end where none is to come. */
static void end_epoch(struct link *l, const struct msg_detach *why)
{
    link_set_state(l, LINK_DOWN);
    l->why = *why;
    l->n_models = 0;
    l->down_ms = l->down_ms ? l->down_ms : clock_ms();
    outbox_init(l);
    const struct journal_entry *convicted =
        trial_death(&l->trial, &l->journal, why->is_counted, ring_is_read(&l->requests));
    for (struct journal_entry *en, *next = l->journal.oldest; (en = next);) {
        next = en->newer;
        en->is_in_outbox = false;
        if (en->wants_cancel && !en->is_suspect) {
            link_forget(l, en);
        } else {
            en->is_left = en->is_left || en->wants_cancel;
            en->wants_cancel = false;
            journal_rewind(en);
            en->waits_ms = en->waits_ms ? en->waits_ms : clock_ms();
        }
    }
    if (convicted) {
        refuse(l, convicted);
        fail_alike(l, convicted, why->detail);
    }
    if (why->retry_after_ms == 0) {
        fail_all(l);
    } else if (l->journal.n_live > 0 && !uv_is_active((uv_handle_t *)&l->patience)) {
        /* Not begun anew by every death: with one every 200 ms it would never come. */
        uv_timer_start(&l->patience, on_patience, MIN(l->resume_ms, (uint64_t)PATIENCE_MS),
                       PATIENCE_MS);
    }
    link_rest(l);
    l->on_change(l->arg);
}

/* A worker serves: it gets what the dead one left. */
void epoch_resume(struct link *l)
{
    uint64_t ids[LIMIT_LIVE_REQUESTS];
    size_t n = journal_ids(&l->journal, ids);
    for (size_t i = 0; i < n; i++) {
        struct journal_entry *en = journal_find(&l->journal, ids[i]);
        struct err e;
        if (!en) {
            continue;
        }
        const struct msg_model *m = link_model(l, en->model.name, strlen(en->model.name));
        int rc =
            m ? journal_replay(en, m, &e)
              : err_set(&e, ERR_MODEL_NOT_FOUND, "'%s' is not served any more", en->model.name);
        if (rc < 0) {
            link_fail(l, en, &e);
        } else {
            l->n_resumed++;
        }
    }
    link_send_all(l);
}

void epoch_breach(struct link *l, const struct err *e)
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

/* ---- the beginning ---- */

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

int epoch_attach(struct link *l, const struct msg_attach *m, int fds[5])
{
    if (l->state == LINK_READY || l->state == LINK_LOADING) {
        struct msg_detach why = {.epoch = l->epoch, .err = ERR_WORKER_DOWN, .retry_after_ms = 1};
        snprintf(why.detail, sizeof(why.detail), "a new worker took its place");
        epoch_detach(l, &why);
    }
    epoch_release(l);
    int rc = map_epoch(l, m, fds);
    uv_poll_t *bell = rc == 0 ? calloc(1, sizeof(*bell)) : NULL;
    if (rc == 0) {
        rc = bell ? uv_poll_init(l->loop, bell, fds[3]) : -ENOMEM;
    }
    if (rc < 0) {
        free(bell);
        epoch_release(l);
        link_set_state(l, LINK_DOWN);
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
    link_set_state(l, LINK_LOADING);
    rc = uv_poll_start(bell, UV_READABLE, link_on_bell);
    link_kick(l); /* for what is there already */
    l->on_change(l->arg);
    return rc;
}

void epoch_detach(struct link *l, const struct msg_detach *m)
{
    if (m->epoch < l->epoch) {
        return; /* old news */
    }
    if (l->state == LINK_LOADING || l->state == LINK_READY) {
        while (!l->events.dead && !intake_batch(l)) {
        }
    }
    if (l->state == LINK_LOADING || l->state == LINK_READY) {
        end_epoch(l, m);
    } else { /* it never came, or broke the protocol before: only the outlook is new */
        link_set_state(l, LINK_DOWN);
        l->why = *m;
        if (m->retry_after_ms == 0) {
            fail_all(l);
        }
        l->on_change(l->arg);
    }
    epoch_release(l);
}
