/* The GPU door (see door.h). The thread that opened it, the token loop's, and, where door.h says
 * so, any. Blocks in door_wait, up to its deadline, and wherever the driver likes: who watches over
 * that is the supervisor's watchdog. */
#include "worker/gpu/door.h"

#include "safety/hip.h"
#include "shared/clock.h"
#include "shared/log.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    DEADLINE_MS = 20 * 1000, /* the watchdog's is longer: last words first */
    RECENT = 256,
    GRAPH_KERNELS = 8192,
    STAGING_BYTES = 4 * 1024 * 1024,
    SPIN_NS = 200 * 1000,
    NAP_NS = 50 * 1000,
    SLEEP_NS = 50 * 1000 * 1000, /* at a time, whatever is expected */
    NOTE_BYTES = 120,
    LONG_NS = 100 * 1000 * 1000, /* no kernel of ours takes so long */
};
#define OF_GRAPH 0x80000000u /* in a crumb: the number is that of a graph's kernel */

struct door {
    struct hip hip;
    int device;
    char arch[32];
    uint64_t kernels; /* digest of the code object */
    struct status_page *status; /* borrowed */
    uint64_t deadline_ns;
    pthread_t stepper; /* who opened it */
    void *module, *stream, *load_stream;
    void *functions[TABLE_COUNT];
    pthread_mutex_t load_lock; /* around load_stream and staging */
    void *staging; /* owned */
    /* what is going on: the stepper's */
    char note[NOTE_BYTES];
    bool is_careful;
    uint32_t n_launched;           /* never OF_GRAPH */
    enum table_id recent[RECENT];  /* the latest launches */
    struct door_graph *recorded;   /* owned; while capturing */
    const struct door_graph *replayed; /* borrowed; the latest of the note */
    /* owned, pinned: kernels write here as they begin (args.h); 0: none of the note has */
    _Atomic uint32_t *crumb;
};

struct door_graph {
    void *exec; /* owned */
    uint32_t n_kernels;
    uint8_t kernels[GRAPH_KERNELS]; /* enum table_id, in order; of more there are no names */
};
_Static_assert((int)TABLE_COUNT <= UINT8_MAX, "kernels of a graph are bytes");

struct door_point {
    void *event; /* owned */
};

/* --- the end --------------------------------------------------------------------------------- */

/* For the handler of SIGABRT, by which ROCm 5 and 6 end a process whose GPU faulted. */
static struct door *open_door;

/* The kernel that was the last to begin. */
static const char *kernel_of(const struct door *d, uint32_t crumb)
{
    uint32_t i = crumb & ~OF_GRAPH;
    if (crumb & OF_GRAPH) {
        const struct door_graph *g = d->replayed;
        bool is_known = g && i < MIN(g->n_kernels, (uint32_t)GRAPH_KERNELS);
        return is_known ? table_kernels[g->kernels[i]].name : "one of a replayed step";
    }
    return i > 0 && d->n_launched - i < RECENT ? table_kernels[d->recent[i % RECENT]].name : "none";
}

static uint32_t crumb_of(const struct door *d)
{
    return d->crumb ? atomic_load_explicit(d->crumb, memory_order_relaxed) : 0;
}

static bool is_stepper(const struct door *d)
{
    return pthread_equal(pthread_self(), d->stepper);
}

static void say_last_words(const struct door *d, const char *what, bool is_load)
{
    char text[900];
    int n = snprintf(text, sizeof text, "GPU %s: %s; in ", d->arch, what);
    if (is_load) {
        snprintf(text + n, sizeof text - (size_t)n, "loading a model");
    } else {
        snprintf(text + n, sizeof text - (size_t)n, "%s; kernel: %s",
                 *d->note ? d->note : "nothing", kernel_of(d, crumb_of(d)));
    }
    if (d->status) {
        status_last_words(d->status, "%s", text);
    }
    log_error("%s", text);
}

NORETURN static void die(const struct door *d, const char *what)
{
    say_last_words(d, what, !is_stepper(d));
    _exit(EXIT_GPU_FAULT);
}

static void on_abort(int signal_number)
{
    (void)signal_number;
    struct door *d = open_door;
    open_door = NULL;
    if (d) { /* in a thread of the runtime's, perhaps */
        say_last_words(d, "the runtime aborted; what it said stands before this", false);
    }
    signal(SIGABRT, SIG_DFL);
    raise(SIGABRT);
}

