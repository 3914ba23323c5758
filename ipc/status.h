/* The status page: one small shared page per worker epoch, written by the worker's token loop, read
 * by the supervisor (watchdog, crash report) and the gateway (/ready). One writer; readers take
 * torn values for what they are: `beat` is the only field that decides anything alone.
 *
 * Order: the worker stores step, phase and since_ns, then beat (release). Last words are written
 * once, before _exit, words_len last (release); the supervisor reads them after the worker is
 * reaped. */
#ifndef IPC_STATUS_H
#define IPC_STATUS_H

#include "shared/base.h"
#include <stdatomic.h>

enum status_phase {
    STATUS_STARTING,
    STATUS_PREFLIGHT,
    STATUS_LOADING,
    STATUS_IDLE, /* nothing to do: no progress is expected */
    STATUS_PREFILL,
    STATUS_DECODE,
    STATUS_DRAINING,
    STATUS_PHASE_COUNT
};

enum {
    STATUS_WORDS_BYTES = 1024,
    STATUS_DOING_BYTES = 256,
    STATUS_PAGE_BYTES = 4096,
    STATUS_REQUESTS = 64,
};

struct status_page {
    uint64_t magic;
    uint64_t epoch;              /* constant after init */
    _Atomic uint64_t beat;       /* +1 at every step of progress */
    _Atomic uint64_t beat_ns;    /* CLOCK_MONOTONIC of the last beat */
    _Atomic uint64_t step;       /* engine steps done */
    _Atomic uint32_t phase;      /* enum status_phase */
    _Atomic uint32_t n_active;   /* sequences being computed */
    _Atomic uint32_t n_queued;   /* requests waiting */
    _Atomic uint32_t op;         /* op being run, from 1: breadcrumb; it is progress */
    _Atomic uint64_t load_done_bytes;
    _Atomic uint64_t load_total_bytes;
    /* of the KV caches of all models; blocks */
    _Atomic uint64_t kv_blocks, kv_used, kv_cached;
    _Atomic uint64_t kv_evicted, n_preempted; /* since the worker's start */
    _Atomic uint64_t busy_ns, compute_ns; /* of turns that computed; of these, in the engine */
    _Atomic uint64_t kv_restored, kv_broken; /* that an earlier worker left; of those, not whole */
    _Atomic uint64_t weights_bytes, cache_bytes; /* memory that stores take (ipc/store.h) */
    _Atomic uint64_t vram_bytes; /* of the card's memory, that models take */
    /* the gateway's numbers of the requests it has, as many as there is room for */
    _Atomic uint64_t requests[STATUS_REQUESTS];
    _Atomic uint32_t n_requests;
    _Atomic uint32_t expect_ms; /* what the longest op of the step may be expected to take */
    _Atomic uint32_t n_ways_off; /* fast ways on the GPU that failed, of all models */
    /* What the worker measured (worker/pace.h): on which device, a digest, 0 nothing yet; bytes of
     * weights and operations a second. The page of the next epoch begins with it. */
    _Atomic uint64_t pace_device, pace_bytes, pace_ops;
    /* what takes so long just now, where the worker can tell before it is ended; "" when it is
     * over */
    _Atomic uint32_t doing_len;
    char doing[STATUS_DOING_BYTES];
    _Atomic uint32_t words_len;
    char words[STATUS_WORDS_BYTES]; /* last words: text of what went wrong */
};
_Static_assert(sizeof(struct status_page) <= STATUS_PAGE_BYTES, "one page");

void status_format(void *map, uint64_t epoch);
/* NULL if the page is not of this epoch. */
struct status_page *status_attach(void *map, size_t bytes, uint64_t epoch);
/* What a worker measured is known to the next one. */
struct status_pace {
    uint64_t device, bytes, ops;
};
void status_keep_pace(const struct status_page *from, struct status_pace *ret);
void status_pass_pace(const struct status_pace *kept, struct status_page *to);
void status_beat(struct status_page *s, enum status_phase phase);
/* Which requests the worker has. */
void status_requests(struct status_page *s, const uint64_t *ids, size_t n);
void status_doing(struct status_page *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
void status_last_words(struct status_page *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
const char *status_phase_name(uint32_t phase);

#endif
