/* The monitor: `rocmforge-probe --watch PID [wedged]` looks at the card while a worker holds it,
 * and hears what the kernel, rocm-smi and logind announce. The supervisor can do without it: what
 * it reads may block for ever. */
#ifndef SAFETY_PROBE_WATCH_H
#define SAFETY_PROBE_WATCH_H

#include "shared/base.h"

/* Tells the supervisor once a second, and at once what happens, until its channel closes. worker: 0
 * where there is none. is_wedged: an earlier monitor heard so; rocm-smi, which would hold the card,
 * is not asked until the driver has it again. Returns the exit code: EXIT_GPU_DEVICE where there is
 * no card to watch. */
int probe_watch(const char *root, pid_t worker, bool is_wedged);

#endif
