/* What the children say and what we answer; runs in the supervisor's loop. Never blocks. Messages
 * were checked against the table (ipc/msg.def) before they come here; what is checked here is
 * whether they fit the epoch and the moment. */
#include "safety/dialog.h"
#include "safety/crash.h"
#include "safety/giveback.h"
#include "safety/launch.h"
#include "safety/monitor.h"
#include "safety/notify.h"
#include "shared/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGES_PER_TURN = 64 }; /* one child must not starve the loop */

bool dialog_say(struct supervisor *s, struct child *c, uint32_t type, const void *payload,
                size_t len, const int *fds, int n_fds, uint64_t now_ms)
{
    if (c->state < CHILD_STARTED || c->state >= CHILD_KILLED) {
        return false;
    }
    int rc = channel_send(&c->channel, type, s->epoch.id, payload, len, fds, n_fds);
    if (rc != 0 && rc != ERR_PEER_GONE) {
        child_condemn(c, now_ms, "%s could not be sent: %s", msg_info(type)->name, err_text(rc));
    }
    return rc == 0;
}

static void attach(struct supervisor *s, struct child *c, uint64_t now_ms)
{
    int rc = epoch_attach(&s->epoch, &c->channel);
    if (rc != 0) {
        if (rc != ERR_PEER_GONE) {
            child_condemn(c, now_ms, "ATTACH could not be sent: %s", err_text(rc));
        }
        return;
    }
    c->channel.state = MSG_STATE_RUNNING;
    c->state = CHILD_ATTACHED;
}

/* Brings worker and front together, whichever came last. The rings of a gateway that died are not
 * used again: its successor and the worker get new ones, as soon as the worker is through loading.
 */
static void pair(struct supervisor *s, uint64_t now_ms)
{
    struct child *w = &s->worker, *f = &s->front;
    if (s->phase != SUPERVISOR_SERVING || s->is_front_attached || !child_is_alive(w) ||
        w->state < CHILD_ATTACHED || !child_is_alive(f) || f->state < CHILD_GREETED) {
        return;
    }
    if (s->is_epoch_used) {
        if (w->state != CHILD_READY) {
            return; /* called again at its READY */
        }
        int rc = launch_epoch(s, now_ms);
        if (rc != 0) {
            log_error("no new epoch: %s", err_text(rc));
            child_end(w, CHILD_GRACE_MS, now_ms); /* its successor tries again */
            return;
        }
        w->epoch = s->epoch.id;
        attach(s, w, now_ms);
        log_info("worker goes on with the new %s: epoch %llu", f->name,
                 (unsigned long long)s->epoch.id);
    }
    attach(s, f, now_ms);
    s->is_front_attached = s->is_epoch_used = f->state == CHILD_ATTACHED;
}

/* What the last gateway refused is refused by the next. */
static void hand_on_poison(struct supervisor *s, uint64_t now_ms)
{
    poison_expire(&s->poison, now_ms);
    for (size_t i = 0; i < s->poison.n; i++) {
        const struct poison_row *row = &s->poison.rows[i];
        struct msg_poison m = {.since_unix_s = row->since_unix_s,
                               .until_ms = row->until_ms};
        memcpy(m.digest, row->digest, sizeof(m.digest));
        dialog_say(s, &s->front, MSG_POISON, &m, sizeof(m), NULL, 0, now_ms);
    }
}

static void on_poison(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms)
{
    struct msg_poison p;
    memcpy(&p, m->payload, sizeof(p));
    if (p.until_ms == 0) {
        poison_clear(&s->poison);
        dialog_say(s, &s->front, MSG_POISON, &p, sizeof(p), NULL, 0, now_ms);
    } else {
        ladder_pardon(&s->degrade.ladder); /* it was not the GPU */
        uint64_t longest_ms = (uint64_t)LIMIT_POISON_S * 1000;
        poison_add(&s->poison, p.digest, p.since_unix_s, MIN(p.until_ms, now_ms + longest_ms),
                   now_ms);
    }
}

