/* rocm-smi, found at run time: one table of its functions, and what we ask it. It takes a mutex
 * that all its users of the machine share, whose holder may have been killed; it reads the driver's
 * files, which can hang; it asserts. So only a process that is there to be lost calls it
 * (probe_smi.h), and nothing of ours depends on an answer. Never unloaded. */
#ifndef SAFETY_SMI_H
#define SAFETY_SMI_H

#include "shared/err.h"

enum { /* the same in all versions */
    SMI_SUCCESS = 0,
    SMI_NO_DATA = 14,
    SMI_MEMORY_VRAM = 0,
    SMI_TEMPERATURE_EDGE = 0,
    SMI_TEMPERATURE_NOW = 0,
};
/* Its mutex is between our threads only, not of all its users on the machine; older versions do not
 * know the flag and ignore it. */
#define SMI_OWN_MUTEX ((uint64_t)0x400000000000000)

/* The driver's events, by its numbers (KFD). */
enum smi_event_kind {
    SMI_VM_FAULT = 1,   /* message "PID:NAME", PID in hexadecimal */
    SMI_THROTTLE = 2,   /* "MASK:COUNT" */
    SMI_PRE_RESET = 3,  /* "SEQUENCE", newer: and why */
    SMI_POST_RESET = 4, /* "SEQUENCE" */
};

enum { SMI_MESSAGE_BYTES = 96 }; /* 64 in older versions: so never an array of events */

struct smi_event { /* as the library has it */
    uint32_t device;
    int32_t kind;
    char message[SMI_MESSAGE_BYTES]; /* not always terminated */
};

struct smi { /* member x is rsmi_x */
#define SMI(need, name, params) int (*name) params;
#include "safety/smi.def"
#undef SMI
    void *handle;
    const char *soname;
};

/* ERR_NO_GPU: there is no library (*ret is then without one), or it lacks a function; e says
 * which. */
MUST_CHECK int smi_load(struct smi *ret, struct err *e);

/* What it says of the device at this PCI address. */
struct smi_reading {
    uint32_t device; /* its index */
    uint64_t total_bytes, used_bytes;
    int32_t busy_percent; /* -1: it does not say */
    int32_t celsius;      /* 0: it does not say */
};

/* Initialises the library and finds the device ("0000:03:00.0"). ERR_NO_GPU; e says what failed. */
MUST_CHECK int smi_open(const struct smi *h, const char *pci, uint32_t *ret_device, struct err *e);
MUST_CHECK int smi_read(const struct smi *h, uint32_t device, struct smi_reading *ret,
                        struct err *e);

/* Subscribes to the device's events. ERR_NO_GPU. */
MUST_CHECK int smi_listen(const struct smi *h, uint32_t device, struct err *e);
/* Waits for an event of any device subscribed to. 1: *ret is one (terminated); 0: none within the
 * timeout; or ERR_NO_GPU. */
MUST_CHECK int smi_wait(const struct smi *h, int timeout_ms, struct smi_event *ret, struct err *e);

#endif
