/* Has the worker made progress in time? Judged from samples of its status page (ipc/status.h),
 * which the token loop itself writes: a thread that merely lives proves nothing. Pure: time comes
 * with the sample.
 *
 * Progress is any change of phase, beat, step, op or bytes loaded. Deadlines by phase: idle has
 * none, unless work is waiting, or the request bell rings and the worker, which has nothing else to
 * do, does not hear it within WATCHDOG_BELL_MS. While it computes, what runs may take
 * WATCHDOG_FACTOR times what the worker expects of it (status page), or WATCHDOG_STRETCH times the
 * longest silence that did end, and at least WATCHDOG_LEAST_MS. The worker's word can lengthen only
 * its own deadline, and not beyond limits.step_ms. One whose threads run or wait for the disk gets
 * WATCHDOG_PATIENCE times as long, for a loaded machine keeps healthy ones waiting; one that is
 * stopped, or waits for what does not come, does not. Time in which the supervisor itself did not
 * run (stopped, machine frozen or asleep) does not count. */
#ifndef SAFETY_WATCHDOG_H
#define SAFETY_WATCHDOG_H

#include "ipc/status.h"

#include <sys/types.h>

struct watchdog_limits {
    uint64_t start_ms;     /* from spawn to the first phase after STARTING */
    uint64_t preflight_ms; /* the wait for the GPU lock included */
    uint64_t load_ms;
    uint64_t step_ms; /* the most for prefill, decode, drain; and for work waiting in idle */
};

struct watchdog_sample {
    uint64_t beat, step, load_done_bytes;
    uint32_t phase; /* enum status_phase, or any number: it comes from the worker */
    uint32_t op;
    uint32_t expect_ms;   /* of what is being computed */
    bool is_work_waiting; /* requests queued */
    bool is_bell_ringing; /* requests in the ring, and nobody answers */
};

struct watchdog {
    struct watchdog_limits limits;
    struct watchdog_sample last;
    uint64_t change_ms;  /* when last changed */
    uint64_t check_ms;   /* previous check */
    uint64_t longest_ms; /* longest silence that did end while computing */
    bool is_silent;      /* the last check saw no change */
};

enum {
    WATCHDOG_LEAST_MS = 2000,
    WATCHDOG_FACTOR = 20,
    WATCHDOG_STRETCH = 8,
    WATCHDOG_BELL_MS = 2000,
    WATCHDOG_PATIENCE = 3,
    WATCHDOG_MAX_MS = 10 * 60 * 1000,
    WATCHDOG_GAP_MS = 1500,
    WATCHDOG_TICK_MS = 250, /* between checks of a worker that computes */
};

/* For a new worker. */
void watchdog_start(struct watchdog *w, const struct watchdog_limits *limits, uint64_t now_ms);

/* The milliseconds without progress when the deadline is missed, else 0. */
uint64_t watchdog_check(struct watchdog *w, const struct watchdog_sample *s, uint64_t now_ms);

/* Must it be looked at every WATCHDOG_TICK_MS? */
bool watchdog_is_busy(const struct watchdog *w);
/* Does any thread of the process run, or wait for the disk? Reads /proc; root is "" but in tests.
 */
bool watchdog_is_running(const char *root, pid_t pid);
/* Of one that missed its deadline by now, may it go on if it runs? */
bool watchdog_has_patience(const struct watchdog *w, uint64_t still_ms);
/* Copies from the page what a check needs. */
void watchdog_read(const struct status_page *page, struct watchdog_sample *ret);

#endif