static void on_hello(struct supervisor *s, struct child *c, const struct channel_msg *m,
                     uint64_t now_ms)
{
    struct msg_hello hello;
    memcpy(&hello, m->payload, sizeof(hello));
    if (hello.protocol != MSG_PROTOCOL_VERSION || strcmp(hello.version, ROCMFORGE_VERSION) != 0) {
        /* An update replaced the programs under us. Only a restart of all helps. */
        char text[2 * ERR_DETAIL_BYTES];
        struct err e;
        err_set(&e, ERR_VERSION, "%s is of version %.31s (protocol %u), this is %s (protocol %d)",
                c->name, hello.version, (unsigned)hello.protocol, ROCMFORGE_VERSION,
                MSG_PROTOCOL_VERSION);
        log_error("%s", err_format(&e, text, sizeof(text)));
        supervisor_end(s, err_exit_code(ERR_VERSION), now_ms);
        return;
    }
    if (hello.pid != (uint32_t)c->pid || hello.epoch != c->epoch) {
        child_condemn(c, now_ms, "it greets as pid %u of epoch %llu, but is pid %d of epoch %llu",
                      (unsigned)hello.pid, (unsigned long long)hello.epoch, (int)c->pid,
                      (unsigned long long)c->epoch);
        return;
    }
    c->state = CHILD_GREETED;
    c->deadline_ms = UINT64_MAX;
    if (c == &s->front) {
        s->front_seen_ms = s->ping_ms = now_ms;
    }
    c->channel.state = MSG_STATE_GREETED;
    int rc = launch_config(s, c);
    if (rc != 0 && rc != ERR_PEER_GONE) { /* a probe may have said all and left */
        child_condemn(c, now_ms, "CONFIG could not be sent: %s", err_text(rc));
        return;
    }
    if (c == &s->front) {
        hand_on_poison(s, now_ms);
        monitor_tell(s, now_ms);
    }
    const struct listen_set *l = &s->listening;
    if (c == &s->front && l->n_tcp + l->n_unix > 0) {
        struct msg_listen listen = {.n_tcp = (uint32_t)l->n_tcp, .n_unix = (uint32_t)l->n_unix};
        dialog_say(s, c, MSG_LISTEN, &listen, sizeof(listen), l->fds, l->n_tcp + l->n_unix, now_ms);
    }
    if (c == &s->worker) {
        rc = vault_give(&s->vault, &c->channel, s->epoch.id);
        if (rc != 0 && rc != ERR_PEER_GONE) {
            child_condemn(c, now_ms, "STORE could not be sent: %s", err_text(rc));
            return;
        }
        attach(s, c, now_ms);
    } else if (c == &s->reporter || c == &s->clerk) {
        crash_greeted(s, c, now_ms);
    }
    pair(s, now_ms);
}

static void on_ready(struct supervisor *s, struct child *c, const struct channel_msg *m,
                     uint64_t now_ms)
{
    struct msg_ready ready;
    memcpy(&ready, m->payload, sizeof(ready));
    if (ready.epoch != s->epoch.id || c->state != CHILD_ATTACHED) {
        return; /* of a worker that died meanwhile */
    }
    bool is_again = c->was_ready;
    c->state = CHILD_READY;
    c->was_ready = true;
    if (c == &s->worker && is_again) {
        return;
    }
    if (c == &s->worker) {
        policy_ready(&s->worker_policy, now_ms);
        s->load_ms = now_ms - c->start_ms;
        char since[64] = "";
        if (s->died_ms != 0) {
            snprintf(since, sizeof(since), ", %.3f s after the death of the last one",
                     (double)(now_ms - s->died_ms) / 1000);
        }
        log_info("worker is ready: epoch %llu, pid %d, loaded in %.3f s%s",
                 (unsigned long long)s->epoch.id, (int)c->pid, (double)s->load_ms / 1000, since);
        pair(s, now_ms);
        return;
    }
    policy_ready(&s->front_policy, now_ms);
    log_debug("%s takes requests for epoch %llu", c->name, (unsigned long long)s->epoch.id);
    if (s->phase == SUPERVISOR_SERVING) {
        notify_send("READY=1\nSTATUS=serving, epoch %llu", (unsigned long long)s->epoch.id);
        s->was_ready = true;
    }
}

/* True when the message was passed on, or need not be. */
static bool pass_bulk(struct supervisor *s, struct channel_msg *m, uint64_t now_ms)
{
    struct child *w = &s->worker;
    if (m->epoch != s->epoch.id || !child_is_alive(w) || w->channel.state != MSG_STATE_RUNNING) {
        return true; /* its worker is gone; the gateway learns that from DETACH */
    }
    int rc = channel_send(&w->channel, MSG_BULK, m->epoch, m->payload, m->len, m->fds, m->n_fds);
    if (rc == -EAGAIN) {
        return false;
    }
    if (rc != 0 && rc != ERR_PEER_GONE) {
        child_condemn(w, now_ms, "BULK could not be sent: %s", err_text(rc));
    }
    return true;
}

