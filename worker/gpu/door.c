/* The GPU door (see door.h). The token loop's thread, but for door_upload_now. Blocks in door_wait, up to its
 * deadline, and wherever the driver likes: who watches over that is the supervisor's watchdog. */
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
    MARK_EVERY = 32,
    MAX_MARKS = 64,
    STAGING_BYTES = 4 * 1024 * 1024,
    SPIN_NS = 200 * 1000,
    NAP_NS = 50 * 1000,
    NOTE_BYTES = 120,
};

/* An event behind the launches up to number `end`. */
struct mark {
    void *event; /* owned */
    uint64_t end;
    enum table_id kernel; /* the last before it */
};

struct door {
    struct hip hip;
    int device;
    char arch[32];
    struct status_page *status; /* borrowed */
    uint64_t deadline_ns;
    void *module, *stream, *upload_stream;
    void *functions[TABLE_COUNT];
    pthread_mutex_t upload_lock;
    void *staging; /* owned; of door_upload_now */
    /* what is going on */
    char note[NOTE_BYTES];
    bool is_careful, is_capturing, is_replay;
    uint64_t n_launched, first_launch; /* of the note */
    enum table_id recent[MARK_EVERY];  /* the latest launches */
    struct mark marks[MAX_MARKS];
    int n_marks, n_passed; /* of this note: set, and known to be done */
};

struct door_graph {
    void *exec; /* owned */
};

/* --- the end ---------------------------------------------------------------------------------- */

/* For the handler of SIGABRT, by which ROCm 5 and 6 end a process whose GPU faulted. */
static struct door *open_door;

/* The kernels of which the faulty one is one: those after the last mark that was passed. */
static void say_kernels(const struct door *d, char *text, size_t bytes)
{
    uint64_t from = d->n_passed > 0 ? d->marks[d->n_passed - 1].end : d->first_launch;
    uint64_t end = d->n_passed < d->n_marks ? d->marks[d->n_passed].end : d->n_launched;
    uint64_t oldest = d->n_launched > MARK_EVERY ? d->n_launched - MARK_EVERY : 0;
    size_t at = 0;
    text[0] = 0;
    if (from < oldest) {
        at += (size_t)snprintf(text, bytes, "one of %llu, such as ",
                               (unsigned long long)(end - from));
        from = MIN(oldest, end);
    }
    const char *before = "";
    for (uint64_t i = from; i < end && at + 40 < bytes; i++) {
        enum table_id id = d->recent[i % MARK_EVERY];
        bool is_again = false;
        for (uint64_t k = from; k < i; k++) {
            is_again = is_again || d->recent[k % MARK_EVERY] == id;
        }
        if (!is_again) {
            at += (size_t)snprintf(text + at, bytes - at, "%s%s", before, table_kernels[id].name);
            before = ", ";
        }
    }
    if (at == 0) {
        snprintf(text, bytes, d->is_replay ? "one of a step that was replayed" : "none");
    }
}

static void say_last_words(const struct door *d, const char *what)
{
    char kernels[400], text[900];
    say_kernels(d, kernels, sizeof kernels);
    snprintf(text, sizeof text, "GPU %s: %s; in %s; kernel: %s", d->arch, what,
             *d->note ? d->note : "nothing", kernels);
    if (d->status) {
        status_last_words(d->status, "%s", text);
    }
    log_error("%s", text);
}

NORETURN static void die(const struct door *d, const char *what)
{
    say_last_words(d, what);
    _exit(EXIT_GPU_FAULT);
}

static void on_abort(int signal_number)
{
    (void)signal_number;
    struct door *d = open_door;
    open_door = NULL;
    if (d) {
        say_last_words(d, "the runtime aborted; what it said stands before this");
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

/* --- opening ---------------------------------------------------------------------------------- */

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
    int err = hip_object_load(&d->hip, path, &d->module, e);
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
        error = h->StreamCreateWithPriority(&d->upload_stream, flags, HIP_PRIORITY_LOW);
    }
    if (error == HIP_SUCCESS) {
        error = h->HostMalloc(&d->staging, STAGING_BYTES, 0);
    }
    for (int i = 0; i < MAX_MARKS && error == HIP_SUCCESS; i++) {
        error = h->EventCreateWithFlags(&d->marks[i].event, HIP_EVENT_NO_TIMING);
    }
    return error == HIP_SUCCESS ? 0 : refuse(d, "streams and events", error, e);
}

