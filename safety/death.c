/* What follows from a child's death; runs in the supervisor's loop. Never blocks. */
#include "safety/death.h"
#include "safety/card.h"
#include "safety/crash.h"
#include "safety/degrade.h"
#include "safety/dialog.h"
#include "safety/giveback.h"
#include "safety/launch.h"
#include "safety/monitor.h"
#include "safety/notify.h"
#include "safety/oom.h"
#include "safety/topology.h"
#include "shared/log.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

/* Text from the status page, printable. It is the worker's, so nothing about it is believed but its
 * length within bounds. */
static void take_text(const char *text, size_t n, char *ret, size_t bytes)
{
    n = MIN(n, bytes - 1);
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        ret[i] = (char)(c >= ' ' && c <= '~' ? c : '?');
    }
    ret[n] = '\0';
}

static void take_words(const struct status_page *page, char *ret, size_t bytes)
{
    size_t n = page ? atomic_load_explicit(&page->words_len, memory_order_acquire) : 0;
    take_text(page ? page->words : "", MIN(n, (size_t)STATUS_WORDS_BYTES), ret, bytes);
}

void death_doing(const struct status_page *page, char ret[STATUS_DOING_BYTES])
{
    size_t n = page ? atomic_load_explicit(&page->doing_len, memory_order_acquire) : 0;
    take_text(page ? page->doing : "", n, ret, STATUS_DOING_BYTES);
}

/* "was killed by SIGSEGV", "exited with 16"; neither: it hangs in the kernel. */
static void describe_end(const struct policy_death *d, char *ret, size_t bytes)
{
    if (d->signal == 0 && d->exit_code < 0) {
        snprintf(ret, bytes, "hangs in the kernel and cannot be killed");
    } else if (d->signal == 0) {
        snprintf(ret, bytes, "exited with %d", d->exit_code);
    } else {
        const char *name = sigabbrev_np(d->signal);
        snprintf(ret, bytes, "was killed by SIG%s%s", name ? name : "?",
                 d->is_oom_kill ? " (the kernel was out of memory)" : "");
    }
}

static void describe_next(const struct policy_decision *r, char *ret, size_t bytes)
{
    if (r->gives_up) {
        snprintf(ret, bytes, "not started again");
    } else if (r->delay_ms == 0) {
        snprintf(ret, bytes, "started again at once");
    } else {
        snprintf(ret, bytes, "started again in %.1f s", (double)r->delay_ms / 1000);
    }
}

static const char *const blames[] = {"as ordered", "by somebody else", "its own fault"};

static void report(const struct child *c, const struct policy_death *d,
                   const struct policy_decision *r, const char *where, const char *words,
                   uint64_t now_ms)
{
    char end[64], next[64];
    describe_end(d, end, sizeof(end));
    describe_next(r, next, sizeof(next));
    log_event(r->blame == POLICY_OWN ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN,
              "%s (pid %d) %s%s after %.2f s, %s%s%s; %s%s%s", c->name, (int)c->pid, end, where,
              (double)(now_ms - c->start_ms) / 1000, blames[r->blame], *c->reason ? ": " : "",
              c->reason, next, *words ? "; last words: " : "", words);
}

/* The gateway's clients are told, or wait, for this long. */
static void detach(struct supervisor *s, int err, uint64_t wait_ms, bool is_counted,
                   const char *detail, uint64_t now_ms)
{
    struct child *front = &s->front;
    if (s->is_front_attached && child_is_alive(front)) {
        struct msg_detach m = {.epoch = s->epoch.id,
                               .err = err,
                               .retry_after_ms = (uint32_t)MIN(wait_ms, (uint64_t)UINT32_MAX),
                               .is_counted = is_counted};
        snprintf(m.detail, sizeof(m.detail), "%s", detail);
        int rc = channel_send(&front->channel, MSG_DETACH, s->epoch.id, &m, sizeof(m), NULL, 0);
        if (rc != 0 && rc != ERR_PEER_GONE) {
            child_condemn(front, now_ms, "DETACH could not be sent: %s", err_text(rc));
        } else {
            front->state = CHILD_GREETED;
        }
    }
    s->is_front_attached = false;
}

static void drop_held(struct supervisor *s)
{
    if (s->has_held) {
        channel_msg_finish(&s->held);
        s->has_held = false;
    }
}

/* After the worker is gone, or given up on. */
static void end_epoch(struct supervisor *s, int err, uint64_t wait_ms, bool is_counted,
                      const char *detail, uint64_t now_ms)
{
    detach(s, s->phase == SUPERVISOR_SERVING ? err : ERR_DRAINING, wait_ms, is_counted, detail,
           now_ms);
    launch_end_epoch(s);
    drop_held(s);
    child_end(&s->probe, CHILD_LAST_MS, now_ms); /* nobody waits for its verdict */
}

