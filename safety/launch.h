/* Starting the children: settings, epochs, programs. */
#ifndef SAFETY_LAUNCH_H
#define SAFETY_LAUNCH_H

#include "safety/supervisor.h"

enum {
    LAUNCH_PREFLIGHT_MS = 120 * 1000, /* all stages of the probe */
    LAUNCH_GPU_STEP_MS = 10 * 1000,   /* a step on the GPU without progress */
};

/* Are the programs there that we cannot do without? -errno, e names the missing one. */
MUST_CHECK int launch_check(const struct supervisor *s, struct err *e);

/* Makes cfg what children are given from now on; nothing is changed when anything fails.
 * Errors: ERR_CONFIG (API key file), -errno. */
MUST_CHECK int launch_settings(struct supervisor *s, const struct config *cfg, struct err *e);
/* CONFIG for one child; the gateway gets the API keys too. Errors as channel_send, -errno. */
MUST_CHECK int launch_config(struct supervisor *s, struct child *c);

/* Makes the next epoch, in place of the present one if there is one. 0 or -errno. */
MUST_CHECK int launch_epoch(struct supervisor *s, uint64_t now_ms);
/* Closes the present one, if there is one; what its worker measured is kept for the next. */
void launch_end_epoch(struct supervisor *s);

/* Starts front and worker when they are due. A worker is not started before the front has greeted,
 * nor while another process of ours hangs on the GPU. */
void launch_due(struct supervisor *s, uint64_t now_ms);
/* Starts rocmforge-probe in that role, with one argument and perhaps (not NULL) one more (crash.c,
 * degrade.c, monitor.c). 0 or -errno. */
MUST_CHECK int launch_helper(struct supervisor *s, struct child *c, const char *role,
                             const char *arg, const char *more, uint64_t now_ms);
/* Starts the probe for the worker's preflight. 0 or -errno; -EBUSY while one hangs on the GPU. */
MUST_CHECK int launch_probe(struct supervisor *s, uint32_t device, uint64_t now_ms);

#endif