static void must(const struct door *d, const char *call, int error)
{
    if (error != HIP_SUCCESS) {
        char what[160];
        snprintf(what, sizeof what, "%s: error %d, %s", call, error, d->hip.GetErrorString(error));
        die(d, what);
    }
}
#define MUST_DO(d, function, ...) must(d, "hip" #function, (d)->hip.function(__VA_ARGS__))

/* --- opening --------------------------------------------------------------------------------- */

static int refuse(const struct door *d, const char *call, int error, struct err *e)
{
    return err_set(e, ERR_NO_GPU, "%s: error %d, %s", call, error, d->hip.GetErrorString(error));
}

static int find_device(struct door *d, const char *pci, struct err *e)
{
    int n = 0, error = d->hip.Init(0);
    if (error == HIP_SUCCESS) {
        error = d->hip.GetDeviceCount(&n);
    }
    if (error != HIP_SUCCESS) {
        return refuse(d, "hipInit", error, e);
    }
    d->device = hip_find(&d->hip, pci, n);
    if (d->device < 0) {
        return err_set(e, ERR_NO_GPU, "HIP sees %d devices, but not %s", n, pci);
    }
    error = d->hip.SetDevice(d->device);
    if (error == HIP_SUCCESS) {
        error = hip_arch(&d->hip, d->device, d->arch);
    }
    return error == HIP_SUCCESS ? 0 : refuse(d, "hipSetDevice", error, e);
}

static int load_kernels(struct door *d, const char *dir, struct err *e)
{
    char path[HIP_PATH_BYTES];
    hip_object_path(dir, d->arch, path);
    int err = hip_object_load(&d->hip, path, &d->module, &d->kernels, e);
    for (int i = 0; i < TABLE_COUNT && err == 0; i++) {
        int error = d->hip.ModuleGetFunction(&d->functions[i], d->module, table_kernels[i].name);
        if (error != HIP_SUCCESS) {
            err = err_set(e, ERR_NO_GPU, "%s has no kernel %s", path, table_kernels[i].name);
        }
    }
    return err;
}

static int make_streams(struct door *d, struct err *e)
{
    const struct hip *h = &d->hip;
    unsigned flags = HIP_STREAM_NON_BLOCKING;
    int error = h->StreamCreateWithPriority(&d->stream, flags, HIP_PRIORITY_LOW);
    if (error == HIP_SUCCESS) {
        error = h->StreamCreateWithPriority(&d->load_stream, flags, HIP_PRIORITY_LOW);
    }
    if (error == HIP_SUCCESS) {
        error = h->HostMalloc(&d->staging, STAGING_BYTES, 0);
    }
    void *crumb = NULL;
    if (error == HIP_SUCCESS) {
        error = h->HostMalloc(&crumb, sizeof *d->crumb, HIP_HOST_MAPPED | HIP_HOST_COHERENT);
    }
    if (error != HIP_SUCCESS) {
        return refuse(d, "streams and pinned memory", error, e);
    }
    d->crumb = crumb;
    atomic_store(d->crumb, 0);
    return 0;
}

int door_open(const struct door_options *o, struct door **ret, struct err *e)
{
    struct door *d = calloc(1, sizeof *d);
    if (!d) {
        return -ENOMEM;
    }
    /* Read once, when the library is loaded. A second hardware queue keeps some cards (gfx11) at
     * 100 W while nothing runs, and is one more that the desktop's waits for; our two streams share
     * the one. What the user set stays. */
    setenv("GPU_MAX_HW_QUEUES", "1", 0);
    d->stepper = pthread_self();
    pthread_mutex_init(&d->load_lock, NULL);
    d->status = o->status;
    d->deadline_ns = (o->deadline_ms ? o->deadline_ms : DEADLINE_MS) * 1000000u;
    int err = hip_load(&d->hip, e);
    err = err < 0 ? err : find_device(d, o->pci, e);
    err = err < 0 ? err : load_kernels(d, o->kernel_dir, e);
    err = err < 0 ? err : make_streams(d, e);
    if (err < 0) {
        door_close(&d);
        return err;
    }
    open_door = d;
    signal(SIGABRT, on_abort);
    *ret = d;
    return 0;
}

void door_close(struct door **at)
{
    struct door *d = *at;
    if (!d) {
        return;
    }
    *at = NULL;
    open_door = NULL;
    const struct hip *h = &d->hip;
    if (d->crumb) {
        (void)h->HostFree(d->crumb);
    }
    if (d->staging) {
        (void)h->HostFree(d->staging);
    }
    if (d->load_stream) {
        (void)h->StreamDestroy(d->load_stream);
    }
    if (d->stream) {
        (void)h->StreamDestroy(d->stream);
    }
    if (d->module) {
        (void)h->ModuleUnload(d->module);
    }
    pthread_mutex_destroy(&d->load_lock);
    free(d);
}

