/* Which deaths are reported, and when a worker may be ended (see crash.h); runs in the supervisor's
 * loop. Never blocks, touches no file. Invariant: a condemned worker is let go in any case, by the
 * reporter's word, by its end, or by the clock (child.c). */
#include "safety/crash.h"
#include "ipc/memfd.h"
#include "safety/dialog.h"
#include "safety/launch.h"
#include "shared/clock.h"
#include "shared/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void crash_init(struct supervisor *s)
{
    s->crash = (struct crash){.fds = {-1, -1}, .n_tokens = CRASH_BURST};
}

static void close_fds(struct crash *c)
{
    for (size_t i = 0; i < COUNT_OF(c->fds); i++) {
        if (c->fds[i] >= 0) {
            close(c->fds[i]);
            c->fds[i] = -1;
        }
    }
}

void crash_finish(struct supervisor *s)
{
    close_fds(&s->crash);
}

/* ---- facts ---- */

/* The page and the end of stderr, as they are now. What cannot be had is left out. */
static void take_evidence(struct supervisor *s, const struct child *c)
{
    struct crash *k = &s->crash;
    static char tail[TAIL_BYTES];
    close_fds(k);
    k->facts.flags &= ~(uint32_t)(MSG_CRASH_PAGE | MSG_CRASH_STDERR);
    if (c != &s->worker) {
        return;
    }
    int page = s->epoch.id == 0 ? -1 : fcntl(s->epoch.status_read_fd, F_DUPFD_CLOEXEC, 0);
    size_t n = tail_copy(&s->tail, tail);
    int text = n == 0 ? -1 : memfd_create_const("rocmforge-stderr", tail, n);
    if (page >= 0) {
        k->fds[0] = page;
        k->facts.flags |= MSG_CRASH_PAGE;
    }
    if (text >= 0) {
        k->fds[page >= 0 ? 1 : 0] = text;
        k->facts.flags |= MSG_CRASH_STDERR;
    }
}

static void take_facts(struct supervisor *s, const struct child *c, uint64_t now_ms)
{
    struct msg_crash *f = &s->crash.facts;
    *f = (struct msg_crash){.epoch = c->epoch,
                            .unix_ms = (int64_t)(clock_unix_ns() / 1000000),
                            .life_ms = now_ms - c->start_ms,
                            .pid = (uint32_t)c->pid,
                            .exit_code = -1,
                            .rung = s->degrade.worker_rung,
                            .n_skipped = (uint32_t)s->crash.n_skipped,
                            .flags = (c->was_ready ? MSG_CRASH_READY : 0u) |
                                     (c->holds_gpu ? MSG_CRASH_GPU : 0u)};
    snprintf(f->who, sizeof(f->who), "%s", c->name);
    snprintf(f->reason, sizeof(f->reason), "%.300s", c->reason);
    take_evidence(s, c);
}

/* To the reporter, when it has greeted. */
static void send_facts(struct supervisor *s, uint64_t now_ms)
{
    struct crash *k = &s->crash;
    if (!k->is_waiting || !k->is_reporting || s->reporter.state != CHILD_GREETED) {
        return;
    }
    int n = (k->fds[0] >= 0) + (k->fds[1] >= 0);
    dialog_say(s, &s->reporter, MSG_CRASH, &k->facts, sizeof(k->facts), k->fds, n, now_ms);
    close_fds(k);
    k->is_waiting = false;
}

/* ---- one report ---- */

static bool may_report(struct supervisor *s, uint64_t now_ms)
{
    struct crash *k = &s->crash;
    uint64_t n = (now_ms - k->refill_ms) / CRASH_INTERVAL_MS;
    if (n > 0) {
        k->n_tokens = (unsigned)MIN(k->n_tokens + n, (uint64_t)CRASH_BURST);
        k->refill_ms += n * CRASH_INTERVAL_MS;
    }
    return s->cfg->v[CONFIG_crash_reports].i > 0 && *s->options->state_dir && k->n_tokens > 0 &&
           !k->is_waiting;
}

/* While the last report is still being written, the next one waits. */
static void start_reporter(struct supervisor *s, uint64_t now_ms)
{
    struct crash *k = &s->crash;
    if (k->is_waiting && s->reporter.state == CHILD_NONE) {
        k->is_reporting = true;
        int rc = launch_helper(s, &s->reporter, "--report", s->options->state_dir, NULL, now_ms);
        if (rc != 0) {
            log_warn("no crash report: the reporter cannot be started: %s", err_text(rc));
            k->is_waiting = k->is_open = false;
            child_execute(&s->worker, now_ms);
        }
    }
}

static bool begin(struct supervisor *s, const struct child *c, uint64_t now_ms)
{
    struct crash *k = &s->crash;
    if (!may_report(s, now_ms)) {
        return false;
    }
    k->is_reporting = false;
    k->n_tokens--;
    k->is_open = true;
    k->subject = c->pid;
    take_facts(s, c, now_ms);
    k->n_skipped = 0;
    k->is_waiting = true;
    start_reporter(s, now_ms);
    return true;
}

void crash_of(struct supervisor *s, const struct child *c, const struct policy_death *d,
              const struct policy_decision *r, const char *blame, const char *next, uint64_t now_ms)
{
    struct crash *k = &s->crash;
    bool is_open = k->is_open && k->subject == c->pid;
    if (is_open) {
        take_facts(s, c, now_ms);
    } else if (r->blame == POLICY_ORDERED || (policy_is_refusal(d) && !c->was_ready)) {
        return; /* it said why, or we wanted it so */
    } else if (!begin(s, c, now_ms)) {
        k->n_skipped++;
        s->tally.n_unreported++;
        return;
    }
    struct msg_crash *f = &k->facts;
    f->exit_code = d->exit_code;
    f->signal = d->signal;
    f->flags |= MSG_CRASH_IS_OVER | (d->is_oom_kill ? MSG_CRASH_OOM : 0u) |
                (d->signal == 0 && d->exit_code < 0 ? MSG_CRASH_STUCK : 0u);
    snprintf(f->blame, sizeof(f->blame), "%s", blame);
    snprintf(f->next, sizeof(f->next), "%s", next);
    k->is_open = false;
    k->is_waiting = true;
    send_facts(s, now_ms);
}