/* Which of its predecessors' work the next worker is not given: all of it when memory ran out,
 * because stores are what a dead worker still holds; nor what was written by one that is perhaps
 * alive, or perhaps made this one crash before it was ready. */
static void distrust_stores(struct supervisor *s, const struct policy_death *d,
                            const struct policy_decision *r)
{
    bool is_alive = d->signal == 0 && d->exit_code < 0;
    if (d->is_oom_kill) {
        vault_clear(&s->vault);
    } else if (is_alive || (r->blame == POLICY_OWN && !s->worker.was_ready)) {
        vault_drop_writable(&s->vault);
    }
}

/* What clients are told of a worker that is gone. *is_hopeless: nobody waits for the next one,
 * which is tried all the same: what it would need is not in our hands. */
static int reason_of(const struct supervisor *s, const struct policy_death *d, bool *is_hopeless)
{
    bool is_stuck = d->signal == 0 && d->exit_code < 0;
    bool is_lost = is_stuck && s->worker.holds_gpu && !degrade_is_cpu(s);
    int code = d->signal == 0 ? d->exit_code : 0;
    bool is_stalled =
        is_stuck && !is_lost && !s->worker.was_ready; /* its model's disk does not answer */
    bool is_wedged = s->card.is_wedged && !degrade_is_cpu(s);
    *is_hopeless = is_lost || is_stalled || is_wedged || code == EXIT_MODEL || code == EXIT_MODEL_IO ||
                   code == EXIT_VRAM;
    return is_wedged                  ? ERR_GPU_WEDGED
           : is_lost                  ? ERR_GPU_STALLED
           : code == EXIT_GPU_LOCK    ? ERR_GPU_BUSY
           : is_stalled               ? ERR_MODEL_STALLED
           : code == EXIT_MODEL       ? ERR_MODEL_CHANGED
           : code == EXIT_MODEL_IO    ? ERR_MODEL_IO
           : code == EXIT_HOST_MEMORY ? ERR_NO_MEMORY
                                      : ERR_WORKER_DOWN;
}

static void count(struct msg_tally *t, const struct policy_death *d, enum policy_blame blame)
{
    t->n_own += blame == POLICY_OWN;
    t->n_external += blame == POLICY_EXTERNAL;
    t->n_ordered += blame == POLICY_ORDERED;
    t->n_oom += d->is_oom_kill;
    t->n_condemned += d->is_condemned;
}

static void write_report(struct supervisor *s, const struct child *c, const struct policy_death *d,
                         const struct policy_decision *r, uint64_t now_ms)
{
    char next[64];
    describe_next(r, next, sizeof(next));
    crash_of(s, c, d, r, blames[r->blame], next, now_ms);
}

static void death_of_worker(struct supervisor *s, struct policy_death *d, uint64_t now_ms)
{
    struct child *w = &s->worker;
    const struct status_page *page = s->epoch.page;
    char words[MSG_DETAIL_BYTES], where[96] = "";
    take_words(page, words, sizeof(words));
    d->has_words = *words != '\0';
    d->is_oom_kill =
        d->signal == SIGKILL && !d->is_ordered && oom_kills(topology_root()) > s->n_oom_kills;
    if (page) {
        uint64_t step = atomic_load_explicit(&page->step, memory_order_relaxed);
        d->has_worked = w->was_ready && step > 0;
        snprintf(where, sizeof(where), " in epoch %llu, %s, step %llu",
                 (unsigned long long)w->epoch,
                 status_phase_name(atomic_load_explicit(&page->phase, memory_order_relaxed)),
                 (unsigned long long)step);
    }
    d->is_explained = w->holds_gpu && card_explains(s, now_ms);
    if (d->is_explained && !d->is_ordered) {
        snprintf(w->reason, sizeof(w->reason), "the GPU was reset because of another program");
    }
    struct policy_decision r = policy_died(&s->worker_policy, d, now_ms);
    count(&s->tally, d, r.blame);
    giveback_died(s);
    write_report(s, w, d, &r, now_ms);
    if (s->phase == SUPERVISOR_SERVING) {
        degrade_died(s, d, r.blame, now_ms);
    }
    if (s->phase != SUPERVISOR_SERVING) {
        if (r.blame != POLICY_ORDERED) {
            log_warn("worker (pid %d) ended%s while the server stops", (int)w->pid, where);
        }
        end_epoch(s, ERR_DRAINING, 0, false, "the server is shutting down", now_ms);
        return;
    }
    if (r.blame != POLICY_ORDERED && !(r.gives_up && d->signal == 0)) {
        report(w, d, &r, where, words, now_ms);
    }
    distrust_stores(s, d, &r);
    char detail[MSG_DETAIL_BYTES], end[64];
    describe_end(d, end, sizeof(end));
    snprintf(detail, sizeof(detail), "the worker %s%s%.180s", end, *words ? ": " : "", words);
    bool is_hopeless;
    int err = reason_of(s, d, &is_hopeless);
    uint64_t wait_ms = r.gives_up || is_hopeless ? 0 : MAX(r.delay_ms + s->load_ms, 1u);
    bool is_counted = r.blame == POLICY_OWN && err != ERR_MODEL_CHANGED &&
                      err != ERR_MODEL_IO && err != ERR_MODEL_STALLED; /* no request did that */
    end_epoch(s, err, wait_ms, is_counted, detail, now_ms);
    s->died_ms = now_ms;
    s->worker_at_ms = now_ms + r.delay_ms;
    if (r.gives_up) {
        /* One that exits by itself has said why. */
        log_error("the worker could not start, it %s; the server ends with exit code %d", end,
                  r.exit_code);
        supervisor_end(s, r.exit_code, now_ms);
    } else if (r.delay_ms >= POLICY_BACKOFF_MIN_MS) {
        notify_send("STATUS=the worker died; next start in %llu s",
                    (unsigned long long)r.delay_ms / 1000);
    }
}

