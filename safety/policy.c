/* The restart policy. Pure: no clock, no system call; used by the supervisor. */
#include "safety/policy.h"
#include "safety/process.h"
#include "shared/err.h"

#include <signal.h>
#include <string.h>

void policy_init(struct policy *p)
{
    memset(p, 0, sizeof(*p));
}

void policy_ready(struct policy *p, uint64_t now_ms)
{
    p->is_ready = true;
    p->was_ever_ready = true;
    p->ready_ms = now_ms;
    p->n_early = 0;
}

void policy_forgive(struct policy *p)
{
    p->n_deaths = 0;
    p->has_own = false;
    p->n_backoffs = 0;
    p->n_early = 0;
}

enum policy_blame policy_blame(const struct policy_death *d)
{
    if (d->is_condemned) {
        return d->is_explained ? POLICY_EXTERNAL : POLICY_OWN;
    }
    if (d->is_ordered) {
        return POLICY_ORDERED;
    }
    if (d->is_explained) {
        return POLICY_EXTERNAL;
    }
    if (d->signal == SIGKILL && !d->is_oom_kill && !d->has_words) {
        return POLICY_EXTERNAL;
    }
    return POLICY_OWN;
}

bool policy_is_refusal(const struct policy_death *d)
{
    int code = d->exit_code;
    return d->signal == 0 && (code == EXIT_USAGE || code == PROCESS_EXEC_FAILED ||
                              (code >= EXIT_GPU_LOCK && code <= EXIT_MODEL_IO));
}

static uint64_t next_backoff(struct policy *p)
{
    uint64_t ms = POLICY_BACKOFF_MAX_MS;
    if (p->n_backoffs < 6) { /* 2^6 s is past the maximum */
        ms = MIN((uint64_t)POLICY_BACKOFF_MIN_MS << p->n_backoffs, ms);
        p->n_backoffs++;
    }
    return ms;
}

/* Counts this death; returns how many there were in the window, at most POLICY_INTENSITY. */
static int count_death(struct policy *p, uint64_t now_ms)
{
    memmove(p->deaths_ms + 1, p->deaths_ms, sizeof(p->deaths_ms) - sizeof(p->deaths_ms[0]));
    p->deaths_ms[0] = now_ms;
    p->n_deaths = MIN(p->n_deaths + 1, (int)POLICY_INTENSITY);
    int n = 0;
    while (n < p->n_deaths && now_ms - p->deaths_ms[n] < POLICY_WINDOW_MS) {
        n++;
    }
    return n;
}

static struct policy_decision decide_own(struct policy *p, const struct policy_death *d,
                                         uint64_t now_ms)
{
    struct policy_decision r = {.blame = POLICY_OWN};
    if (policy_is_refusal(d)) {
        r.gives_up = !p->was_ever_ready;
        r.exit_code = d->exit_code == PROCESS_EXEC_FAILED ? EXIT_GENERAL : d->exit_code;
        r.delay_ms = next_backoff(p);
        return r;
    }
    bool is_quick = p->has_own && now_ms - p->own_ms < POLICY_QUICK_MS;
    p->has_own = true;
    p->own_ms = now_ms;
    if (d->has_worked) {
        r.delay_ms = is_quick ? POLICY_PACE_MS : 0;
        return r;
    }
    int n = count_death(p, now_ms);
    if (n < POLICY_INTENSITY && p->n_backoffs == 0) {
        r.delay_ms = n == 1 ? 0 : POLICY_PACE_MS;
        return r;
    }
    r.gives_up = !p->was_ever_ready;
    r.exit_code = d->exit_code > 0 ? d->exit_code : EXIT_GENERAL;
    r.delay_ms = next_backoff(p);
    return r;
}

struct policy_decision policy_died(struct policy *p, const struct policy_death *d, uint64_t now_ms)
{
    struct policy_decision r = {.blame = policy_blame(d)};
    bool was_ready = p->is_ready;
    p->is_ready = false;
    if (was_ready && now_ms - p->ready_ms >= POLICY_FORGIVE_MS) {
        policy_forgive(p);
    }
    switch (r.blame) {
    case POLICY_ORDERED:
        return r;
    case POLICY_EXTERNAL:
        /* Counts nothing; but a killer that strikes at every load must not make us load for ever
         * at full speed. */
        p->n_early = was_ready ? 0 : p->n_early + 1;
        r.delay_ms = p->n_early > POLICY_INTENSITY ? POLICY_BACKOFF_MIN_MS : 0;
        return r;
    case POLICY_OWN:
        return decide_own(p, d, now_ms);
    }
    return r;
}
