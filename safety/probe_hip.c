/* Stages that load and call the HIP runtime; run in the probe's child, which may hang or be aborted
 * by it. Nothing is ever unloaded: the child ends by _exit.
 */
#include "safety/hip.h"
#include "safety/probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COPY_BYTES = 4 * 1024 * 1024 };

static int fail(const struct hip *h, struct msg_stage *out, const char *call, int error, int code)
{
    probe_say(out->detail, "%s: error %d, %s", call, error, h->GetErrorString(error));
    probe_say(out->remedy, "%s", err_remedy(code));
    return code;
}

/* Loads the library; dlopen alone runs its constructors, so this too belongs here. */
int probe_hip_runtime(struct probe *p, struct msg_stage *out)
{
    if (probe_skip(p, out)) {
        return PROBE_SKIPPED;
    }
    static struct hip h;
    struct err e = {0};
    if (hip_load(&h, &e) == 0) {
        p->hip = &h;
        probe_say(out->detail, "%s, HIP %d.%d", h.soname, h.version / 10000000,
                  h.version / 100000 % 100);
        return PROBE_OK;
    }
    probe_say(out->detail, "%s", e.detail);
    if (!h.handle) {
        probe_say(p->no_gpu, "no HIP runtime");
        probe_say(out->remedy,
                  "install it (Debian: libamdhip64-5); until then rocmforge computes on "
                  "the CPU");
        return PROBE_SKIPPED;
    }
    probe_say(out->remedy, "install a complete ROCm 5.2 or newer");
    return ERR_NO_GPU;
}

int probe_hip_see(struct probe *p, struct msg_stage *out)
{
    if (probe_skip(p, out)) {
        return PROBE_SKIPPED;
    }
    const struct hip *h = p->hip;
    int n = 0, error = h->Init(0);
    if (error != 0) {
        return fail(h, out, "hipInit", error, ERR_NO_GPU);
    }
    error = h->GetDeviceCount(&n);
    if (error != 0) {
        return fail(h, out, "hipGetDeviceCount", error, ERR_NO_GPU);
    }
    int device = hip_find(h, p->gpu.pci, n);
    if (device < 0) {
        probe_say(out->detail, "HIP sees %d devices, but not %s", n, p->gpu.pci);
        probe_say(out->remedy, "unset ROCR_VISIBLE_DEVICES and HIP_VISIBLE_DEVICES");
        return ERR_NO_GPU;
    }
    size_t free_bytes = 0, total_bytes = 0;
    error = h->SetDevice(device);
    if (error != 0) {
        return fail(h, out, "hipSetDevice", error, ERR_NO_GPU);
    }
    error = h->MemGetInfo(&free_bytes, &total_bytes);
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
    int error = h->Malloc(&there, COPY_BYTES);
    if (error == 0) {
        call = "hipMemcpy to the card";
        error = h->Memcpy(there, sent, COPY_BYTES, HIP_HOST_TO_DEVICE);
    }
    if (error == 0) {
        call = "hipMemcpy from the card";
        error = h->Memcpy(got, there, COPY_BYTES, HIP_DEVICE_TO_HOST);
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

/* As kernels/hip/args.h has them. */
enum { KERNEL_THREADS = 256, KERNEL_NUMBERS = 16 * KERNEL_THREADS };
struct kernel_args {
    uint32_t *data;
    int32_t n;
};
struct kernel_crumb {
    uint32_t *at;
    uint32_t number, reserved;
};

static int run_kernel(const struct hip *h, void *function, uint32_t *numbers, const char **ret_call)
{
    struct kernel_args args = {.n = KERNEL_NUMBERS};
    struct kernel_crumb crumb = {0};
    void *there = NULL, *params[] = {&args, &crumb};
    size_t bytes = KERNEL_NUMBERS * sizeof(*numbers);
    *ret_call = "hipMalloc";
    int error = h->Malloc(&there, bytes);
    args.data = there;
    if (error == 0) {
        *ret_call = "hipMemcpy to the card";
        error = h->Memcpy(there, numbers, bytes, HIP_HOST_TO_DEVICE);
    }
    if (error == 0) {
        *ret_call = "hipModuleLaunchKernel";
        error = h->ModuleLaunchKernel(function, KERNEL_NUMBERS / KERNEL_THREADS, 1, 1,
                                      KERNEL_THREADS, 1, 1, 0, NULL, params, NULL);
    }
    if (error == 0) {
        *ret_call = "hipMemcpy from the card";
        error = h->Memcpy(numbers, there, bytes, HIP_DEVICE_TO_HOST);
    }
    return error;
}

/* A kernel of ours, and every number that it gives. */
int probe_hip_kernel(struct probe *p, struct msg_stage *out)
{
    if (probe_skip(p, out)) {
        return PROBE_SKIPPED;
    }
    const struct hip *h = p->hip;
    const char *dir = getenv("ROCMFORGE_KERNEL_DIR"), *call;
    char path[HIP_PATH_BYTES];
    void *module, *function;
    uint64_t digest;
    struct err e = {0};
    hip_object_path(p->kernel_dir ? p->kernel_dir : dir ? dir : "", p->gpu.gfx, path);
    int rc = hip_object_load(h, path, &module, &digest, &e);
    if (rc < 0) {
        probe_say(out->detail, "%.300s", e.detail);
        probe_say(out->remedy, "build rocmforge where clang 19 and lld 19 are installed, which "
                               "compile its GPU kernels, or name their folder: --kernel-dir");
        return rc;
    }
    int error = h->ModuleGetFunction(&function, module, "probe");
    if (error != 0) {
        return fail(h, out, "hipModuleGetFunction", error, ERR_GPU_KERNEL);
    }
    uint32_t *numbers = base_alloc(KERNEL_NUMBERS * sizeof(*numbers));
    uint32_t bad = 0;
    for (uint32_t i = 0; i < KERNEL_NUMBERS; i++) {
        numbers[i] = i * i + 7;
    }
    error = run_kernel(h, function, numbers, &call);
    for (uint32_t i = 0; i < KERNEL_NUMBERS && error == 0; i++) {
        uint32_t from =
            i / KERNEL_THREADS * KERNEL_THREADS + KERNEL_THREADS - 1 - i % KERNEL_THREADS;
        uint32_t wave = i % KERNEL_THREADS / 32 * 32;
        bad += numbers[i] != (from * from + 7) * 2654435761u + 32 * wave + 496;
    }
    free(numbers);
    if (error != 0) {
        return fail(h, out, call, error, ERR_GPU_KERNEL);
    }
    if (bad > 0) {
        probe_say(out->detail, "%u of %d numbers are wrong", (unsigned)bad, KERNEL_NUMBERS);
        probe_say(out->remedy, "%s", err_remedy(ERR_GPU_KERNEL));
        return ERR_GPU_KERNEL;
    }
    probe_say(out->detail, "a kernel of %.200s gives the right numbers", path);
    return PROBE_OK;
}