const char *door_arch(const struct door *d)
{
    return d->arch;
}

bool door_has_matrix(const struct door *d)
{
    return table_has_matrix(d->arch);
}

uint64_t door_kernels(const struct door *d)
{
    return d->kernels;
}

void door_distrust(struct door *d, const char *why)
{
    door_note(d, false, "a check of its numbers");
    die(d, why);
}

/* --- memory ---------------------------------------------------------------------------------- */

void door_memory(struct door *d, uint64_t *ret_free, uint64_t *ret_total)
{
    size_t free_bytes, total;
    MUST_DO(d, MemGetInfo, &free_bytes, &total);
    *ret_free = free_bytes;
    *ret_total = total;
}

/* Every thread begins with another one. */
static void use_device(const struct door *d)
{
    if (!is_stepper(d)) {
        MUST_DO(d, SetDevice, d->device);
    }
}

int door_allocate(struct door *d, size_t bytes, void **ret, struct err *e)
{
    use_device(d);
    int error = d->hip.Malloc(ret, MAX(bytes, (size_t)1));
    if (error == HIP_OUT_OF_MEMORY) {
        uint64_t free_bytes, total;
        door_memory(d, &free_bytes, &total);
        return err_set(e, ERR_NO_VRAM, "%.1f MiB of VRAM are wanted, %.1f of %.1f MiB are free",
                       (double)bytes / 1048576, (double)free_bytes / 1048576,
                       (double)total / 1048576);
    }
    must(d, "hipMalloc", error);
    return 0;
}

void door_free(struct door *d, void *p)
{
    if (p) {
        use_device(d);
        MUST_DO(d, Free, p);
    }
}

void *door_host_allocate(struct door *d, size_t bytes)
{
    void *p = NULL;
    use_device(d);
    int error = d->hip.HostMalloc(&p, MAX(bytes, (size_t)1), 0);
    if (error == HIP_OUT_OF_MEMORY) {
        return NULL;
    }
    must(d, "hipHostMalloc", error);
    return p;
}

void door_host_free(struct door *d, void *p)
{
    if (p) {
        use_device(d);
        MUST_DO(d, HostFree, p);
    }
}

/* --- submitting ------------------------------------------------------------------------------ */

void door_note(struct door *d, bool is_careful, const char *fmt, ...)
{
    ASSERT(is_stepper(d));
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d->note, sizeof d->note, fmt, ap);
    va_end(ap);
    d->is_careful = is_careful;
    d->replayed = NULL;
    atomic_store_explicit(d->crumb, 0, memory_order_relaxed); /* all of the last note is done */
}

/* The number that the next launch leaves. */
static uint32_t number_launch(struct door *d, enum table_id kernel)
{
    struct door_graph *g = d->recorded;
    if (!g) {
        d->n_launched = (d->n_launched + 1) & ~OF_GRAPH;
        d->recent[d->n_launched % RECENT] = kernel;
        return d->n_launched;
    }
    if (g->n_kernels < GRAPH_KERNELS) {
        g->kernels[g->n_kernels] = (uint8_t)kernel;
    }
    return OF_GRAPH | g->n_kernels++;
}

void door_launch(struct door *d, enum table_id kernel, const void *args)
{
    const struct table_kernel *k = &table_kernels[kernel];
    int32_t grid[3];
    ASSERT(is_stepper(d));
    k->grid(args, grid);
    if (grid[0] <= 0 || grid[1] <= 0 || grid[2] <= 0) {
        return;
    }
    struct args_crumb crumb = {.number = number_launch(d, kernel)};
    void *copy, *at = d->crumb, *params[2] = {NULL, &crumb};
    memcpy(&copy, &args, sizeof copy); /* HIP's parameters are not const */
    params[0] = copy;
    crumb.at = at;
    int error = d->hip.ModuleLaunchKernel(d->functions[kernel], (unsigned)grid[0],
                                          (unsigned)grid[1], (unsigned)grid[2],
                                          (unsigned)k->threads, 1, 1, 0, d->stream, params, NULL);
    must(d, k->name, error);
    if (d->status && !d->recorded) {
        /* Progress, too, of a long chunk; where a launch computes, the only one. */
        atomic_store_explicit(&d->status->op, crumb.number, memory_order_relaxed);
    }
    if (d->is_careful && !d->recorded) {
        door_wait(d, 0);
    }
}

