/* The CUDA driver's functions that the rig calls, found at run time; numbers and handles are those
 * of cuda.h. Its status numbers are HIP's: 0 success, 2 out of memory, 600 not ready, 700 illegal
 * address, 719 launch failure. */
#ifndef TESTS_RIG_CUDA_CUDA_DRIVER_H
#define TESTS_RIG_CUDA_CUDA_DRIVER_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* CUDA(member, symbol, parameters) */
#define CUDA_FUNCTIONS(CUDA)                                                                       \
    CUDA(Init, "cuInit", (unsigned flags))                                                         \
    CUDA(DeviceGet, "cuDeviceGet", (int *ret, int index))                                          \
    CUDA(DeviceGetAttribute, "cuDeviceGetAttribute", (int *ret, int attribute, int device))        \
    CUDA(PrimaryRetain, "cuDevicePrimaryCtxRetain", (void **ret, int device))                      \
    CUDA(SetCurrent, "cuCtxSetCurrent", (void *context))                                           \
    CUDA(Synchronize, "cuCtxSynchronize", (void))                                                  \
    CUDA(MemGetInfo, "cuMemGetInfo_v2", (size_t *ret_free, size_t *ret_total))                     \
    CUDA(MemAlloc, "cuMemAlloc_v2", (uint64_t *ret, size_t bytes))                                 \
    CUDA(MemFree, "cuMemFree_v2", (uint64_t p))                                                    \
    CUDA(HostAlloc, "cuMemHostAlloc", (void **ret, size_t bytes, unsigned flags))                  \
    CUDA(HostFree, "cuMemFreeHost", (void *p))                                                     \
    CUDA(Memcpy, "cuMemcpy", (uint64_t to, uint64_t from, size_t bytes))                           \
    CUDA(MemcpyAsync, "cuMemcpyAsync", (uint64_t to, uint64_t from, size_t bytes, void *stream))   \
    CUDA(MemsetAsync, "cuMemsetD8Async", (uint64_t to, unsigned char v, size_t n, void *stream))   \
    CUDA(StreamCreate, "cuStreamCreateWithPriority", (void **ret, unsigned flags, int priority))   \
    CUDA(StreamDestroy, "cuStreamDestroy_v2", (void *stream))                                      \
    CUDA(StreamQuery, "cuStreamQuery", (void *stream))                                             \
    CUDA(StreamSynchronize, "cuStreamSynchronize", (void *stream))                                 \
    CUDA(EventCreate, "cuEventCreate", (void **ret, unsigned flags))                               \
    CUDA(EventDestroy, "cuEventDestroy_v2", (void *event))                                         \
    CUDA(EventRecord, "cuEventRecord", (void *event, void *stream))                                \
    CUDA(EventQuery, "cuEventQuery", (void *event))                                                \
    CUDA(EventElapsedTime, "cuEventElapsedTime", (float *ret_ms, void *begin, void *end))          \
    CUDA(ModuleLoadData, "cuModuleLoadData", (void **ret, const void *image))                      \
    CUDA(ModuleUnload, "cuModuleUnload", (void *module))                                           \
    CUDA(ModuleGetFunction, "cuModuleGetFunction", (void **ret, void *module, const char *name))   \
    CUDA(LaunchKernel, "cuLaunchKernel",                                                           \
         (void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,         \
          unsigned bz, unsigned shared_bytes, void *stream, void **params, void **extra))          \
    CUDA(BeginCapture, "cuStreamBeginCapture_v2", (void *stream, int mode))                        \
    CUDA(EndCapture, "cuStreamEndCapture", (void *stream, void **ret))                             \
    CUDA(Instantiate, "cuGraphInstantiateWithFlags", (void **ret, void *graph, uint64_t flags))    \
    CUDA(GraphLaunch, "cuGraphLaunch", (void *exec, void *stream))                                 \
    CUDA(GraphDestroy, "cuGraphDestroy", (void *graph))                                            \
    CUDA(GraphExecDestroy, "cuGraphExecDestroy", (void *exec))

struct cuda_driver {
#define CUDA(member, symbol, params) int(*member) params;
    CUDA_FUNCTIONS(CUDA)
#undef CUDA
    void *context;
};

/* The first device, its context made current. Ends the process where there is none. */
static inline struct cuda_driver *cuda_driver(void)
{
    static struct cuda_driver d;
    if (d.context) {
        return &d;
    }
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL), *symbol;
#define CUDA(member, name, params)                                                                 \
    symbol = library ? dlsym(library, name) : NULL;                                                \
    if (!symbol) {                                                                                 \
        fprintf(stderr, "cuda rig: no %s\n", name);                                                \
        exit(77);                                                                                  \
    }                                                                                              \
    memcpy(&d.member, &symbol, sizeof symbol);
    CUDA_FUNCTIONS(CUDA)
#undef CUDA
    int device = 0;
    if (d.Init(0) != 0 || d.DeviceGet(&device, 0) != 0 ||
        d.PrimaryRetain(&d.context, device) != 0 || d.SetCurrent(d.context) != 0) {
        fprintf(stderr, "cuda rig: no device\n");
        exit(77);
    }
    return &d;
}

#endif
