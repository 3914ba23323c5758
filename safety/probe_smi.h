/* Asking rocm-smi in a process that may hang, abort or be held by the kernel, and that nobody waits
 * for. What it says is beside what sysfs says, which is what we go by: it fills in where sysfs has
 * nothing, and it tells the driver's events (a reset, throttling). */
#ifndef SAFETY_PROBE_SMI_H
#define SAFETY_PROBE_SMI_H

#include "safety/probe.h"
#include "safety/smi.h"

/* Stage of `rocmforge doctor`: what rocm-smi says of the card, and whether sysfs agrees. Never
 * fails: the detail says what is wrong with rocm-smi. */
probe_stage_fn probe_smi;

/* ---- for the monitor, which goes on whatever becomes of it ---- */

enum probe_smi_news_kind { PROBE_SMI_READING, PROBE_SMI_EVENT, PROBE_SMI_FAILED };

struct probe_smi_news {
    uint32_t kind;              /* enum probe_smi_news_kind */
    struct smi_reading reading; /* once a second */
    struct smi_event event;
    char text[160]; /* why it failed; it then ends */
};

/* Starts a process that listens to the card at pci; starts it again, a while after it ended, hung
 * or failed. pci NULL: none is to hold a card now; the one there is is ended. To be called
 * often. */
void probe_smi_tend(const char *pci, uint64_t now_ms);
/* To be polled for input; -1 while there is none. */
int probe_smi_fd(void);
/* 1: *ret came; 0: nothing more. */
int probe_smi_next(struct probe_smi_news *ret, uint64_t now_ms);

#endif
