/* The table of bad firmware (see firmware.h). In the probe; reading may block like any of the
 * driver's files. Sources: issues 5590, 5724, 5991, 5616 (gfx1151) and 5107, 6298, 5706 (gfx12) of
 * AMD's ROCm. */
#include "safety/firmware.h"

#include <stdio.h>
#include <string.h>

enum { VERSION_MASK = 0xff };

static const struct firmware_fault faults[] = {
    {"gfx1151", 0x83, 0x83, "compute work hangs the card",
     "install a linux-firmware with another gc_11_5_1 MES (0x80 is good), and kernel 6.18 or "
     "amdgpu.cwsr_enable=0"},
    {"gfx120", 0x01, 0x8a, "the card does not return to its idle power after compute work",
     "install a linux-firmware with MES 0x8b or newer"},
};

const struct firmware_fault *firmware_look_up(const char *gfx, unsigned version)
{
    for (size_t i = 0; i < COUNT_OF(faults); i++) {
        const struct firmware_fault *f = &faults[i];
        if (strncmp(gfx, f->gfx, strlen(f->gfx)) == 0 && version >= f->first &&
            version <= f->last) {
            return f;
        }
    }
    return NULL;
}

const struct firmware_fault *firmware_check(const char *root, const struct gpu *g,
                                            unsigned *ret_version)
{
    char path[128];
    uint64_t version;
    snprintf(path, sizeof(path), "/sys/class/drm/renderD%u/device/fw_version/mes_fw_version",
             g->render_minor);
    if (topology_number(root, path, &version) != 0) {
        return NULL;
    }
    *ret_version = (unsigned)(version & VERSION_MASK);
    return firmware_look_up(g->gfx, *ret_version);
}
