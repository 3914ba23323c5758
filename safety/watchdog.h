/* Has the worker made progress in time? Judged from samples of its status page (ipc/status.h),
 * which the token loop itself writes: a thread that merely lives proves nothing. Pure: time comes
 * with the sample.
 *
 * Progress is any change of phase, beat, step, op or bytes loaded. Deadlines by phase: idle has
 * none, unless work is waiting, or the request bell rings and the worker, which has nothing else to
 * do, does not hear it within WATCHDOG_BELL_MS. In prefill and decode a step may
 * take WATCHDOG_FACTOR times as long as the longest one seen in this epoch, so a big model on a
 * slow processor is no stall. In decode, whose steps are alike, the deadline is shorter once the
 * pace is known: WATCHDOG_PACE_FACTOR times a step as it was at its slowest, and at least
 * WATCHDOG_DECODE_MS, for a loaded machine may keep a healthy worker from running for seconds. Time
 * in which the supervisor itself did not run (stopped, machine frozen) does not count. */
#ifndef SAFETY_WATCHDOG_H
#define SAFETY_WATCHDOG_H

#include "ipc/status.h"

struct watchdog_limits {
    uint64_t start_ms;     /* from spawn to the first phase after STARTING */
    uint64_t preflight_ms; /* the wait for the GPU lock included */
    uint64_t load_ms;
    uint64_t step_ms; /* prefill, decode, drain; and work waiting in idle */
};

struct watchdog_sample {
    uint64_t beat, step, load_done_bytes;
    uint32_t phase; /* enum status_phase, or any number: it comes from the worker */
    uint32_t op;
    bool is_work_waiting; /* requests queued */
    bool is_bell_ringing; /* requests in the ring, and nobody answers */
};

struct watchdog {
    struct watchdog_limits limits;
    struct watchdog_sample last;
    uint64_t change_ms;  /* when last changed */
    uint64_t check_ms;   /* previous check */
    uint64_t longest_ms; /* longest time without progress that did end, in prefill and decode */
    uint64_t pace_ms;    /* slowest mean time of a decode step between two changes */
    uint64_t n_paced;    /* steps that it was measured over */
};

enum {
    WATCHDOG_FACTOR = 8,
    WATCHDOG_PACE_FACTOR = 20,
    WATCHDOG_PACED = 32, /* steps after which the pace is known */
    WATCHDOG_DECODE_MS = 5000,
    WATCHDOG_BELL_MS = 5000,
    WATCHDOG_MAX_MS = 10 * 60 * 1000,
    WATCHDOG_GAP_MS = 5000
};

/* For a new worker. The pace of the last one stays known; zero *w before the first, and where
 * another model comes. */
void watchdog_start(struct watchdog *w, const struct watchdog_limits *limits, uint64_t now_ms);

/* The milliseconds without progress when the deadline is missed, else 0. */
uint64_t watchdog_check(struct watchdog *w, const struct watchdog_sample *s, uint64_t now_ms);

/* Copies from the page what a check needs. */
void watchdog_read(const struct status_page *page, struct watchdog_sample *ret);

#endif
