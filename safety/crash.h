/* Crash reports, on the supervisor's side: which deaths get one, and that a worker which we are to
 * end is not ended before what is known of it is on disk.
 *
 * The supervisor writes no file. A process of its own (rocmforge-probe --report, safety/reporter.c)
 * is given the status page, the end of the worker's stderr and what the supervisor knows, and
 * collects the rest. For a worker that hangs it is started before the first signal and says CRASHED
 * when its evidence is on disk; the worker is ended then, or after CRASH_EVIDENCE_MS. After the
 * death it is told how it ended, adds what the kernel has to say, and is done. Another process
 * (rocmforge-probe --reports) answers what the gateway asks about reports.
 *
 * A crash loop must not wear out the disk: CRASH_BURST reports at once, then one in
 * CRASH_INTERVAL_MS; deaths without one are counted. */
#ifndef SAFETY_CRASH_H
#define SAFETY_CRASH_H

#include "safety/supervisor.h"

enum {
    CRASH_EVIDENCE_MS = 1500,
    CRASH_BURST = 8,
    CRASH_INTERVAL_MS = 10 * 1000,
    CRASH_REPORT_MS = 20 * 1000, /* a reporter takes at most this */
    CRASH_LAST_MS = 3000,        /* and this, when the server ends */
    CRASH_ASK_MS = 5000,
};

void crash_init(struct supervisor *s);
void crash_finish(struct supervisor *s);

/* In every turn: begins the report on a worker that was condemned, ends reporters that take too
 * long, tells the gateway what has changed. */
void crash_tick(struct supervisor *s, uint64_t now_ms);
/* The worker or the gateway is dead, or given up on; its epoch's page is still there. */
void crash_of(struct supervisor *s, const struct child *c, const struct policy_death *d,
              const struct policy_decision *r, const char *blame, const char *next,
              uint64_t now_ms);

/* A helper has its configuration, said CRASHED or TOLD, is gone. */
void crash_greeted(struct supervisor *s, struct child *c, uint64_t now_ms);
void crash_said(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms);
void crash_told(struct supervisor *s, struct channel_msg *m, uint64_t now_ms);
void crash_helper_died(struct supervisor *s, const struct child *c, uint64_t now_ms);

/* The gateway asks; it is gone, and with it who wanted to know. */
void crash_front_died(struct supervisor *s);
void crash_ask(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms);

#endif
