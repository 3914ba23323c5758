/* The progress watchdog. Pure but for reading the status page; used by the supervisor. */
#include "safety/watchdog.h"

#include <string.h>

void watchdog_start(struct watchdog *w, const struct watchdog_limits *limits, uint64_t now_ms)
{
    memset(w, 0, sizeof(*w));
    w->limits = *limits;
    w->change_ms = w->check_ms = now_ms;
}

void watchdog_read(const struct status_page *page, struct watchdog_sample *ret)
{
    ret->beat = atomic_load_explicit(&page->beat, memory_order_acquire);
    ret->step = atomic_load_explicit(&page->step, memory_order_relaxed);
    ret->load_done_bytes = atomic_load_explicit(&page->load_done_bytes, memory_order_relaxed);
    ret->phase = atomic_load_explicit(&page->phase, memory_order_relaxed);
    ret->op = atomic_load_explicit(&page->op, memory_order_relaxed);
    ret->is_work_waiting = atomic_load_explicit(&page->n_queued, memory_order_relaxed) > 0;
}

static bool is_changed(const struct watchdog_sample *a, const struct watchdog_sample *b)
{
    return a->beat != b->beat || a->step != b->step || a->phase != b->phase || a->op != b->op ||
           a->load_done_bytes != b->load_done_bytes;
}

static uint64_t deadline_ms(const struct watchdog *w)
{
    switch (w->last.phase) {
    case STATUS_STARTING:
        return w->limits.start_ms;
    case STATUS_PREFLIGHT:
        return w->limits.preflight_ms;
    case STATUS_LOADING:
        return w->limits.load_ms;
    case STATUS_IDLE:
        return w->last.is_work_waiting ? w->limits.step_ms : UINT64_MAX;
    default: /* computing; or a phase that does not exist, which earns no patience */
        return MAX(w->limits.step_ms,
                   MIN(w->longest_ms * WATCHDOG_FACTOR, (uint64_t)WATCHDOG_MAX_MS));
    }
}

uint64_t watchdog_check(struct watchdog *w, const struct watchdog_sample *s, uint64_t now_ms)
{
    uint64_t gap_ms = now_ms - w->check_ms;
    w->check_ms = now_ms;
    if (gap_ms > WATCHDOG_GAP_MS) {
        w->change_ms += gap_ms; /* we did not run, so perhaps the worker did not either */
    }
    /* Waiting work starts the clock in idle, but is not progress elsewhere. */
    bool starts_waiting = s->phase == STATUS_IDLE && s->is_work_waiting && !w->last.is_work_waiting;
    if (is_changed(&w->last, s) || starts_waiting) {
        if (w->last.phase == STATUS_PREFILL || w->last.phase == STATUS_DECODE) {
            w->longest_ms = MAX(w->longest_ms, now_ms - w->change_ms);
        }
        w->change_ms = now_ms;
    }
    w->last = *s;
    uint64_t still_ms = now_ms - w->change_ms;
    return still_ms >= deadline_ms(w) ? MAX(still_ms, 1) : 0;
}
