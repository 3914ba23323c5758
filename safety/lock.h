/* The machine-wide GPU lock: one flock per PCI device, shared by every user of the machine. Whoever
 * touches the GPU (worker, probe, bench, tests) takes it first and names itself in it.
 *
 * There is no private fallback path: a lock that only some processes see protects nothing, so a
 * path that cannot be used refuses the GPU. The lock belongs to the open file description: nothing
 * may be forked without exec after it is taken. */
#ifndef SAFETY_LOCK_H
#define SAFETY_LOCK_H

#include "shared/err.h"

#define LOCK_DIR "/run/lock"

enum { LOCK_PATH_BYTES = 256 };

struct lock {
    int fd; /* owned; -1: not held */
    char path[LOCK_PATH_BYTES];
};

/* Not held. */
void lock_init(struct lock *l);

/* Takes DIR/rocmforge-<pci>.lock within timeout_ms (0: one attempt), asking every 100 ms, and
 * writes our pid and the purpose ("worker, epoch 3") into it. dir is LOCK_DIR but in tests.
 * Errors: ERR_LOCK_BUSY, e names the holder and its purpose, or whom it leaked to; ERR_LOCK_PATH,
 * e says what is wrong with the file; e may be NULL. */
MUST_CHECK int lock_take(struct lock *l, const char *dir, const char *pci, const char *purpose,
                         uint64_t timeout_ms, struct err *e);

/* Safe when not held. */
void lock_release(struct lock *l);

#endif