int door_open(const struct door_options *o, struct door **ret, struct err *e)
{
    struct door *d = calloc(1, sizeof *d);
    if (!d) {
        return -ENOMEM;
    }
    /* Read once, when the library is loaded. Every further queue is one more that the desktop's waits for. */
    setenv("GPU_MAX_HW_QUEUES", "2", 0);
    pthread_mutex_init(&d->upload_lock, NULL);
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
    for (int i = 0; i < MAX_MARKS; i++) {
        if (d->marks[i].event) {
            (void)h->EventDestroy(d->marks[i].event);
        }
    }
    if (d->staging) {
        (void)h->HostFree(d->staging);
    }
    if (d->upload_stream) {
        (void)h->StreamDestroy(d->upload_stream);
    }
    if (d->stream) {
        (void)h->StreamDestroy(d->stream);
    }
    if (d->module) {
        (void)h->ModuleUnload(d->module);
    }
    pthread_mutex_destroy(&d->upload_lock);
    free(d);
}

const char *door_arch(const struct door *d)
{
    return d->arch;
}

/* --- memory ----------------------------------------------------------------------------------- */

void door_memory(struct door *d, uint64_t *ret_free, uint64_t *ret_total)
{
    size_t free_bytes, total;
    MUST_DO(d, MemGetInfo, &free_bytes, &total);
    *ret_free = free_bytes;
    *ret_total = total;
}

int door_allocate(struct door *d, size_t bytes, void **ret, struct err *e)
{
    (void)d->hip.SetDevice(d->device); /* the loader's thread has none yet */
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
        MUST_DO(d, Free, p);
    }
}

void *door_host_allocate(struct door *d, size_t bytes)
{
    void *p = NULL;
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
        MUST_DO(d, HostFree, p);
    }
}

/* --- submitting ------------------------------------------------------------------------------- */

void door_note(struct door *d, bool is_careful, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d->note, sizeof d->note, fmt, ap);
    va_end(ap);
    d->is_careful = is_careful;
    d->is_replay = false;
    d->first_launch = d->n_launched;
    d->n_marks = d->n_passed = 0;
}

/* Which marks are done; false when a status is neither success nor not-ready. */
static void look_at_marks(struct door *d)
{
    while (d->n_passed < d->n_marks) {
        int error = d->hip.EventQuery(d->marks[d->n_passed].event);
        if (error == HIP_NOT_READY) {
            return;
        }
        must(d, "hipEventQuery", error);
        d->n_passed++;
    }
}

static void set_mark(struct door *d, enum table_id kernel)
{
    if (d->n_marks == MAX_MARKS) { /* older ones that are done make room */
        look_at_marks(d);
        if (d->n_passed < MAX_MARKS) {
            return;
        }
        d->first_launch = d->marks[MAX_MARKS - 1].end;
        d->n_marks = d->n_passed = 0;
    }
    struct mark *m = &d->marks[d->n_marks];
    m->end = d->n_launched;
    m->kernel = kernel;
    MUST_DO(d, EventRecord, m->event, d->stream);
    d->n_marks++;
    if (d->is_careful) {
        while (d->n_passed < d->n_marks) {
            door_wait(d, 0);
        }
    }
}

void door_launch(struct door *d, enum table_id kernel, const void *args)
{
    const struct table_kernel *k = &table_kernels[kernel];
    int32_t grid[3];
    k->grid(args, grid);
    if (grid[0] <= 0 || grid[1] <= 0 || grid[2] <= 0) {
        return;
    }
    void *copy, *params[1];
    memcpy(&copy, &args, sizeof copy); /* HIP's parameters are not const */
    params[0] = copy;
    d->recent[d->n_launched++ % MARK_EVERY] = kernel;
    int error = d->hip.ModuleLaunchKernel(d->functions[kernel], (unsigned)grid[0], (unsigned)grid[1],
                                          (unsigned)grid[2], (unsigned)k->threads, 1, 1, 0,
                                          d->stream, params, NULL);
    must(d, k->name, error);
    if (!d->is_capturing && (d->is_careful || d->n_launched % MARK_EVERY == 0)) {
        set_mark(d, kernel);
    }
}

static void copy_async(struct door *d, void *to, const void *from, size_t bytes, int kind)
{
    if (bytes > 0) {
        MUST_DO(d, MemcpyAsync, to, from, bytes, kind, d->stream);
    }
}

void door_upload(struct door *d, void *to, const void *from, size_t bytes)
{
    copy_async(d, to, from, bytes, HIP_HOST_TO_DEVICE);
}

void door_download(struct door *d, void *to, const void *from, size_t bytes)
{
    copy_async(d, to, from, bytes, HIP_DEVICE_TO_HOST);
}