void dialog_flush(struct supervisor *s, uint64_t now_ms)
{
    if (s->has_held && pass_bulk(s, &s->held, now_ms)) {
        channel_msg_finish(&s->held);
        s->has_held = false;
    }
}

static void on_breach(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms)
{
    struct msg_breach breach;
    memcpy(&breach, m->payload, sizeof(breach));
    if (breach.epoch == s->epoch.id) {
        child_condemn(&s->worker, now_ms, "it broke the protocol of the ring: %s", breach.detail);
    }
}

void dialog_send_verdict(struct supervisor *s, int err, const char *detail, uint64_t now_ms)
{
    struct msg_verdict v = {.err = err};
    snprintf(v.detail, sizeof(v.detail), "%s", detail);
    s->worker.holds_gpu = err == 0;
    if (err != 0) {
        log_warn("preflight of epoch %llu: %s: %s; %s", (unsigned long long)s->epoch.id,
                 err_text(err), detail, err_remedy(err));
    }
    if (child_is_alive(&s->worker)) {
        dialog_say(s, &s->worker, MSG_VERDICT, &v, sizeof(v), NULL, 0, now_ms);
    }
}

static void on_preflight(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms)
{
    struct msg_preflight preflight;
    memcpy(&preflight, m->payload, sizeof(preflight));
    if (s->probe.state != CHILD_NONE) {
        child_condemn(&s->worker, now_ms, "it asks for a second preflight");
        return;
    }
    if (s->card.is_wedged) {
        dialog_send_verdict(s, ERR_GPU_WEDGED, "the kernel says so", now_ms);
        return;
    }
    int rc = launch_probe(s, preflight.device, now_ms);
    if (rc != 0) {
        char detail[MSG_DETAIL_BYTES];
        snprintf(detail, sizeof(detail), "the probe could not be started: %s", err_text(rc));
        dialog_send_verdict(s, ERR_NO_GPU, detail, now_ms);
    }
}

static void on_stage(const struct channel_msg *m)
{
    struct msg_stage stage;
    memcpy(&stage, m->payload, sizeof(stage));
    double ms = (double)stage.ns / 1e6;
    if (stage.status < 0) {
        log_info("preflight stage %s failed in %.1f ms: %s; %s", stage.name, ms, stage.detail,
                 stage.remedy); /* the verdict says it to everybody */
    } else if (*stage.remedy) {
        log_warn("preflight stage %s passed in %.1f ms: %s; %s", stage.name, ms, stage.detail,
                 stage.remedy);
    } else {
        log_info("preflight stage %s %s in %.1f ms: %s", stage.name,
                 stage.status == 0 ? "passed" : "skipped", ms, stage.detail);
    }
}

static void on_verdict(struct supervisor *s, struct child *c, const struct channel_msg *m,
                       uint64_t now_ms)
{
    struct msg_verdict v;
    memcpy(&v, m->payload, sizeof(v));
    if (!c->was_ready) { /* one verdict is all a probe is for */
        c->was_ready = true;
        bool is_stale = s->card.is_wedged; /* since it was tried */
        int err = is_stale ? ERR_GPU_WEDGED : v.err > 0 ? ERR_PROTOCOL : v.err;
        dialog_send_verdict(s, err, is_stale ? "the kernel says so" : v.detail, now_ms);
    }
}

static void on_store(struct supervisor *s, struct child *c, struct channel_msg *m, uint64_t now_ms)
{
    struct msg_store store;
    memcpy(&store, m->payload, sizeof(store));
    if (m->type == MSG_DROP) {
        vault_drop(&s->vault, &store);
        return;
    }
    int rc = vault_keep(&s->vault, &store, m->fds[0]);
    if (rc != 0) {
        child_condemn(c, now_ms, "a store of kind '%s' and %llu bytes is not as promised",
                      store_info(store.kind)->word, (unsigned long long)store.bytes);
        return;
    }
    m->fds[0] = -1;
    log_debug("%zu stores are kept, %.1f MB in memory", s->vault.n,
              (double)vault_resident_bytes(&s->vault) / 1e6);
}

/* False: it has nothing to finish. */
static bool ask_to_drain(struct supervisor *s, struct child *c, uint64_t deadline_ms,
                         uint64_t now_ms)
{
    struct msg_drain m = {.deadline_ms = deadline_ms};
    c->is_drained = !child_is_alive(c) || c->state < CHILD_GREETED;
    if (!c->is_drained) {
        dialog_say(s, c, MSG_DRAIN, &m, sizeof(m), NULL, 0, now_ms);
    }
    return !c->is_drained;
}

