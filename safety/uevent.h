/* What the kernel announces of the card (uevents, over netlink; no privilege is needed): that it is
 * wedged, so that nothing but the named remedy brings it back, or that its driver has taken it
 * again. In the monitor. Format: Documentation/gpu/drm-uapi, "Device wedging". */
#ifndef SAFETY_UEVENT_H
#define SAFETY_UEVENT_H

#include "shared/base.h"

enum uevent_kind {
    UEVENT_OTHER,     /* of another device, or of no interest */
    UEVENT_RECOVERED, /* it was wedged, and the driver has reset it by itself */
    UEVENT_WEDGED,
    UEVENT_BACK, /* the driver was bound to it */
};

struct uevent {
    enum uevent_kind kind;
    uint32_t pid;    /* whose work wedged it, where the kernel knows; else 0 */
    char remedy[48]; /* "rebind,bus-reset", as the kernel has it */
};

/* A socket that hears them, or -errno. root: "", or of a made-up machine, where they come as
 * datagrams to the Unix socket root/run/uevents. */
MUST_CHECK int uevent_open(const char *root);
/* 1: *ret is one; 0: there is no more for now. pci: the card, "0000:03:00.0". */
MUST_CHECK int uevent_read(int fd, const char *pci, struct uevent *ret);
/* text: "ACTION@PATH", then "NAME=VALUE", each ended by a zero byte. */
void uevent_parse(const char *text, size_t n, const char *pci, struct uevent *ret);

#endif
