/* tests/rig/emulator.h on a card: the tests of kernels, unchanged, with the kernels of a cubin
 * (ROCMFORGE_CUBIN names it). What the emulator would judge, compute-sanitizer does. */
#include "tests/rig/cuda/cuda_driver.h"
#include "tests/rig/emulator.h"

static char fault[200];

static void must(int error, const char *what)
{
    if (error != 0) {
        fprintf(stderr, "cuda rig: %s: error %d\n", what, error);
        exit(1);
    }
}

bool emulator_has_checker(void)
{
    return false;
}

void *emulator_alloc(size_t n_bytes, size_t skew)
{
    uint64_t p;
    must(cuda_driver()->MemAlloc(&p, n_bytes + skew + 1), "cuMemAlloc");
    must(cuda_driver()->MemsetAsync(p, 0xff, n_bytes + skew + 1, NULL), "cuMemset");
    must(cuda_driver()->Synchronize(), "cuCtxSynchronize");
    return (void *)(p + skew);
}

void emulator_free(void *buffer)
{
    if (buffer) {
        must(cuda_driver()->MemFree((uint64_t)buffer / 256 * 256), "cuMemFree");
    }
}

void emulator_upload(void *buffer, const void *data, size_t n_bytes)
{
    must(cuda_driver()->Memcpy((uint64_t)buffer, (uint64_t)data, n_bytes), "cuMemcpy");
}

void emulator_download(void *data, const void *buffer, size_t n_bytes)
{
    must(cuda_driver()->Memcpy((uint64_t)data, (uint64_t)buffer, n_bytes), "cuMemcpy");
}

static void *load(const char *path)
{
    FILE *f = path ? fopen(path, "rb") : NULL;
    static char image[32 << 20];
    void *module;
    if (!f || fread(image, 1, sizeof image, f) == 0) {
        fprintf(stderr, "cuda rig: ROCMFORGE_CUBIN names no cubin\n");
        exit(1);
    }
    fclose(f);
    must(cuda_driver()->ModuleLoadData(&module, image), "cuModuleLoadData");
    return module;
}

bool emulator_launch(const struct gpu_host_kernel *kernel, const struct emulator_grid *g,
                     const void *args, size_t args_bytes)
{
    static void *module;
    struct args_crumb crumb = {0};
    void *function, *params[2] = {NULL, &crumb};
    (void)args_bytes;
    if (!module) {
        (void)cuda_driver();
        module = load(getenv("ROCMFORGE_CUBIN"));
    }
    char symbol[64];
    snprintf(symbol, sizeof symbol, "gpu_%s", kernel->name);
    must(cuda_driver()->ModuleGetFunction(&function, module, symbol), symbol);
    memcpy(params, &args, sizeof args);
    int error =
        cuda_driver()->LaunchKernel(function, (unsigned)g->x, (unsigned)g->y, (unsigned)g->z,
                                    (unsigned)kernel->threads, 1, 1, 0, NULL, params, NULL);
    error = error == 0 ? cuda_driver()->Synchronize() : error;
    snprintf(fault, sizeof fault, "%s: error %d", kernel->name, error);
    return error == 0;
}

const char *emulator_fault(void)
{
    return fault;
}

/* The kernels' host forms are linked for their names and sizes; nobody calls them. */
int gpu_host_thread(void)
{
    abort();
}
int gpu_host_block(int axis)
{
    (void)axis;
    abort();
}
void gpu_host_barrier(const char *site)
{
    (void)site;
    abort();
}
void gpu_host_wave_sync(const char *site)
{
    (void)site;
    abort();
}
const uint32_t *gpu_host_exchange(const char *site, const void *value, size_t bytes)
{
    (void)site;
    (void)value;
    (void)bytes;
    abort();
}
void *gpu_host_shared(const char *key, const char *name, size_t bytes)
{
    (void)key;
    (void)name;
    (void)bytes;
    abort();
}
void gpu_host_not_uniform(const char *site)
{
    (void)site;
    abort();
}
void gpu_host_access(const void *p, size_t bytes, bool is_write)
{
    (void)p;
    (void)bytes;
    (void)is_write;
    abort();
}
void gpu_host_unused(const void *p, size_t bytes)
{
    (void)p;
    (void)bytes;
    abort();
}
int gpu_host_matrix(void)
{
    abort();
}
