/* Where the models are computed: the choice between GPU and CPU, the machine-wide lock, the
 * preflight, and the GPU's door. Once per process; blocks on the lock, on the preflight, and in the
 * GPU's driver. */
#ifndef WORKER_DEVICE_H
#define WORKER_DEVICE_H

#include "ipc/status.h"
#include "safety/lock.h"
#include "shared/config.h"
#include "worker/engine.h"

struct device {
    struct lock lock;
    struct door *door;     /* owned; NULL: the CPU */
    uint64_t vram_bytes;   /* of its memory, that our models may take together */
    struct rates rates;    /* the GPU's */
    bool is_required;      /* --device gpu: what the GPU cannot do is an error */
};

/* Asks for the preflight of the GPU with this index, with the lock held. 0, or why not: ERR_*,
 * -errno. */
typedef int device_preflight_fn(void *arg, uint32_t index, struct err *e);

enum { DEVICE_PATH_BYTES = 512 };
/* The folder of the GPU's lock. False: the settings leave the GPU alone, and nobody needs it. */
bool device_lock_dir(const struct config *c, char ret[DEVICE_PATH_BYTES]);

void device_init(struct device *d);
/* By --device. auto: where the GPU cannot be used, a line in the log says why and the CPU computes.
 * purpose: for the lock, "worker, epoch 3". status, preflight may be NULL. Errors: ERR_LOCK_BUSY,
 * ERR_LOCK_PATH, ERR_NO_GPU, and the preflight's. */
MUST_CHECK int device_open(struct device *d, const struct config *c, const char *purpose,
                           struct status_page *status, device_preflight_fn *preflight, void *arg,
                           struct err *e);
void device_close(struct device *d);
/* What engines are told of it; n_models share its memory. d may be NULL: the CPU. */
static inline void device_use(const struct device *d, size_t n_models, struct engine_options *o)
{
    bool is_used = d && d->door && n_models > 0 && o->gpu_layers != 0;
    o->door = is_used ? d->door : NULL;
    o->vram_bytes = is_used ? d->vram_bytes / n_models : 0;
    o->is_gpu_required = is_used && d->is_required;
    o->rates = is_used ? d->rates : (struct rates){0};
}

#endif
