/* The HIP runtime's functions over the CUDA driver, as far as safety/hip.def has them: the
 * worker's sources, unchanged, on a card of another maker. The device calls itself a gfx1100 at
 * 0000:03:00.0, so that the "code object" that is asked for is the file of that name, a cubin
 * here. */
#include "tests/rig/cuda/cuda_driver.h"

#define HIP(need, name, type, params) type hip##name params;
#include "safety/hip.def"
#undef HIP

int hipInit(unsigned flags)
{
    (void)flags;
    (void)cuda_driver();
    return 0;
}
int hipRuntimeGetVersion(int *ret)
{
    *ret = 60342134;
    return 0;
}
int hipGetDeviceCount(int *ret)
{
    *ret = 1;
    return 0;
}
int hipDeviceGetAttribute(int *ret, int attribute, int device)
{
    (void)device;
    *ret = attribute == 67 ? 0x03 : 0;
    return attribute >= 67 && attribute <= 69 ? 0 : 1;
}
int hipGetDeviceProperties(void *ret, int device)
{
    (void)device;
    memcpy((char *)ret + 396, "gfx1100", 8);
    return 0;
}
int hipGetDevicePropertiesR0600(void *ret, int device)
{
    (void)device;
    memcpy((char *)ret + 1160, "gfx1100", 8);
    return 0;
}
int hipSetDevice(int device)
{
    (void)device;
    return cuda_driver()->SetCurrent(cuda_driver()->context);
}
const char *hipGetErrorString(int error)
{
    (void)error;
    return "of the CUDA driver";
}
int hipMemGetInfo(size_t *ret_free, size_t *ret_total)
{
    return cuda_driver()->MemGetInfo(ret_free, ret_total);
}
int hipMalloc(void **ret, size_t bytes)
{
    return cuda_driver()->MemAlloc((uint64_t *)(void *)ret, bytes);
}
int hipFree(void *p)
{
    return cuda_driver()->MemFree((uint64_t)p);
}
int hipHostMalloc(void **ret, size_t bytes, unsigned flags)
{
    (void)flags;
    return cuda_driver()->HostAlloc(ret, bytes, 0);
}
int hipHostFree(void *p)
{
    return cuda_driver()->HostFree(p);
}
int hipMemcpy(void *to, const void *from, size_t bytes, int kind)
{
    (void)kind;
    return cuda_driver()->Memcpy((uint64_t)to, (uint64_t)from, bytes);
}
int hipMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream)
{
    (void)kind;
    return cuda_driver()->MemcpyAsync((uint64_t)to, (uint64_t)from, bytes, stream);
}
int hipMemsetAsync(void *to, int value, size_t bytes, void *stream)
{
    return cuda_driver()->MemsetAsync((uint64_t)to, (unsigned char)value, bytes, stream);
}
int hipStreamCreateWithPriority(void **ret, unsigned flags, int priority)
{
    (void)priority; /* HIP's lowest is 1, CUDA's 0 */
    return cuda_driver()->StreamCreate(ret, flags, 0);
}
int hipStreamDestroy(void *stream)
{
    return cuda_driver()->StreamDestroy(stream);
}
int hipStreamQuery(void *stream)
{
    return cuda_driver()->StreamQuery(stream);
}
int hipStreamSynchronize(void *stream)
{
    return cuda_driver()->StreamSynchronize(stream);
}
int hipEventCreateWithFlags(void **ret, unsigned flags)
{
    return cuda_driver()->EventCreate(ret, flags);
}
int hipEventDestroy(void *event)
{
    return cuda_driver()->EventDestroy(event);
}
int hipEventRecord(void *event, void *stream)
{
    return cuda_driver()->EventRecord(event, stream);
}
int hipEventQuery(void *event)
{
    return cuda_driver()->EventQuery(event);
}
int hipModuleLoadData(void **ret, const void *image)
{
    return cuda_driver()->ModuleLoadData(ret, image);
}
int hipModuleUnload(void *module)
{
    return cuda_driver()->ModuleUnload(module);
}
int hipModuleGetFunction(void **ret, void *module, const char *name)
{
    char symbol[64];
    snprintf(symbol, sizeof symbol, "gpu_%s", name);
    return cuda_driver()->ModuleGetFunction(ret, module, symbol);
}
int hipModuleLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                          unsigned block_x, unsigned block_y, unsigned block_z,
                          unsigned shared_bytes, void *stream, void **params, void **extra)
{
    return cuda_driver()->LaunchKernel(function, grid_x, grid_y, grid_z, block_x, block_y, block_z,
                                       shared_bytes, stream, params, extra);
}
int hipStreamBeginCapture(void *stream, int mode)
{
    return cuda_driver()->BeginCapture(stream, mode);
}
int hipStreamEndCapture(void *stream, void **ret_graph)
{
    return cuda_driver()->EndCapture(stream, ret_graph);
}
int hipGraphInstantiate(void **ret_exec, void *graph, void **ret_bad_node, char *log,
                        size_t log_bytes)
{
    (void)ret_bad_node;
    (void)log;
    (void)log_bytes;
    return cuda_driver()->Instantiate(ret_exec, graph, 0);
}
/* ROCMFORGE_CUDA_TIMES: how long the card takes for recorded steps, told as the process ends:
 * the median of each exec's last MOST, beside which the rest of a step is the host's. A launch
 * begins after the last one's step was waited for. */
enum { TIMES_MOST = 4096 };
static struct {
    void *begin, *end, *exec;
    float of[TIMES_MOST];
    size_t n;
} times;

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void tell_times(void)
{
    if (times.n > 0) {
        qsort(times.of, times.n, sizeof *times.of, by_size);
        fprintf(stderr, "cuda rig: %zu launches of a recorded step, median %.1f us\n", times.n,
                1000.0 * (double)times.of[times.n / 2]);
    }
    times.n = 0;
}

static void note_time(void)
{
    float ms;
    if (times.exec && times.n < TIMES_MOST &&
        cuda_driver()->EventElapsedTime(&ms, times.begin, times.end) == 0) {
        times.of[times.n++] = ms;
    }
}

static int launch_timed(void *exec, void *stream)
{
    const struct cuda_driver *d = cuda_driver();
    if (!times.begin &&
        (d->EventCreate(&times.begin, 0) != 0 || d->EventCreate(&times.end, 0) != 0 ||
         atexit(tell_times) != 0)) {
        return 1;
    }
    note_time();
    if (times.exec != exec) {
        tell_times();
    }
    times.exec = exec;
    int error = d->EventRecord(times.begin, stream);
    error = error == 0 ? d->GraphLaunch(exec, stream) : error;
    return error == 0 ? d->EventRecord(times.end, stream) : error;
}

int hipGraphLaunch(void *exec, void *stream)
{
    return getenv("ROCMFORGE_CUDA_TIMES") ? launch_timed(exec, stream)
                                          : cuda_driver()->GraphLaunch(exec, stream);
}
int hipGraphDestroy(void *graph)
{
    return cuda_driver()->GraphDestroy(graph);
}
int hipGraphExecDestroy(void *exec)
{
    return cuda_driver()->GraphExecDestroy(exec);
}
