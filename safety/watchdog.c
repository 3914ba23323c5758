/* The progress watchdog. Pure but for reading the status page; used by the supervisor. */
#include "safety/watchdog.h"

void watchdog_start(struct watchdog *w, const struct watchdog_limits *limits, uint64_t now_ms)
{
    *w = (struct watchdog){.limits = *limits,
                           .change_ms = now_ms,
                           .check_ms = now_ms,
                           .pace_ms = w->pace_ms,
                           .n_paced = w->n_paced};
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
    uint64_t step_ms =
        MAX(w->limits.step_ms, MIN(w->longest_ms * WATCHDOG_FACTOR, (uint64_t)WATCHDOG_MAX_MS));
    switch (w->last.phase) {
    case STATUS_STARTING:
        return w->limits.start_ms;
    case STATUS_PREFLIGHT:
        return w->limits.preflight_ms;
    case STATUS_LOADING:
        return w->limits.load_ms;
    case STATUS_IDLE:
        return w->last.is_bell_ringing   ? MIN(w->limits.step_ms, (uint64_t)WATCHDOG_BELL_MS)
               : w->last.is_work_waiting ? w->limits.step_ms
                                         : UINT64_MAX;
    case STATUS_DECODE:
        return w->n_paced < WATCHDOG_PACED
                   ? step_ms
                   : MIN(MAX(w->pace_ms * WATCHDOG_PACE_FACTOR, (uint64_t)WATCHDOG_DECODE_MS),
                         step_ms);
    default: /* computing; or a phase that does not exist, which earns no patience */
        return step_ms;
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
    bool starts_waiting =
        s->phase == STATUS_IDLE && ((s->is_work_waiting && !w->last.is_work_waiting) ||
                                    (s->is_bell_ringing && !w->last.is_bell_ringing));
    if (is_changed(&w->last, s) || starts_waiting) {
        if (w->last.phase == STATUS_PREFILL || w->last.phase == STATUS_DECODE) {
            w->longest_ms = MAX(w->longest_ms, now_ms - w->change_ms);
        }
        /* Of a worker that has just begun, the time since the last look, which is too long, counts
         * if it holds many steps. */
        bool decoded = w->last.phase == STATUS_DECODE;
        uint64_t n = s->step - w->last.step, ms = decoded ? now_ms - w->change_ms : gap_ms;
        if (s->phase == STATUS_DECODE && s->step > w->last.step &&
            (decoded || n >= WATCHDOG_PACED)) {
            w->pace_ms = MAX(w->pace_ms, ms / n);
            w->n_paced += n;
        }
        w->change_ms = now_ms;
    }
    w->last = *s;
    uint64_t still_ms = now_ms - w->change_ms;
    return still_ms >= deadline_ms(w) ? MAX(still_ms, 1) : 0;
}
