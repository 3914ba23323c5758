/* The functions of the HIP runtime over the emulator (see hip_double.h). One lock around everything: the emulator is
 * for one thread at a time. */
#include "kernels/hip/args.h"
#include "tests/rig/emulator.h"
#include "tests/rig/hip_double.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define HIP(need, name, type, params) type hip##name params;
#include "safety/hip.def"
#undef HIP

enum { SUCCESS = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, NOT_FOUND = 500, NOT_READY = 600 };
enum { MAX_BUFFERS = 64, MAX_NODES = 8192, ARGS_BYTES = 512, PAGE = 4096 };

struct node { /* of a graph */
    enum { NODE_KERNEL, NODE_COPY, NODE_SET } kind;
    const struct gpu_host_kernel *kernel;
    struct emulator_grid grid;
    char args[ARGS_BYTES];
    struct args_crumb crumb;
    void *to;
    const void *from;
    size_t bytes;
    int value; /* or kind of copy */
};
struct graph {
    struct node *nodes; /* owned */
    size_t n;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    void *p;
    size_t bytes;
} buffers[MAX_BUFFERS];
static uint64_t used_bytes;
static int sticky;
static bool is_hung;
static uint64_t ready_ns;
static struct graph *capture; /* being recorded */

/* --- faults ----------------------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void note(const char *what, size_t bytes)
{
    const char *path = getenv("HIP_DOUBLE_LOG");
    FILE *f = path ? fopen(path, "ae") : NULL;
    if (f) {
        fprintf(f, "%s %zu\n", what, bytes);
        fclose(f);
    }
}

static void die(void)
{
    fprintf(stderr, "Memory access fault by GPU node-1 (Agent handle: 0x1) on address 0x7f0000001000. "
                    "Reason: Page not present or supervisor privilege.\n");
    abort();
}

/* What a call returns instead of working; 0: it works. */
static int fault_of(const char *function)
{
    const struct hip_double_fault *f = hip_double_at(function, 0);
    if (f) {
        switch (f->kind) {
        case HIP_DOUBLE_ABORT:
            die();
            break;
        case HIP_DOUBLE_HANG:
            is_hung = true;
            break;
        case HIP_DOUBLE_STICKY:
        case HIP_DOUBLE_FAILURE:
            sticky = f->kind == HIP_DOUBLE_STICKY ? 700 : 719;
            break;
        case HIP_DOUBLE_OOM:
            return OUT_OF_MEMORY;
        case HIP_DOUBLE_ERROR:
            return (int)f->number;
        default:
            break;
        }
    }
    return sticky;
}

/* The host may not touch what is the device's: outside copies and kernels its pages are closed. */
static void open_memory(bool is_open)
{
    for (int i = 0; i < MAX_BUFFERS; i++) {
        if (buffers[i].p) { /* whole pages: around a buffer are guard zones */
            uintptr_t first = (uintptr_t)buffers[i].p / PAGE * PAGE;
            uintptr_t end = ((uintptr_t)buffers[i].p + buffers[i].bytes + PAGE - 1) / PAGE * PAGE;
            ASSERT(mprotect((void *)first, end - first, is_open ? PROT_READ | PROT_WRITE : PROT_NONE) == 0);
        }
    }
}

static void wait_for_ever(void)
{
    for (;;) {
        pause();
    }
}

__attribute__((constructor)) static void load(void)
{
    const char *plan = getenv("HIP_DOUBLE");
    if (plan && strcmp(plan, "abort-load") == 0) {
        abort();
    }
}

/* --- device ------------------------------------------------------------------------------------- */

int hipInit(unsigned flags)
{
    (void)flags;
    return fault_of("Init");
}

int hipRuntimeGetVersion(int *ret)
{
    *ret = 60342134;
    return SUCCESS;
}

int hipGetDeviceCount(int *ret)
{
    const struct hip_double_fault *f = hip_double_at("GetDeviceCount", 0);
    *ret = f && f->kind == HIP_DOUBLE_HIDDEN ? 1 : 2;
    return SUCCESS;
}

int hipDeviceGetAttribute(int *ret, int attribute, int device)
{
    *ret = attribute == 67 ? (device == 1 ? 0x03 : 0x0e) : 0;
    return attribute >= 67 && attribute <= 69 ? SUCCESS : INVALID;
}

