/* Firmware of the GPU's scheduler (MES) that is known to hang or to misbehave, as its users and its
 * maker reported. A warning, never a refusal: the numbers are read from sysfs where the driver
 * shows them, and a table is never complete. */
#ifndef SAFETY_FIRMWARE_H
#define SAFETY_FIRMWARE_H

#include "safety/topology.h"

struct firmware_fault {
    const char *gfx;      /* begins with this */
    unsigned first, last; /* versions, low byte of what the driver shows */
    const char *what, *fix;
};

/* What is known against this card's firmware; NULL: nothing, or its version cannot be read. */
const struct firmware_fault *firmware_look_up(const char *gfx, unsigned version);
const struct firmware_fault *firmware_check(const char *root, const struct gpu *g,
                                            unsigned *ret_version);

#endif
