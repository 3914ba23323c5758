/* A progress bar on standard error, where that is a terminal; nothing otherwise. */
#ifndef SHARED_PROGRESS_H
#define SHARED_PROGRESS_H

#include "shared/base.h"

struct progress {
    bool is_tty;
    uint64_t last_ns; /* shown; 0: nothing is shown */
};

void progress_start(struct progress *p);
/* At most ten times a second, and when all is done. total 0 counts as done. */
void progress_show(struct progress *p, uint64_t done, uint64_t total);
/* Takes the bar away before other output. */
void progress_clear(struct progress *p);

#endif