void crash_said(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms)
{
    struct msg_crashed said;
    memcpy(&said, m->payload, sizeof(said));
    if (said.err != 0) {
        log_warn("no crash report could be written in %s: %s", s->options->state_dir,
                 err_text(said.err));
    } else {
        log_info("crash report %s (rocmforge report)", said.name);
        s->tally.n_reports++;
    }
    child_execute(&s->worker, now_ms);
}

/* ---- helpers ---- */

void crash_greeted(struct supervisor *s, struct child *c, uint64_t now_ms)
{
    if (c == &s->reporter) {
        send_facts(s, now_ms);
    } else if (s->crash.is_asked) {
        dialog_say(s, c, MSG_ASK, &s->crash.asks[0], sizeof(s->crash.asks[0]), NULL, 0, now_ms);
    }
}

static void answer(struct supervisor *s, uint64_t ask, int err, const int *fds, int n_fds,
                   uint64_t now_ms)
{
    struct msg_told told = {.ask = ask, .err = err};
    dialog_say(s, &s->front, MSG_TOLD, &told, sizeof(told), fds, n_fds, now_ms);
}

/* The first question is answered; the next has its turn when the clerk is gone. */
static void pop_ask(struct supervisor *s, int err, const int *fds, int n_fds, uint64_t now_ms)
{
    struct crash *k = &s->crash;
    answer(s, k->asks[0].ask, err, fds, n_fds, now_ms);
    k->n_asks--;
    memmove(k->asks, k->asks + 1, k->n_asks * sizeof(k->asks[0]));
    k->is_asked = false;
}

static void start_clerk(struct supervisor *s, uint64_t now_ms)
{
    struct crash *k = &s->crash;
    if (k->n_asks > 0 && s->clerk.state == CHILD_NONE && s->phase != SUPERVISOR_ENDING) {
        int rc = launch_helper(s, &s->clerk, "--reports", s->options->state_dir, NULL, now_ms);
        k->is_asked = rc == 0;
        if (rc != 0) {
            pop_ask(s, ERR_BUSY, NULL, 0, now_ms);
        }
    }
}

void crash_ask(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms)
{
    struct crash *k = &s->crash;
    struct msg_ask ask;
    memcpy(&ask, m->payload, sizeof(ask));
    if (!*s->options->state_dir || k->n_asks == SUPERVISOR_ASKS) {
        answer(s, ask.ask, k->n_asks > 0 ? ERR_BUSY : ERR_NO_REPORTS, NULL, 0, now_ms);
    } else {
        k->asks[k->n_asks++] = ask;
    }
}

void crash_front_died(struct supervisor *s)
{
    s->crash.n_asks = 0;
    s->crash.is_asked = false;
    s->crash.told = (struct msg_tally){0}; /* the next one is told anew */
}

void crash_told(struct supervisor *s, struct channel_msg *m, uint64_t now_ms)
{
    struct msg_told told;
    memcpy(&told, m->payload, sizeof(told));
    if (s->crash.is_asked && told.ask == s->crash.asks[0].ask) {
        pop_ask(s, told.err, m->fds, m->n_fds, now_ms);
    }
}

void crash_helper_died(struct supervisor *s, const struct child *c, uint64_t now_ms)
{
    struct crash *k = &s->crash;
    if (c == &s->clerk) {
        if (k->is_asked) {
            pop_ask(s, ERR_INTERNAL, NULL, 0, now_ms);
        }
        return;
    }
    if (!k->is_reporting) {
        return; /* it was done; the next report begins in crash_tick */
    }
    k->is_reporting = false;
    child_execute(&s->worker, now_ms);
    if (k->is_waiting || k->is_open) {
        log_warn("the reporter ended before it had all; the crash report is not complete");
    }
    k->is_waiting = k->is_open = false;
    close_fds(k);
}

static void end_late(struct child *c, uint64_t limit_ms, uint64_t now_ms)
{
    if (child_is_alive(c) && now_ms - c->start_ms > limit_ms) {
        child_condemn(c, now_ms, "it did not end within %.1f s", (double)limit_ms / 1000);
    }
}

void crash_tick(struct supervisor *s, uint64_t now_ms)
{
    struct child *w = &s->worker;
    if (w->state == CHILD_CONDEMNED && !(s->crash.is_open && s->crash.subject == w->pid) &&
        !begin(s, w, now_ms)) {
        child_execute(w, now_ms);
    }
    start_reporter(s, now_ms);
    start_clerk(s, now_ms);
    end_late(&s->reporter, CRASH_REPORT_MS, now_ms);
    end_late(&s->clerk, CRASH_ASK_MS, now_ms);
    if (s->phase == SUPERVISOR_ENDING && child_is_alive(&s->reporter) &&
        now_ms - s->ending_ms > CRASH_LAST_MS) {
        child_kill(&s->reporter, now_ms);
    }
    if (memcmp(&s->tally, &s->crash.told, sizeof(s->tally)) != 0 && !s->options->is_terminal &&
        child_is_alive(&s->front) && s->front.state >= CHILD_GREETED) {
        s->crash.told = s->tally;
        dialog_say(s, &s->front, MSG_TALLY, &s->tally, sizeof(s->tally), NULL, 0, now_ms);
    }
}
