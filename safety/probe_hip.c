/* Stages that load and call the HIP runtime; run in the probe's child, which may hang or be aborted
 * by it. The only file of safety/ that knows HIP: functions and numbers as in hip_runtime_api.h of
 * 5.2 to 7, which agree on everything used here. Nothing is ever unloaded: the child ends by _exit.
 */
#include "safety/probe.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HIP_ATTRIBUTE_PCI_BUS = 67,
    HIP_ATTRIBUTE_PCI_DEVICE = 68,
    HIP_ATTRIBUTE_PCI_DOMAIN = 69,
    HIP_HOST_TO_DEVICE = 1,
    HIP_DEVICE_TO_HOST = 2,
    COPY_BYTES = 4 * 1024 * 1024,
};

struct hip {
    void *library;
    int (*init)(unsigned flags);
    int (*runtime_version)(int *ret);
    int (*device_count)(int *ret);
    int (*attribute)(int *ret, int attribute, int device);
    int (*set_device)(int device);
    int (*memory_info)(size_t *ret_free, size_t *ret_total);
    int (*allocate)(void **ret, size_t bytes);
    int (*copy)(void *to, const void *from, size_t bytes, int kind);
    const char *(*error_text)(int error);
};

static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
    {"hipInit", offsetof(struct hip, init)},
    {"hipRuntimeGetVersion", offsetof(struct hip, runtime_version)},
    {"hipGetDeviceCount", offsetof(struct hip, device_count)},
    {"hipDeviceGetAttribute", offsetof(struct hip, attribute)},
    {"hipSetDevice", offsetof(struct hip, set_device)},
    {"hipMemGetInfo", offsetof(struct hip, memory_info)},
    {"hipMalloc", offsetof(struct hip, allocate)},
    {"hipMemcpy", offsetof(struct hip, copy)},
    {"hipGetErrorString", offsetof(struct hip, error_text)},
};

static int fail(const struct hip *h, struct msg_stage *out, const char *call, int error, int code)
{
    probe_say(out->detail, "%s: error %d, %s", call, error, h->error_text(error));
    probe_say(out->remedy, "%s", err_remedy(code));
    return code;
}

