/* The progress watchdog. Pure but for reading the status page and /proc, which do not block; used
 * by the supervisor. */
#include "safety/watchdog.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void watchdog_start(struct watchdog *w, const struct watchdog_limits *limits, uint64_t now_ms)
{
    *w = (struct watchdog){.limits = *limits, .change_ms = now_ms, .check_ms = now_ms};
}

void watchdog_read(const struct status_page *page, struct watchdog_sample *ret)
{
    ret->beat = atomic_load_explicit(&page->beat, memory_order_acquire);
    ret->step = atomic_load_explicit(&page->step, memory_order_relaxed);
    ret->load_done_bytes = atomic_load_explicit(&page->load_done_bytes, memory_order_relaxed);
    ret->phase = atomic_load_explicit(&page->phase, memory_order_relaxed);
    ret->op = atomic_load_explicit(&page->op, memory_order_relaxed);
    ret->expect_ms = atomic_load_explicit(&page->expect_ms, memory_order_relaxed);
    ret->is_work_waiting = atomic_load_explicit(&page->n_queued, memory_order_relaxed) > 0;
}

static bool is_changed(const struct watchdog_sample *a, const struct watchdog_sample *b)
{
    return a->beat != b->beat || a->step != b->step || a->phase != b->phase || a->op != b->op ||
           a->load_done_bytes != b->load_done_bytes;
}

static bool computes(uint32_t phase)
{
    return phase > STATUS_IDLE; /* a phase that does not exist earns no patience */
}

static uint64_t deadline_ms(const struct watchdog *w)
{
    uint64_t expected_ms = (uint64_t)w->last.expect_ms * WATCHDOG_FACTOR;
    uint64_t known_ms = MIN(w->longest_ms * WATCHDOG_STRETCH, (uint64_t)WATCHDOG_MAX_MS);
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
    default:
        expected_ms = MIN(MAX(expected_ms, (uint64_t)WATCHDOG_LEAST_MS), w->limits.step_ms);
        return MAX(expected_ms, known_ms);
    }
}

bool watchdog_is_busy(const struct watchdog *w)
{
    return computes(w->last.phase) || w->last.is_bell_ringing || w->last.is_work_waiting;
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
    bool changed = is_changed(&w->last, s) || starts_waiting;
    if (changed) {
        if (w->is_silent && computes(w->last.phase)) {
            w->longest_ms = MAX(w->longest_ms, now_ms - w->change_ms);
        }
        w->change_ms = now_ms;
    }
    w->is_silent = !changed;
    w->last = *s;
    uint64_t still_ms = now_ms - w->change_ms;
    return still_ms >= deadline_ms(w) ? MAX(still_ms, 1) : 0;
}

bool watchdog_has_patience(const struct watchdog *w, uint64_t still_ms)
{
    return computes(w->last.phase) && still_ms < deadline_ms(w) * WATCHDOG_PATIENCE;
}

bool watchdog_is_running(const char *root, pid_t pid)
{
    char path[512], text[512];
    bool runs = false;
    snprintf(path, sizeof(path), "%s/proc/%d/task", root, (int)pid);
    DIR *d = opendir(path);
    for (struct dirent *e; d && !runs && (e = readdir(d));) {
        snprintf(path, sizeof(path), "%s/proc/%d/task/%.32s/stat", root, (int)pid, e->d_name);
        int fd = e->d_name[0] == '.' ? -1 : open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
        text[MAX(n, 0)] = '\0';
        const char *state = strrchr(text, ')'); /* the name before it may hold anything */
        runs = state && (state[2] == 'R' || state[2] == 'D');
        if (fd >= 0) {
            close(fd);
        }
    }
    if (d) {
        closedir(d);
    }
    return runs;
}