static void copy_async(struct door *d, void *to, const void *from, size_t bytes, int kind,
                       void *stream)
{
    ASSERT(is_stepper(d));
    if (bytes > 0) {
        MUST_DO(d, MemcpyAsync, to, from, bytes, kind, stream);
    }
}

void door_upload(struct door *d, void *to, const void *from, size_t bytes)
{
    copy_async(d, to, from, bytes, HIP_HOST_TO_DEVICE, d->stream);
}

void door_download(struct door *d, void *to, const void *from, size_t bytes)
{
    copy_async(d, to, from, bytes, HIP_DEVICE_TO_HOST, d->stream);
}

void door_copy(struct door *d, void *to, const void *from, size_t bytes)
{
    copy_async(d, to, from, bytes, HIP_DEVICE_TO_DEVICE, d->stream);
}

void door_fetch(struct door *d, void *to, const void *from, size_t bytes)
{
    copy_async(d, to, from, bytes, HIP_DEVICE_TO_HOST, d->load_stream);
}

void door_zero(struct door *d, void *to, size_t bytes)
{
    ASSERT(is_stepper(d));
    if (bytes > 0) {
        MUST_DO(d, MemsetAsync, to, 0, bytes, d->stream);
    }
}

static void nap(uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    nanosleep(&t, NULL);
}

/* What the watchdog is to know of a wait: kernels that begin are progress, and one that does not
 * end has a name. */
struct watch {
    uint32_t crumb;
    uint64_t since_ns;
    bool is_told;
};

static void watch(const struct door *d, struct watch *w, uint64_t now)
{
    uint32_t crumb = crumb_of(d);
    if (w->since_ns == 0 || crumb != w->crumb) {
        *w = (struct watch){.crumb = crumb, .since_ns = now, .is_told = w->is_told};
        atomic_store_explicit(&d->status->op, crumb & ~OF_GRAPH, memory_order_relaxed);
    } else if (now - w->since_ns > LONG_NS) {
        status_doing(d->status, "GPU %s: %s; kernel: %s", d->arch, d->note, kernel_of(d, crumb));
        w->since_ns = now;
        w->is_told = true;
    }
}

/* Is all that the stream, or the point, stands for done? */
static bool is_past(const struct door *d, const struct door_point *p)
{
    int error = p ? d->hip.EventQuery(p->event) : d->hip.StreamQuery(d->stream);
    if (error != HIP_NOT_READY) {
        must(d, p ? "hipEventQuery" : "hipStreamQuery", error);
    }
    return error == HIP_SUCCESS;
}

/* Asks, sleeping in between, until it is. */
static void wait_for(struct door *d, const struct door_point *p, uint64_t expected_ns)
{
    struct watch w = {0};
    ASSERT(is_stepper(d));
    uint64_t start = clock_ns(), spin_from = start;
    if (expected_ns > 1000000) {
        nap(MIN(expected_ns - expected_ns / 8 - 200000, (uint64_t)SLEEP_NS));
        spin_from = clock_ns();
    }
    while (!is_past(d, p)) {
        uint64_t now = clock_ns();
        if (d->status) {
            watch(d, &w, now);
        }
        if (now - start > d->deadline_ns) {
            char what[80];
            snprintf(what, sizeof what, "no answer for %.1f s", (double)(now - start) / 1e9);
            die(d, what);
        }
        if (now - spin_from > SPIN_NS + expected_ns / 4) {
            nap(NAP_NS);
        }
    }
    if (w.is_told) {
        status_doing(d->status, "%s", "");
    }
}

void door_wait(struct door *d, uint64_t expected_ns)
{
    wait_for(d, NULL, expected_ns);
}

bool door_is_done(struct door *d)
{
    return is_past(d, NULL);
}

struct door_point *door_point_create(struct door *d)
{
    struct door_point *p = base_alloc(sizeof *p);
    use_device(d);
    MUST_DO(d, EventCreateWithFlags, &p->event, HIP_EVENT_NO_TIMING);
    return p;
}

void door_point_destroy(struct door *d, struct door_point **at)
{
    if (*at) {
        MUST_DO(d, EventDestroy, (*at)->event);
        free(*at);
        *at = NULL;
    }
}