/* Loads the library; dlopen alone runs its constructors, so this too belongs here. */
int probe_hip_runtime(struct probe *p, struct msg_stage *out)
{
    static const char *const names[] = {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"};
    if (probe_skip(p, out)) {
        return PROBE_SKIPPED;
    }
    static struct hip h;
    const char *name = NULL;
    for (size_t i = 0; !h.library && i < COUNT_OF(names); i++) {
        name = names[i];
        h.library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
    if (!h.library) {
        probe_say(p->no_gpu, "no HIP runtime");
        probe_say(out->detail, "no libamdhip64.so.7, .6 or .5: the ROCm HIP runtime is missing");
        probe_say(out->remedy,
                  "install it (Debian: libamdhip64-5); until then rocmforge computes on "
                  "the CPU");
        return PROBE_SKIPPED;
    }
    for (size_t i = 0; i < COUNT_OF(symbols); i++) {
        void *symbol = dlsym(h.library, symbols[i].name);
        if (!symbol) {
            probe_say(out->detail, "%s has no %s", name, symbols[i].name);
            probe_say(out->remedy, "install a complete ROCm 5.2 or newer");
            return ERR_NO_GPU;
        }
        memcpy((char *)&h + symbols[i].offset, &symbol, sizeof(symbol));
    }
    int version = 0;
    (void)h.runtime_version(&version);
    p->hip = &h;
    probe_say(out->detail, "%s, HIP %d.%d", name, version / 10000000, version / 100000 % 100);
    return PROBE_OK;
}

/* Variables renumber devices, so the card is found by its PCI address; -1 when HIP does not have
 * it. */
static int find_device(const struct hip *h, const char *pci, int n)
{
    for (int i = 0; i < n; i++) {
        int bus, device, domain;
        char text[32];
        if (h->attribute(&bus, HIP_ATTRIBUTE_PCI_BUS, i) == 0 &&
            h->attribute(&device, HIP_ATTRIBUTE_PCI_DEVICE, i) == 0 &&
            h->attribute(&domain, HIP_ATTRIBUTE_PCI_DOMAIN, i) == 0) {
            snprintf(text, sizeof(text), "%04x:%02x:%02x.", (unsigned)domain & 0xffff,
                     (unsigned)bus & 0xff, (unsigned)device & 0xff);
            if (strncmp(text, pci, strlen(text)) == 0) {
                return i;
            }
        }
    }
    return -1;
}

int probe_hip_see(struct probe *p, struct msg_stage *out)
{
    if (probe_skip(p, out)) {
        return PROBE_SKIPPED;
    }
    const struct hip *h = p->hip;
    int n = 0, error = h->init(0);
    if (error != 0) {
        return fail(h, out, "hipInit", error, ERR_NO_GPU);
    }
    error = h->device_count(&n);
    if (error != 0) {
        return fail(h, out, "hipGetDeviceCount", error, ERR_NO_GPU);
    }
    int device = find_device(h, p->gpu.pci, n);
    if (device < 0) {
        probe_say(out->detail, "HIP sees %d devices, but not %s", n, p->gpu.pci);
        probe_say(out->remedy, "unset ROCR_VISIBLE_DEVICES and HIP_VISIBLE_DEVICES");
        return ERR_NO_GPU;
    }
    size_t free_bytes = 0, total_bytes = 0;
    error = h->set_device(device);
    if (error != 0) {
        return fail(h, out, "hipSetDevice", error, ERR_NO_GPU);
    }
    error = h->memory_info(&free_bytes, &total_bytes);
    if (error != 0) {
        return fail(h, out, "hipMemGetInfo", error, ERR_NO_GPU);
    }
    probe_say(out->detail, "HIP device %d, %zu of %zu MiB free", device, free_bytes >> 20,
              total_bytes >> 20);
    return PROBE_OK;
}

/* A pattern to the card and back. */
int probe_hip_copy(struct probe *p, struct msg_stage *out)
{
    if (probe_skip(p, out)) {
        return PROBE_SKIPPED;
    }
    const struct hip *h = p->hip;
    const size_t n = COPY_BYTES / sizeof(uint32_t);
    uint32_t *sent = base_alloc(COPY_BYTES), *got = base_alloc(COPY_BYTES);
    size_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        sent[i] = (uint32_t)i * 2654435761u; /* every bit of every lane changes */
    }
    void *there = NULL;
    const char *call = "hipMalloc";
    int error = h->allocate(&there, COPY_BYTES);
    if (error == 0) {
        call = "hipMemcpy to the card";
        error = h->copy(there, sent, COPY_BYTES, HIP_HOST_TO_DEVICE);
    }
    if (error == 0) {
        call = "hipMemcpy from the card";
        error = h->copy(got, there, COPY_BYTES, HIP_DEVICE_TO_HOST);
    }
    while (error == 0 && bad < n && got[bad] == sent[bad]) {
        bad++;
    }
    int rc = PROBE_OK;
    if (error != 0) {
        rc = fail(h, out, call, error, ERR_NO_GPU);
    } else if (bad < n) {
        probe_say(out->detail, "byte %zu came back as %08x instead of %08x", bad * sizeof(*got),
                  (unsigned)got[bad], (unsigned)sent[bad]);
        probe_say(out->remedy, "%s", err_remedy(ERR_GPU_COPY));
        rc = ERR_GPU_COPY;
    } else {
        probe_say(out->detail, "%d MiB to the card and back are the same", COPY_BYTES >> 20);
    }
    free(sent);
    free(got);
    return rc;
}

int probe_hip_kernel(struct probe *p, struct msg_stage *out)
{
    if (probe_skip(p, out)) {
        return PROBE_SKIPPED;
    }
    probe_say(p->no_gpu, "no GPU kernels");
    probe_say(out->detail, "this build has no GPU kernels: rocmforge computes on the CPU");
    return PROBE_SKIPPED;
}
