/* The choice of the device (see device.h). Main thread, before any model is opened. */
#include "worker/device.h"

#include "safety/topology.h"
#include "safety/vram.h"
#include "shared/log.h"
#include "worker/gpu/door.h"

#include <stdio.h>
#include <string.h>

void device_init(struct device *d)
{
    *d = (struct device){.door = NULL};
    lock_init(&d->lock);
}

/* The card to be used: the one with the most memory. */
static int choose(struct gpu *ret, int *ret_index, struct err *e)
{
    struct gpu gpus[TOPOLOGY_MAX_GPUS];
    int n = topology_read(topology_root(), gpus);
    if (n < 0) {
        return err_set(e, ERR_NO_GPU, "the driver's topology cannot be read");
    }
    if (n == 0) {
        return err_set(e, ERR_NO_GPU, "no AMD GPU with a compute driver");
    }
    *ret_index = topology_choose(gpus, n);
    *ret = gpus[*ret_index];
    if (!ret->is_supported) {
        return err_set(e, ERR_NO_GPU, "%s is no card that rocmforge has kernels for", ret->gfx);
    }
    return 0;
}

static bool is_cpu_chosen(const struct config *c)
{
    return strcmp(c->v[CONFIG_device].str, "cpu") == 0;
}

bool device_lock_dir(const struct config *c, char ret[DEVICE_PATH_BYTES])
{
    snprintf(ret, DEVICE_PATH_BYTES, "%s" LOCK_DIR, topology_root());
    return !is_cpu_chosen(c);
}

static int take_lock(struct device *d, const struct config *c, const char *pci, const char *purpose,
                     struct err *e)
{
    char dir[DEVICE_PATH_BYTES];
    (void)device_lock_dir(c, dir);
    uint64_t timeout_ms = (uint64_t)(c->v[CONFIG_gpu_lock_timeout].num * 1000);
    return lock_take(&d->lock, dir, pci, purpose, timeout_ms, e);
}

/* Our models may have what others leave, and never so much that the desktop's reserve is
 * touched. */
static uint64_t vram_of(struct device *d, const struct config *c, const struct gpu *g)
{
    uint64_t free_bytes, total, reserve = (uint64_t)c->v[CONFIG_vram_reserve].i << 20;
    door_memory(d->door, &free_bytes, &total);
    struct vram_sample s = {.total_bytes = total,
                            .used_bytes = MAX(total - MIN(free_bytes, total), g->vram_used_bytes),
                            .n_displays = 1}; /* one may be connected later */
    return vram_ceiling(&s, reserve);
}

static int open_gpu(struct device *d, const struct config *c, const char *purpose,
                    struct status_page *status, device_preflight_fn *preflight, void *arg,
                    struct err *e)
{
    struct gpu g;
    int index;
    int err = choose(&g, &index, e);
    err = err < 0 ? err : take_lock(d, c, g.pci, purpose, e);
    if (err == 0 && preflight) {
        err = preflight(arg, (uint32_t)index, e);
    }
    if (err < 0) {
        return err;
    }
    struct door_options o = {.pci = g.pci,
                             .kernel_dir = c->v[CONFIG_kernel_dir].str,
                             .status = status,
                             .deadline_ms = (uint64_t)(c->v[CONFIG_gpu_timeout].num * 1000)};
    err = door_open(&o, &d->door, e);
    if (err < 0) {
        return err;
    }
    d->vram_bytes = vram_of(d, c, &g);
    rates_read_gpu(&d->rates, topology_root(), g.gfx, g.pci, g.n_cus);
    log_info("GPU %s at %s: %.1f GB of VRAM may be used", door_arch(d->door), g.pci,
             (double)d->vram_bytes / 1e9);
    return 0;
}

int device_open(struct device *d, const struct config *c, const char *purpose,
                struct status_page *status, device_preflight_fn *preflight, void *arg,
                struct err *e)
{
    d->is_required = strcmp(c->v[CONFIG_device].str, "gpu") == 0;
    if (is_cpu_chosen(c)) {
        return 0;
    }
    int err = open_gpu(d, c, purpose, status, preflight, arg, e);
    if (err < 0) {
        device_close(d);
    }
    if (err < 0 && !d->is_required) {
        log_info("computing on the CPU: %s", e->detail);
        *e = (struct err){0};
        return 0;
    }
    return err;
}

void device_close(struct device *d)
{
    door_close(&d->door);
    lock_release(&d->lock);
}
