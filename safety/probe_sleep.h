/* The machine's sleep, as logind announces it on the system bus. While it is watched we hold a
 * delay inhibitor: the machine waits (some seconds) until the worker has let go of the card, whose
 * state does not always survive. libsystemd is loaded when it is there; without it, or without a
 * bus, nothing is announced. In the monitor only; never waits. */
#ifndef SAFETY_PROBE_SLEEP_H
#define SAFETY_PROBE_SLEEP_H

#include "shared/base.h"

enum sleep_news { SLEEP_NONE, SLEEP_BEGINS, SLEEP_ENDED };

/* 0, or -errno where sleep cannot be watched. Once per process. */
MUST_CHECK int sleep_open(void);
/* To be polled for input; -1 when it is not watched. */
int sleep_fd(void);
/* What came since the last call; SLEEP_ENDED takes a new inhibitor. */
enum sleep_news sleep_process(void);
/* We are ready: the machine may sleep. */
void sleep_release(void);

#endif
