/* The GPU door: the only place of the worker that calls HIP. One device, its module of kernels, one
 * stream of low priority (the compositor's work goes before ours), and one rule for errors: once
 * the kernels are loaded, any status but success and not-ready ends the process, after last words,
 * by _exit. HIP is never "recovered" and never unloaded; a device that does not answer until a
 * deadline is an error too. Exceptions return: out of memory of an allocation, and what concerns
 * graphs.
 *
 * Kernels and copies are submitted to the stream in order; nothing is known to be done before
 * door_wait.
 *
 * Threads: the stream, notes and graphs are for the thread that opened the door, which later is the
 * token loop's (asserted): what another one submitted there would become part of a step that is
 * being recorded. A model is loaded by any thread, beside the steps of others: memory, and what
 * ends in _now, which goes through a stream of its own, waited for under a lock. What a model takes
 * is counted (worker/budget.h) when it is loaded: while a load runs nothing is given or taken. */
#ifndef WORKER_GPU_DOOR_H
#define WORKER_GPU_DOOR_H

#include "ipc/status.h"
#include "kernels/hip/table.h"
#include "shared/err.h"

struct door;

struct door_options {
    const char *pci;            /* address of the card: "0000:03:00.0" */
    const char *kernel_dir;     /* of the code objects; "": beside the program, or installed */
    struct status_page *status; /* for last words; NULL: none */
    uint64_t deadline_ms;       /* that the device may take for one step; 0: the default */
};

/* Loads HIP (which may hang: the probe went first), finds the device, loads the kernels of its
 * architecture. Errors: ERR_NO_GPU; e says what is missing. */
MUST_CHECK int door_open(const struct door_options *o, struct door **ret, struct err *e);
void door_close(struct door **d);
const char *door_arch(const struct door *d); /* "gfx1100" */
bool door_has_matrix(const struct door *d);  /* matrix units */
/* A digest of the kernels' code: another one may compute other bits. */
uint64_t door_kernels(const struct door *d);
/* Ends the process like any fault of the device: what it computes is wrong. */
NORETURN void door_distrust(struct door *d, const char *why);
void door_memory(struct door *d, uint64_t *ret_free, uint64_t *ret_total);

/* Any thread. Device memory; one piece for each model. ERR_NO_VRAM. */
MUST_CHECK int door_allocate(struct door *d, size_t bytes, void **ret, struct err *e);
void door_free(struct door *d, void *p);
/* Host memory that the device may read and write while it is copied. NULL without memory. */
void *door_host_allocate(struct door *d, size_t bytes);
void door_host_free(struct door *d, void *p);

/* Submitting. Host memory is door_host_allocate's, and is left alone until door_wait. */
void door_launch(struct door *d, enum table_id kernel, const void *args);
void door_upload(struct door *d, void *to, const void *from, size_t bytes);
void door_download(struct door *d, void *to, const void *from, size_t bytes);
void door_copy(struct door *d, void *to, const void *from, size_t bytes);
void door_zero(struct door *d, void *to, size_t bytes);
/* Until all of it is done. expected_ns: what it will take by experience; the processor sleeps for
 * the most of it. */
void door_wait(struct door *d, uint64_t expected_ns);

/* Is all of it done? */
bool door_is_done(struct door *d);

/* Copies to the host beside the stream, in no order with what is submitted there: of memory that
 * nothing writes meanwhile. They keep no step waiting, and take no queue of their own (they go
 * through that of loads). */
void door_fetch(struct door *d, void *to, const void *from, size_t bytes);
/* A point in them: behind all that were submitted when it was set. */
struct door_point;
struct door_point *door_point_create(struct door *d);
void door_point_destroy(struct door *d, struct door_point **p);
void door_point_set(struct door *d, struct door_point *p);
bool door_point_is_past(struct door *d, const struct door_point *p);
void door_point_wait(struct door *d, const struct door_point *p);
/* Sleeps for a moment, as door_wait does between two looks. */
void door_rest(void);
/* For the watchdog: something got on that no launch shows. */
void door_beat(const struct door *d);
struct status_page *door_status(const struct door *d); /* borrowed; NULL: none */

/* For loading: done when they return, whatever is in the stream. Any thread. */
/* from: any memory */
void door_upload_now(struct door *d, void *to, const void *from, size_t bytes);
void door_zero_now(struct door *d, void *to, size_t bytes);

/* What is being done, for last words: "step 12, decode of 3 rows"; all of the note before is done.
 * Last words name the kernel that was the last to begin. Careful: each is waited for, so that no
 * other can have begun before a fault shows; it costs time. */
void door_note(struct door *d, bool is_careful, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Graphs: what is submitted between begin and end is kept and not done. Negative (HIP's error in
 * e): no graph; the stream is as before. door_graph_launch likewise. */
struct door_graph;
MUST_CHECK int door_graph_begin(struct door *d, struct err *e);
MUST_CHECK int door_graph_end(struct door *d, struct door_graph **ret, struct err *e);
MUST_CHECK int door_graph_launch(struct door *d, struct door_graph *g, struct err *e);
void door_graph_destroy(struct door *d, struct door_graph **g);

#endif
