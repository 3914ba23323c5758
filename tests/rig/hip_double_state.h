/* What the parts of the double of the HIP runtime share (see hip_double.h). */
#ifndef TESTS_RIG_HIP_DOUBLE_STATE_H
#define TESTS_RIG_HIP_DOUBLE_STATE_H

#include "kernels/hip/args.h"
#include "tests/rig/emulator.h"
#include "tests/rig/hip_double.h"

#include <pthread.h>

#define HIP(need, name, type, params) type hip##name params;
#include "safety/hip.def"
#undef HIP

/* HIP's numbers. */
enum {
    HIP_DOUBLE_SUCCESS = 0,
    HIP_DOUBLE_INVALID = 1,
    HIP_DOUBLE_OUT_OF_MEMORY = 2,
    HIP_DOUBLE_NOT_FOUND = 500,
    HIP_DOUBLE_NOT_READY = 600
};
enum { HIP_DOUBLE_PAGE = 4096, HIP_DOUBLE_ARGS_BYTES = 512 };

struct hip_double_node { /* of a graph */
    enum { HIP_DOUBLE_KERNEL, HIP_DOUBLE_COPY, HIP_DOUBLE_SET } kind;
    const struct gpu_host_kernel *kernel;
    struct emulator_grid grid;
    char args[HIP_DOUBLE_ARGS_BYTES];
    struct args_crumb crumb;
    void *to;
    const void *from;
    size_t bytes;
    int value; /* or kind of copy */
};
struct hip_double_graph {
    struct hip_double_node *nodes; /* owned */
    size_t n;
};

struct hip_double_state {
    pthread_mutex_t lock; /* around everything: the emulator is for one thread at a time */
    int sticky;           /* the error of every call from now on */
    bool is_hung;
    struct hip_double_graph *capture; /* being recorded */
    void *capture_stream;             /* whose */
    pthread_t capture_thread;
};
extern struct hip_double_state hip_double;

/* hip_double.c. Streams differ in when what was submitted there seems to be finished. */
struct hip_double_stream {
    uint64_t ready_ns; /* nothing is finished before */
};
struct hip_double_stream *hip_double_stream(void *stream); /* NULL: HIP's default */
uint64_t hip_double_now_ns(void);
void hip_double_note(const char *what, size_t bytes); /* in the log */
void hip_double_die(void);                            /* as the runtime does on a fault */
void hip_double_wait(void);                           /* for ever */
/* What a call returns instead of working; 0: it works. */
int hip_double_fault_of(const char *function);

/* hip_double_memory.c. The host may not touch what is the device's: outside copies and kernels its
 * pages are closed. */
void hip_double_open(bool is_open);
void hip_double_copy(void *to, const void *from, size_t bytes, int kind, bool is_corrupt);
void hip_double_set(void *to, int value, size_t bytes);

/* hip_double_launch.c: the next node of the graph that is being recorded; NULL: the stream is not.
 * What another thread submits to a stream that is recorded would be part of every replay: the
 * program ends. */
struct hip_double_node *hip_double_record(void *stream);

#endif