void door_point_set(struct door *d, struct door_point *p)
{
    ASSERT(is_stepper(d));
    MUST_DO(d, EventRecord, p->event, d->load_stream);
}

bool door_point_is_past(struct door *d, const struct door_point *p)
{
    return is_past(d, p);
}

void door_point_wait(struct door *d, const struct door_point *p)
{
    wait_for(d, p, 0);
}

void door_rest(void)
{
    nap(NAP_NS);
}

void door_beat(const struct door *d)
{
    if (d->status) {
        status_beat(d->status, (enum status_phase)atomic_load_explicit(&d->status->phase,
                                                                       memory_order_relaxed));
    }
}

struct status_page *door_status(const struct door *d)
{
    return d->status;
}

/* --- loading --------------------------------------------------------------------------------- */

void door_upload_now(struct door *d, void *to, const void *from, size_t bytes)
{
    pthread_mutex_lock(&d->load_lock);
    use_device(d);
    for (size_t done = 0; done < bytes;) {
        size_t n = MIN(bytes - done, (size_t)STAGING_BYTES);
        memcpy(d->staging, (const char *)from + done, n);
        MUST_DO(d, MemcpyAsync, (char *)to + done, d->staging, n, HIP_HOST_TO_DEVICE,
                d->load_stream);
        MUST_DO(d, StreamSynchronize, d->load_stream);
        done += n;
    }
    pthread_mutex_unlock(&d->load_lock);
}

void door_zero_now(struct door *d, void *to, size_t bytes)
{
    pthread_mutex_lock(&d->load_lock);
    use_device(d);
    if (bytes > 0) {
        MUST_DO(d, MemsetAsync, to, 0, bytes, d->load_stream);
        MUST_DO(d, StreamSynchronize, d->load_stream);
    }
    pthread_mutex_unlock(&d->load_lock);
}

/* --- graphs ---------------------------------------------------------------------------------- */

static int graph_error(const struct door *d, const char *call, int error, struct err *e)
{
    return err_set(e, -ENOTSUP, "%s: error %d, %s", call, error, d->hip.GetErrorString(error));
}

int door_graph_begin(struct door *d, struct err *e)
{
    const struct hip *h = &d->hip;
    if (!h->StreamBeginCapture || !h->StreamEndCapture || !h->GraphInstantiate || !h->GraphLaunch ||
        !h->GraphDestroy || !h->GraphExecDestroy) {
        return err_set(e, -ENOTSUP, "%s has no graphs", h->soname);
    }
    ASSERT(is_stepper(d));
    int error = h->StreamBeginCapture(d->stream, HIP_CAPTURE_THREAD_LOCAL);
    if (error != HIP_SUCCESS) {
        return graph_error(d, "hipStreamBeginCapture", error, e);
    }
    d->recorded = base_alloc(sizeof *d->recorded);
    *d->recorded = (struct door_graph){0};
    return 0;
}

int door_graph_end(struct door *d, struct door_graph **ret, struct err *e)
{
    void *graph = NULL, *exec = NULL, *bad_node = NULL;
    char log[256] = "";
    struct door_graph *g = d->recorded;
    d->recorded = NULL;
    int error = d->hip.StreamEndCapture(d->stream, &graph);
    if (error != HIP_SUCCESS) {
        door_graph_destroy(d, &g);
        return graph_error(d, "hipStreamEndCapture", error, e);
    }
    error = d->hip.GraphInstantiate(&exec, graph, &bad_node, log, sizeof log);
    (void)d->hip.GraphDestroy(graph);
    if (error != HIP_SUCCESS) {
        door_graph_destroy(d, &g);
        return graph_error(d, "hipGraphInstantiate", error, e);
    }
    g->exec = exec;
    *ret = g;
    return 0;
}

int door_graph_launch(struct door *d, struct door_graph *g, struct err *e)
{
    d->replayed = g;
    int error = d->hip.GraphLaunch(g->exec, d->stream);
    if (error == HIP_ILLEGAL_ADDRESS || error == HIP_LAUNCH_FAILURE) {
        must(d, "hipGraphLaunch", error);
    }
    return error == HIP_SUCCESS ? 0 : graph_error(d, "hipGraphLaunch", error, e);
}

void door_graph_destroy(struct door *d, struct door_graph **at)
{
    if (*at) {
        if (d->replayed == *at) { /* last words may come later */
            d->replayed = NULL;
        }
        if ((*at)->exec) {
            (void)d->hip.GraphExecDestroy((*at)->exec);
        }
        free(*at);
        *at = NULL;
    }
}
