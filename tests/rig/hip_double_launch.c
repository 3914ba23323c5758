/* The double of the HIP runtime (see hip_double.h): modules, launches, graphs. */
#include "tests/rig/hip_double_state.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NODES = 8192 };

struct hip_double_node *hip_double_record(void *stream)
{
    if (!hip_double.capture || stream != hip_double.capture_stream) {
        return NULL;
    }
    ASSERT(pthread_equal(pthread_self(), hip_double.capture_thread));
    ASSERT(hip_double.capture->n < MAX_NODES);
    return &hip_double.capture->nodes[hip_double.capture->n++];
}

/* --- kernels ---------------------------------------------------------------------------------- */

int hipModuleLoadData(void **ret, const void *image)
{
    (void)image;
    int error = hip_double_fault_of("ModuleLoadData");
    if (error == 0) {
        Dl_info here;
        int (*self)(void **, void *, const char *) = hipModuleGetFunction;
        void *address;
        memcpy(&address, &self, sizeof address);
        ASSERT(dladdr(address, &here));
        *ret = dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD);
        hip_double_note("load", 0);
    }
    return error;
}

int hipModuleUnload(void *module)
{
    hip_double_each(hip_double_note);
    dlclose(module);
    return hip_double.sticky;
}

int hipModuleGetFunction(void **ret, void *module, const char *name)
{
    char symbol[64];
    snprintf(symbol, sizeof symbol, "%s_kernel", name);
    void *kernel = dlsym(module, symbol);
    if (kernel) {
        *ret = kernel;
    }
    return kernel ? HIP_DOUBLE_SUCCESS : HIP_DOUBLE_NOT_FOUND;
}

static void run_kernel(const struct hip_double_node *n, void *stream)
{
    const struct hip_double_fault *f = hip_double_at(n->kernel->name, 1);
    if (hip_double.sticky || hip_double.is_hung) {
        return;
    }
    if (n->crumb.at) {
        *(volatile uint32_t *)n->crumb.at = n->crumb.number;
    }
    hip_double_count(n->kernel);
    hip_double_open(true);
    bool is_sound = emulator_launch(n->kernel, &n->grid, n->args, n->kernel->args_bytes);
    if (is_sound && f && (f->kind == HIP_DOUBLE_NAN || f->kind == HIP_DOUBLE_WRONG)) {
        hip_double_spoil(n->kernel, n->args, f->kind == HIP_DOUBLE_NAN);
    }
    hip_double_open(false);
    if (!is_sound) {
        fprintf(stderr, "%s\n", emulator_fault());
        hip_double.sticky = 700;
        return;
    }
    if (f) {
        switch (f->kind) {
        case HIP_DOUBLE_ABORT:
            hip_double_die();
            break;
        case HIP_DOUBLE_STICKY:
        case HIP_DOUBLE_FAILURE:
            hip_double.sticky = f->kind == HIP_DOUBLE_STICKY ? 700 : 719;
            break;
        case HIP_DOUBLE_HANG:
            hip_double.is_hung = true;
            break;
        case HIP_DOUBLE_SLOW:
            hip_double_stream(stream)->ready_ns =
                hip_double_now_ns() + (uint64_t)f->number * 1000000u;
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
    if (grid_x == 0 || grid_y == 0 || grid_z == 0 || grid_y > 65536 || grid_z > 65536 ||
        block_x != (unsigned)kernel->threads || block_y != 1 || block_z != 1 || shared_bytes != 0 ||
        extra || kernel->args_bytes > HIP_DOUBLE_ARGS_BYTES) {
        return HIP_DOUBLE_INVALID;
    }
    pthread_mutex_lock(&hip_double.lock);
    struct hip_double_node n = {.kind = HIP_DOUBLE_KERNEL,
                                .kernel = kernel,
                                .grid = {.x = (int)grid_x, .y = (int)grid_y, .z = (int)grid_z}};
    memcpy(n.args, params[0], kernel->args_bytes);
    memcpy(&n.crumb, params[1], sizeof n.crumb);
    struct hip_double_node *recorded = hip_double_record(stream);
    if (recorded) {
        *recorded = n;
    } else {
        run_kernel(&n, stream);
    }
    pthread_mutex_unlock(&hip_double.lock);
    return HIP_DOUBLE_SUCCESS;
}

/* --- graphs ----------------------------------------------------------------------------------- */

int hipStreamBeginCapture(void *stream, int mode)
{
    (void)mode;
    pthread_mutex_lock(&hip_double.lock);
    int error = hip_double_fault_of("StreamBeginCapture");
    if (error == 0) {
        hip_double.capture = calloc(1, sizeof *hip_double.capture);
        ASSERT(hip_double.capture);
        hip_double.capture->nodes = malloc(MAX_NODES * sizeof *hip_double.capture->nodes);
        ASSERT(hip_double.capture->nodes);
        hip_double.capture_stream = stream;
        hip_double.capture_thread = pthread_self();
        hip_double_note("capture", 0);
    }
    pthread_mutex_unlock(&hip_double.lock);
    return error;
}

int hipStreamEndCapture(void *stream, void **ret_graph)
{
    (void)stream;
    pthread_mutex_lock(&hip_double.lock);
    *ret_graph = hip_double.capture;
    hip_double.capture = NULL;
    int error = hip_double_fault_of("StreamEndCapture");
    pthread_mutex_unlock(&hip_double.lock);
    return error;
}

int hipGraphInstantiate(void **ret_exec, void *graph, void **ret_bad_node, char *log,
                        size_t log_bytes)
{
    (void)ret_bad_node;
    (void)log;
    (void)log_bytes;
    pthread_mutex_lock(&hip_double.lock);
    const struct hip_double_graph *from = graph;
    int error = hip_double_fault_of("GraphInstantiate");
    if (error == 0) {
        struct hip_double_graph *g = calloc(1, sizeof *g);
        ASSERT(g);
        g->n = from->n;
        g->nodes = malloc((g->n + 1) * sizeof *g->nodes);
        ASSERT(g->nodes);
        memcpy(g->nodes, from->nodes, g->n * sizeof *g->nodes);
        *ret_exec = g;
        hip_double_note("instantiate", g->n);
    }
    pthread_mutex_unlock(&hip_double.lock);
    return error;
}

int hipGraphLaunch(void *exec, void *stream)
{
    const struct hip_double_graph *g = exec;
    pthread_mutex_lock(&hip_double.lock);
    int error = hip_double_fault_of("GraphLaunch");
    for (size_t i = 0; i < g->n && error == 0; i++) {
        const struct hip_double_node *n = &g->nodes[i];
        if (n->kind == HIP_DOUBLE_KERNEL) {
            run_kernel(n, stream);
        } else if (n->kind == HIP_DOUBLE_COPY) {
            hip_double_copy(n->to, n->from, n->bytes, n->value, false);
        } else {
            hip_double_set(n->to, n->value, n->bytes);
        }
    }
    hip_double_note("graph", g->n);
    pthread_mutex_unlock(&hip_double.lock);
    return error;
}

static int destroy(void *graph)
{
    struct hip_double_graph *g = graph;
    if (g) {
        free(g->nodes);
        free(g);
    }
    return hip_double.sticky;
}

int hipGraphDestroy(void *graph)
{
    return destroy(graph);
}

int hipGraphExecDestroy(void *exec)
{
    return destroy(exec);
}
