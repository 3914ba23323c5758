/* The AMD GPUs of this machine as the kernel driver tells of them (KFD topology and DRM in sysfs).
 * Reading them can block for ever after a GPU hang: only the probe and the worker do it. */
#ifndef SAFETY_TOPOLOGY_H
#define SAFETY_TOPOLOGY_H

#include "shared/err.h"

enum { TOPOLOGY_MAX_GPUS = 16, TOPOLOGY_PATH_BYTES = 512 };

struct gpu {
    char pci[16];   /* "0000:03:00.0": its identity; indices are renumbered by ROCm's variables */
    char gfx[12];   /* "gfx1100" */
    unsigned n_cus; /* compute units */
    unsigned render_minor;                /* /dev/dri/renderD<minor> */
    uint64_t vram_bytes, vram_used_bytes; /* of a dedicated card; an APU's carve-out */
    bool is_supported;                    /* we carry kernels for its gfx target */
};

/* What stands for "/": "" but in tests, which name a folder in the environment
 * (ROCMFORGE_MACHINE_ROOT) so that worker and probe see the same machine. */
const char *topology_root(void);
/* All GPUs in the driver's order. root as above. Returns how many, 0 where there is no
 * driver, or -errno. */
MUST_CHECK int topology_read(const char *root, struct gpu ret[TOPOLOGY_MAX_GPUS]);
/* The one with the most VRAM: the card, not the processor's own graphics. n >= 1. */
int topology_choose(const struct gpu *gpus, int n);
/* An AMD display device on the PCI bus, driver or not: its address, or "". */
void topology_find_pci(const char *root, char ret[16]);

/* Small sysfs files. Read up to bytes - 1 into ret, without the line end. 0 or -errno. */
MUST_CHECK int topology_text(const char *root, const char *path, char *ret, size_t bytes);
MUST_CHECK int topology_number(const char *root, const char *path, uint64_t *ret);

#endif