static void death_of_front(struct supervisor *s, const struct policy_death *d, uint64_t now_ms)
{
    s->is_front_attached = false;
    crash_front_died(s);
    drop_held(s);
    if (s->options->is_terminal) { /* its end is the command's end */
        char end[64];
        describe_end(d, end, sizeof(end));
        if (d->exit_code < 0 && !d->is_ordered) {
            log_error("%s %s", s->front.name, end);
        }
        int code = d->signal != 0 ? 128 + d->signal : d->exit_code;
        supervisor_end(s, code >= 0 ? code : EXIT_GENERAL, now_ms);
        return;
    }
    struct policy_decision r = policy_died(&s->front_policy, d, now_ms);
    if (s->phase != SUPERVISOR_SERVING) {
        return;
    }
    report(&s->front, d, &r, "", "", now_ms);
    write_report(s, &s->front, d, &r, now_ms);
    s->front_at_ms = now_ms + r.delay_ms;
    if (r.gives_up) {
        supervisor_end(s, r.exit_code, now_ms);
    }
}

static void death_of_probe(struct supervisor *s, const struct child *c,
                           const struct policy_death *d, uint64_t now_ms)
{
    if (c->was_ready || (d->is_ordered && !d->is_condemned)) {
        return; /* it gave its verdict, or nobody waits for it */
    }
    char detail[MSG_DETAIL_BYTES], end[64];
    describe_end(d, end, sizeof(end));
    snprintf(detail, sizeof(detail), "the probe %s%s%.200s", end, *c->reason ? ": " : "",
             c->reason);
    dialog_send_verdict(s, d->is_condemned ? ERR_GPU_STALLED : ERR_NO_GPU, detail, now_ms);
}

void death_of(struct supervisor *s, struct child *c, const struct policy_death *d, uint64_t now_ms)
{
    if (c == &s->worker) {
        struct policy_death own = *d;
        death_of_worker(s, &own, now_ms);
    } else if (c == &s->front) {
        death_of_front(s, d, now_ms);
    } else if (c == &s->probe) {
        death_of_probe(s, c, d, now_ms);
    } else if (c == &s->monitor) {
        monitor_died(s, d, now_ms);
    } else {
        crash_helper_died(s, c, now_ms);
    }
}

void death_abandon(struct supervisor *s, struct child *c, uint64_t now_ms)
{
    log_error("%s (pid %d) cannot be killed: the kernel holds it (state D)%s%s%s", c->name,
              (int)c->pid, *c->reason ? "; it was to end because " : "", c->reason,
              c->holds_gpu ? "; no process of ours touches the GPU until it is gone" : "");
    channel_close(&c->channel);
    struct child *slot = NULL;
    for (size_t i = 0; !slot && i < SUPERVISOR_MAX_STUCK; i++) {
        slot = s->stuck[i].state == CHILD_NONE ? &s->stuck[i] : NULL;
    }
    ASSERT(slot); /* launch_due keeps one for every living child */
    *slot = *c;
    struct policy_death d = {.exit_code = -1, .is_condemned = true};
    death_of(s, c, &d, now_ms);
    child_init(c, c->name, c->role);
}

void death_of_stuck(struct supervisor *s, struct child *c, uint64_t now_ms)
{
    log_info("%s (pid %d) is gone at last, %.1f s after its start", c->name, (int)c->pid,
             (double)(now_ms - c->start_ms) / 1000);
    s->worker_at_ms = MIN(s->worker_at_ms, now_ms);
}