void door_copy(struct door *d, void *to, const void *from, size_t bytes)
{
    copy_async(d, to, from, bytes, HIP_DEVICE_TO_DEVICE);
}

void door_zero(struct door *d, void *to, size_t bytes)
{
    if (bytes > 0) {
        MUST_DO(d, MemsetAsync, to, 0, bytes, d->stream);
    }
}

static void nap(uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    nanosleep(&t, NULL);
}

/* Asks, sleeping in between, until the stream is empty. */
static void wait_for(struct door *d, void *stream, uint64_t expected_ns)
{
    uint64_t start = clock_ns(), spin_from = start;
    if (expected_ns > 1000000) {
        nap(expected_ns - expected_ns / 8 - 200000);
        spin_from = clock_ns();
    }
    for (;;) {
        int error = d->hip.StreamQuery(stream);
        if (error == HIP_SUCCESS) {
            return;
        }
        if (error != HIP_NOT_READY) {
            must(d, "hipStreamQuery", error);
        }
        look_at_marks(d);
        uint64_t now = clock_ns();
        if (now - start > d->deadline_ns) {
            char what[80];
            snprintf(what, sizeof what, "no answer for %.1f s", (double)(now - start) / 1e9);
            die(d, what);
        }
        if (now - spin_from > SPIN_NS + expected_ns / 4) {
            nap(NAP_NS);
        }
    }
}

void door_wait(struct door *d, uint64_t expected_ns)
{
    wait_for(d, d->stream, expected_ns);
    d->n_passed = d->n_marks;
}

void door_upload_now(struct door *d, void *to, const void *from, size_t bytes)
{
    pthread_mutex_lock(&d->upload_lock);
    (void)d->hip.SetDevice(d->device);
    for (size_t done = 0; done < bytes;) {
        size_t n = MIN(bytes - done, (size_t)STAGING_BYTES);
        memcpy(d->staging, (const char *)from + done, n);
        MUST_DO(d, MemcpyAsync, (char *)to + done, d->staging, n, HIP_HOST_TO_DEVICE,
                d->upload_stream);
        MUST_DO(d, StreamSynchronize, d->upload_stream);
        done += n;
    }
    pthread_mutex_unlock(&d->upload_lock);
}

/* --- graphs ----------------------------------------------------------------------------------- */

static int graph_error(const struct door *d, const char *call, int error, struct err *e)
{
    return err_set(e, -ENOTSUP, "%s: error %d, %s", call, error, d->hip.GetErrorString(error));
}

int door_graph_begin(struct door *d, struct err *e)
{
    const struct hip *h = &d->hip;
    if (!h->StreamBeginCapture || !h->StreamEndCapture || !h->GraphInstantiate || !h->GraphLaunch ||
        !h->GraphDestroy || !h->GraphExecDestroy) {
        return err_set(e, -ENOTSUP, "%s has no graphs", h->library_name);
    }
    int error = h->StreamBeginCapture(d->stream, HIP_CAPTURE_THREAD_LOCAL);
    if (error != HIP_SUCCESS) {
        return graph_error(d, "hipStreamBeginCapture", error, e);
    }
    d->is_capturing = true;
    return 0;
}

int door_graph_end(struct door *d, struct door_graph **ret, struct err *e)
{
    void *graph = NULL, *exec = NULL, *bad_node = NULL;
    char log[256] = "";
    d->is_capturing = false;
    int error = d->hip.StreamEndCapture(d->stream, &graph);
    if (error != HIP_SUCCESS) {
        return graph_error(d, "hipStreamEndCapture", error, e);
    }
    error = d->hip.GraphInstantiate(&exec, graph, &bad_node, log, sizeof log);
    (void)d->hip.GraphDestroy(graph);
    if (error != HIP_SUCCESS) {
        return graph_error(d, "hipGraphInstantiate", error, e);
    }
    struct door_graph *g = base_alloc(sizeof *g);
    g->exec = exec;
    *ret = g;
    return 0;
}

int door_graph_launch(struct door *d, struct door_graph *g, struct err *e)
{
    d->is_replay = true;
    int error = d->hip.GraphLaunch(g->exec, d->stream);
    if (error == HIP_ILLEGAL_ADDRESS || error == HIP_LAUNCH_FAILURE) {
        must(d, "hipGraphLaunch", error);
    }
    return error == HIP_SUCCESS ? 0 : graph_error(d, "hipGraphLaunch", error, e);
}

void door_graph_destroy(struct door *d, struct door_graph **at)
{
    if (*at) {
        (void)d->hip.GraphExecDestroy((*at)->exec);
        free(*at);
        *at = NULL;
    }
}
