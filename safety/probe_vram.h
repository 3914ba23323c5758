/* Measuring the card's memory: sysfs for the card, fdinfo for the worker, connectors for displays.
 * Every read may block for ever after a GPU hang, so this runs in the monitor only, a process that
 * the supervisor can do without. */
#ifndef SAFETY_PROBE_VRAM_H
#define SAFETY_PROBE_VRAM_H

#include "safety/topology.h"
#include "safety/vram.h"

/* worker: 0 where there is none. 0 or -errno: the card's own files cannot be read; the rest of *ret
 * is there all the same. */
MUST_CHECK int probe_vram_read(const char *root, const struct gpu *g, pid_t worker,
                               struct vram_sample *ret);

#endif
