/* The HIP runtime, found at run time: one table of its functions. Loading it runs its constructors
 * and may hang or abort, so only two processes do it: the probe's child, which is there to be lost,
 * and the worker, after the probe has passed. Nothing is ever unloaded: that can hang too. */
#ifndef SAFETY_HIP_H
#define SAFETY_HIP_H

#include "shared/err.h"

enum { /* the same in all versions */
    HIP_SUCCESS = 0,
    HIP_INVALID_VALUE = 1,
    HIP_OUT_OF_MEMORY = 2,
    HIP_NO_DEVICE = 100,
    HIP_INVALID_DEVICE = 101,
    HIP_NO_BINARY = 209,
    HIP_NOT_FOUND = 500,
    HIP_NOT_READY = 600,
    HIP_ILLEGAL_ADDRESS = 700,
    HIP_LAUNCH_FAILURE = 719,
    HIP_NOT_SUPPORTED = 801,
    HIP_CAPTURE_INVALIDATED = 901,

    HIP_ATTRIBUTE_PCI_BUS = 67,
    HIP_ATTRIBUTE_PCI_DEVICE = 68,
    HIP_ATTRIBUTE_PCI_DOMAIN = 69,

    HIP_HOST_TO_DEVICE = 1,
    HIP_DEVICE_TO_HOST = 2,
    HIP_DEVICE_TO_DEVICE = 3,

    HIP_STREAM_NON_BLOCKING = 1,
    HIP_PRIORITY_LOW = 1,
    HIP_HOST_MAPPED = 2,
    HIP_HOST_COHERENT = 0x40000000,
    HIP_EVENT_NO_TIMING = 2,
    HIP_CAPTURE_THREAD_LOCAL = 1,
};

struct hip { /* member X is hipX */
#define HIP(need, name, type, params) type (*name) params;
#include "safety/hip.def"
#undef HIP
    void *handle;
    const char *soname;
    int version; /* major * 10^7 + minor * 10^5 + patch */
};

/* ERR_NO_GPU: there is no runtime, or it lacks a function; e says which. *ret is then without
 * library, or with it. */
MUST_CHECK int hip_load(struct hip *ret, struct err *e);
/* The index of the device at this PCI address ("0000:03:00.0"), or of any GPU function of it; -1:
 * HIP does not have it. Indices are renumbered by variables of the environment, the address is
 * not. */
int hip_find(const struct hip *h, const char *pci, int n_devices);
/* "gfx1100" of the device; what follows a colon is cut off. 0 or HIP's error. */
MUST_CHECK int hip_arch(const struct hip *h, int device, char ret[32]);

/* The code object for an architecture ("gfx1100"). dir: its folder; "": beside the program in a
 * build tree, or installed. */
enum { HIP_PATH_BYTES = 512 };
void hip_object_path(const char *dir, const char *arch, char ret[HIP_PATH_BYTES]);
/* Loads it; ret_digest: of its bytes. ERR_NO_GPU; e says what is missing. */
MUST_CHECK int hip_object_load(const struct hip *h, const char *path, void **ret_module,
                               uint64_t *ret_digest, struct err *e);

#endif