/* The worker's turn comes when the front needs it no more: what the front has taken, and may be
 * sending just now, is still to be computed. */
static void on_drained(struct supervisor *s, struct child *c, uint64_t now_ms)
{
    c->is_drained = true;
    if (c == &s->front && s->phase == SUPERVISOR_DRAINING) {
        ask_to_drain(s, &s->worker, MAX(s->drain_deadline_ms, now_ms) - now_ms, now_ms);
    }
}

static void handle(struct supervisor *s, struct child *c, struct channel_msg *m, uint64_t now_ms)
{
    switch (m->type) {
    case MSG_HELLO:
        on_hello(s, c, m, now_ms);
        break;
    case MSG_READY:
        on_ready(s, c, m, now_ms);
        break;
    case MSG_DRAINED:
        on_drained(s, c, now_ms);
        break;
    case MSG_PING:
        s->front_seen_ms = now_ms;
        break;
    case MSG_BULK:
        if (!pass_bulk(s, m, now_ms)) {
            s->held = *m;
            s->has_held = true;
            m->n_fds = 0;
        }
        break;
    case MSG_BREACH:
        on_breach(s, m, now_ms);
        break;
    case MSG_POISON:
        on_poison(s, m, now_ms);
        break;
    case MSG_PREFLIGHT:
        on_preflight(s, m, now_ms);
        break;
    case MSG_STAGE:
        on_stage(m);
        break;
    case MSG_SLEEP:
        if (c == &s->monitor) {
            monitor_slept(s, m, now_ms);
        }
        break;
    case MSG_VRAM:
        if (c == &s->monitor) {
            monitor_saw(s, m, now_ms);
        }
        break;
    case MSG_CARD:
        if (c == &s->monitor) {
            monitor_heard(s, m, now_ms);
        }
        break;
    case MSG_GAVE:
        giveback_heard(s, m, now_ms);
        break;
    case MSG_VERDICT:
        if (c == &s->probe) {
            on_verdict(s, c, m, now_ms);
        }
        break;
    case MSG_CRASHED:
        if (c == &s->reporter) {
            crash_said(s, m, now_ms);
        }
        break;
    case MSG_ASK:
        crash_ask(s, m, now_ms);
        break;
    case MSG_TOLD:
        if (c == &s->clerk) {
            crash_told(s, m, now_ms);
        }
        break;
    case MSG_STORE:
    case MSG_DROP:
        on_store(s, c, m, now_ms);
        break;
    }
}

void dialog_read(struct supervisor *s, struct child *c, uint64_t now_ms)
{
    struct channel_msg m;
    for (int i = 0; i < MESSAGES_PER_TURN && !(c == &s->front && s->has_held); i++) {
        int rc = channel_recv(&c->channel, &m);
        if (rc == ERR_PEER_GONE) {
            channel_close(&c->channel);
            if (child_is_alive(c)) { /* its death is about to be seen, or it has closed its end */
                c->deadline_ms = now_ms + CHILD_GRACE_MS;
            }
            return;
        }
        if (rc < 0) {
            child_condemn(c, now_ms, "it broke the control protocol: %s", err_text(rc));
            channel_close(&c->channel);
            return;
        }
        if (rc == 0) {
            return;
        }
        if (child_is_alive(c)) { /* what one on its way out still says changes nothing */
            handle(s, c, &m, now_ms);
        }
        channel_msg_finish(&m);
    }
}

void dialog_ping(struct supervisor *s, uint64_t silence_ms, uint64_t now_ms)
{
    struct child *f = &s->front;
    if (s->options->is_terminal || !child_is_alive(f) || f->state < CHILD_GREETED) {
        return;
    }
    if (now_ms - s->ping_ms > silence_ms / 2) { /* we did not run for a while ourselves */
        s->front_seen_ms = now_ms;
    }
    if (now_ms - s->front_seen_ms >= silence_ms) {
        child_condemn(f, now_ms, "its loop did not turn for %.1f s",
                      (double)(now_ms - s->front_seen_ms) / 1000);
        return;
    }
    if (now_ms - s->ping_ms < silence_ms / 4) {
        return;
    }
    struct msg_empty m = {0};
    s->ping_ms = now_ms;
    dialog_say(s, f, MSG_PING, &m, sizeof(m), NULL, 0, now_ms);
}

void dialog_drain(struct supervisor *s, uint64_t deadline_ms, uint64_t now_ms)
{
    if (!ask_to_drain(s, &s->front, deadline_ms, now_ms)) {
        on_drained(s, &s->front, now_ms);
    }
}