int hipGetDeviceProperties(void *ret, int device)
{
    memcpy((char *)ret + 396, device == 1 ? "gfx1100" : "gfx1036", 8);
    return SUCCESS;
}

int hipGetDevicePropertiesR0600(void *ret, int device)
{
    static const char card[] = "gfx1100:sramecc-:xnack-";
    memcpy((char *)ret + 1160, device == 1 ? card : "gfx1036", device == 1 ? sizeof card : 8);
    return SUCCESS;
}

int hipSetDevice(int device)
{
    return device == 1 ? SUCCESS : 101;
}

const char *hipGetErrorString(int error)
{
    return error == 2     ? "out of memory"
           : error == 100 ? "no ROCm-capable device is detected"
           : error == 700 ? "an illegal memory access was encountered"
           : error == 719 ? "unspecified launch failure"
                          : "unknown error";
}

/* --- memory --------------------------------------------------------------------------------------- */

static uint64_t mib(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);
    return (text ? strtoull(text, NULL, 10) : otherwise) << 20;
}

int hipMemGetInfo(size_t *ret_free, size_t *ret_total)
{
    uint64_t total = mib("HIP_DOUBLE_VRAM", 20480), taken = mib("HIP_DOUBLE_USED", 5120);
    pthread_mutex_lock(&lock);
    taken += used_bytes;
    pthread_mutex_unlock(&lock);
    *ret_total = total;
    *ret_free = total > taken ? total - taken : 0;
    return sticky;
}

int hipMalloc(void **ret, size_t bytes)
{
    size_t free_bytes, total;
    (void)hipMemGetInfo(&free_bytes, &total);
    pthread_mutex_lock(&lock);
    int error = fault_of("Malloc"), i = 0;
    while (i < MAX_BUFFERS && buffers[i].p) {
        i++;
    }
    error = error == 0 && (bytes > free_bytes || i == MAX_BUFFERS) ? OUT_OF_MEMORY : error;
    if (error == 0) {
        *ret = buffers[i].p = emulator_alloc(bytes, 0);
        buffers[i].bytes = bytes;
        used_bytes += bytes;
        open_memory(false);
        note("malloc", bytes);
    }
    pthread_mutex_unlock(&lock);
    return error;
}

int hipFree(void *p)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; p && i < MAX_BUFFERS; i++) {
        if (buffers[i].p == p) {
            used_bytes -= buffers[i].bytes;
            note("free", buffers[i].bytes);
            open_memory(true);
            buffers[i].p = NULL;
            emulator_free(p);
            open_memory(false);
        }
    }
    pthread_mutex_unlock(&lock);
    return sticky;
}

int hipHostMalloc(void **ret, size_t bytes, unsigned flags)
{
    (void)flags;
    *ret = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    return *ret ? SUCCESS : OUT_OF_MEMORY;
}

int hipHostFree(void *p)
{
    free(p);
    return SUCCESS;
}

static void copy(void *to, const void *from, size_t bytes, int kind, bool is_corrupt)
{
    open_memory(true);
    if (kind == 1) {
        emulator_upload(to, from, bytes);
    } else if (kind == 2) {
        emulator_download(to, from, bytes);
        if (is_corrupt && bytes > 0) {
            ((uint8_t *)to)[bytes > 1234567 ? 1234567 : 0] ^= 4;
        }
    } else {
        char *between = malloc(bytes + 1);
        emulator_download(between, from, bytes);
        emulator_upload(to, between, bytes);
        free(between);
    }
    open_memory(false);
}

int hipMemcpy(void *to, const void *from, size_t bytes, int kind)
{
    pthread_mutex_lock(&lock);
    const struct hip_double_fault *f = hip_double_at("Memcpy", 0);
    if (is_hung || (f && f->kind == HIP_DOUBLE_HANG)) {
        wait_for_ever();
    }
    if (!sticky) {
        copy(to, from, bytes, kind, f && f->kind == HIP_DOUBLE_CORRUPT && kind == 2);
    }
    pthread_mutex_unlock(&lock);
    return sticky;
}

static struct node *record(void)
{
    ASSERT(capture->n < MAX_NODES);
    return &capture->nodes[capture->n++];
}

int hipMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream)
{
    (void)stream;
    pthread_mutex_lock(&lock);
    const struct hip_double_fault *f = hip_double_at("MemcpyAsync", 0);
    if (f && f->kind == HIP_DOUBLE_HANG) {
        is_hung = true;
    }
    if (capture) {
        *record() = (struct node){.kind = NODE_COPY, .to = to, .from = from, .bytes = bytes, .value = kind};
    } else if (!sticky && !is_hung) {
        copy(to, from, bytes, kind, f && f->kind == HIP_DOUBLE_CORRUPT);
        if (kind == 2 && bytes >= PAGE) {
            note("fetch", bytes);
        }
    }
    pthread_mutex_unlock(&lock);
    return sticky;
}

static void set(void *to, int value, size_t bytes)
{
    char *bytes_of = malloc(bytes + 1);
    memset(bytes_of, value, bytes);
    open_memory(true);
    emulator_upload(to, bytes_of, bytes);
    open_memory(false);
    free(bytes_of);
}

int hipMemsetAsync(void *to, int value, size_t bytes, void *stream)
{
    (void)stream;
    pthread_mutex_lock(&lock);
    if (capture) {
        *record() = (struct node){.kind = NODE_SET, .to = to, .bytes = bytes, .value = value};
    } else if (!sticky && !is_hung) {
        set(to, value, bytes);
    }
    pthread_mutex_unlock(&lock);
    return sticky;
}

/* --- streams and events: there is one stream ----------------------------------------------------- */

int hipStreamCreateWithPriority(void **ret, unsigned flags, int priority)
{
    (void)flags;
    (void)priority;
    *ret = malloc(1);
    return sticky;
}

int hipStreamDestroy(void *stream)
{
    free(stream);
    return sticky;
}

int hipStreamQuery(void *stream)
{
    (void)stream;
    return sticky ? sticky : is_hung || now_ns() < ready_ns ? NOT_READY : SUCCESS;
}

int hipStreamSynchronize(void *stream)
{
    while (hipStreamQuery(stream) == NOT_READY) {
        usleep(1000);
    }
    return sticky;
}

int hipEventCreateWithFlags(void **ret, unsigned flags)
{
    (void)flags;
    *ret = malloc(1);
    return sticky;
}

int hipEventDestroy(void *event)
{
    free(event);
    return sticky;
}

int hipEventRecord(void *event, void *stream)
{
    (void)event;
    (void)stream;
    return sticky;
}

int hipEventQuery(void *event)
{
    return hipStreamQuery(event);
}

/* --- kernels -------------------------------------------------------------------------------------- */

int hipModuleLoadData(void **ret, const void *image)
{
    (void)image;
    int error = fault_of("ModuleLoadData");
    if (error == 0) {
        Dl_info here;
        void (*self)(void) = load;
        void *address;
        memcpy(&address, &self, sizeof address);
        ASSERT(dladdr(address, &here));
        *ret = dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD);
        note("load", 0);
    }
    return error;
}

int hipModuleUnload(void *module)
{
    hip_double_each(note);
    dlclose(module);
    return sticky;
}

int hipModuleGetFunction(void **ret, void *module, const char *name)
{
    char symbol[64];
    snprintf(symbol, sizeof symbol, "%s_kernel", name);
    void *kernel = dlsym(module, symbol);
    if (kernel) {
        *ret = kernel;
    }
    return kernel ? SUCCESS : NOT_FOUND;
}

static void run_kernel(const struct node *n)
{
    const struct hip_double_fault *f = hip_double_at(n->kernel->name, 1);
    if (sticky || is_hung) {
        return;
    }
    if (n->crumb.at) {
        *(volatile uint32_t *)n->crumb.at = n->crumb.number;
    }
    hip_double_count(n->kernel);
    open_memory(true);
    bool is_sound = emulator_launch(n->kernel, &n->grid, n->args, n->kernel->args_bytes);
    if (is_sound && f && (f->kind == HIP_DOUBLE_NAN || f->kind == HIP_DOUBLE_WRONG)) {
        hip_double_spoil(n->kernel, n->args, f->kind == HIP_DOUBLE_NAN);
    }
    open_memory(false);
    if (!is_sound) {
        fprintf(stderr, "%s\n", emulator_fault());
        sticky = 700;
        return;
    }
    if (f) {
        switch (f->kind) {
        case HIP_DOUBLE_ABORT:
            die();
            break;
        case HIP_DOUBLE_STICKY:
        case HIP_DOUBLE_FAILURE:
            sticky = f->kind == HIP_DOUBLE_STICKY ? 700 : 719;
            break;
        case HIP_DOUBLE_HANG:
            is_hung = true;
            break;
        case HIP_DOUBLE_SLOW:
            ready_ns = now_ns() + (uint64_t)f->number * 1000000u;
            break;
        default:
            break;
        }
    }
}

int hipModuleLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                          unsigned block_x, unsigned block_y, unsigned block_z,
                          unsigned shared_bytes, void *stream, void **params, void **extra)
{
    const struct gpu_host_kernel *kernel = function;
    (void)stream;
    if (grid_x == 0 || grid_y == 0 || grid_z == 0 || grid_y > 65536 || grid_z > 65536 ||
        block_x != (unsigned)kernel->threads || block_y != 1 || block_z != 1 || shared_bytes != 0 ||
        extra || kernel->args_bytes > ARGS_BYTES) {
        return INVALID;
    }
    pthread_mutex_lock(&lock);
    struct node n = {.kind = NODE_KERNEL, .kernel = kernel,
                     .grid = {.x = (int)grid_x, .y = (int)grid_y, .z = (int)grid_z}};
    memcpy(n.args, params[0], kernel->args_bytes);
    memcpy(&n.crumb, params[1], sizeof n.crumb);
    if (capture) {
        *record() = n;
    } else {
        run_kernel(&n);
    }
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

/* --- graphs --------------------------------------------------------------------------------------- */

int hipStreamBeginCapture(void *stream, int mode)
{
    (void)stream;
    (void)mode;
    pthread_mutex_lock(&lock);
    int error = fault_of("StreamBeginCapture");
    if (error == 0) {
        capture = calloc(1, sizeof *capture);
        ASSERT(capture);
        capture->nodes = malloc(MAX_NODES * sizeof *capture->nodes);
        ASSERT(capture->nodes);
        note("capture", 0);
    }
    pthread_mutex_unlock(&lock);
    return error;
}

int hipStreamEndCapture(void *stream, void **ret_graph)
{
    (void)stream;
    pthread_mutex_lock(&lock);
    *ret_graph = capture;
    capture = NULL;
    int error = fault_of("StreamEndCapture");
    pthread_mutex_unlock(&lock);
    return error;
}

int hipGraphInstantiate(void **ret_exec, void *graph, void **ret_bad_node, char *log, size_t log_bytes)
{
    (void)ret_bad_node;
    (void)log;
    (void)log_bytes;
    pthread_mutex_lock(&lock);
    const struct graph *from = graph;
    int error = fault_of("GraphInstantiate");
    if (error == 0) {
        struct graph *g = calloc(1, sizeof *g);
        ASSERT(g);
        g->n = from->n;
        g->nodes = malloc((g->n + 1) * sizeof *g->nodes);
        ASSERT(g->nodes);
        memcpy(g->nodes, from->nodes, g->n * sizeof *g->nodes);
        *ret_exec = g;
        note("instantiate", g->n);
    }
    pthread_mutex_unlock(&lock);
    return error;
}

int hipGraphLaunch(void *exec, void *stream)
{
    (void)stream;
    const struct graph *g = exec;
    pthread_mutex_lock(&lock);
    int error = fault_of("GraphLaunch");
    for (size_t i = 0; i < g->n && error == 0; i++) {
        const struct node *n = &g->nodes[i];
        if (n->kind == NODE_KERNEL) {
            run_kernel(n);
        } else if (n->kind == NODE_COPY) {
            copy(n->to, n->from, n->bytes, n->value, false);
        } else {
            set(n->to, n->value, n->bytes);
        }
    }
    note("graph", g->n);
    pthread_mutex_unlock(&lock);
    return error;
}

static int destroy(void *graph)
{
    struct graph *g = graph;
    if (g) {
        free(g->nodes);
        free(g);
    }
    return sticky;
}

int hipGraphDestroy(void *graph)
{
    return destroy(graph);
}

int hipGraphExecDestroy(void *exec)
{
    return destroy(exec);
}
