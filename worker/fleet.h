/* Which models are loaded, and the schedulers of those: loading when a request asks for one, giving
 * up the one that was unused longest where there is no room, unloading what was idle for long. A
 * model with live requests is never unloaded. A load that makes no progress for FLEET_STALL_MS
 * fails the requests that wait for it, and those that want another load, until it goes on by
 * itself; models that are loaded go on meanwhile. Token loop; loading itself runs in the loader. */
#ifndef WORKER_FLEET_H
#define WORKER_FLEET_H

#include "worker/loader.h"
#include "worker/scheduler.h"

enum { FLEET_STALL_MS = 10 * 1000, FLEET_GAP_MS = 1500 };

struct fleet {
    struct models *models; /* borrowed */
    struct events *events; /* borrowed */
    struct loader *loader; /* owned */
    struct scheduler *schedulers[LIMIT_MODELS]; /* owned; NULL: not loaded */
    bool is_used[LIMIT_MODELS];                 /* has live requests */
    uint64_t idle_ns;                           /* unused so long: unloaded; 0: never */
    uint64_t told_bytes;                        /* of the progress that was told last */
    uint64_t seen_bytes, seen_ns;               /* of the progress that was made last, and when */
    uint64_t tick_ns;                           /* when that was looked at last */
    bool is_stalled; /* the load at work makes none: its disk does not answer */
};

/* bell: rung when a load is over; all is borrowed. */
void fleet_init(struct fleet *f, struct models *models, struct events *events, int bell,
                double idle_s);
void fleet_set_idle(struct fleet *f, double idle_s);
void fleet_finish(struct fleet *f);

struct scheduler *fleet_scheduler(const struct fleet *f, const struct model *m);

/* Unloads a loaded model that nobody uses, with all that is kept of it. */
void fleet_unload(struct fleet *f, const struct model *m);

/* The same, for room on the device: its KV cache on the host and what else outlives it stay. */
void fleet_unload_idle(struct fleet *f, const struct model *m);

/* A MSG_LOAD or MSG_UNLOAD that was read. */
void fleet_order(struct fleet *f, struct request *r, struct request *live);

/* Once a turn, with all live requests: those in REQUEST_LOADING make their models be loaded, are
 * told of progress, or fail. may_unload: no thread prepares a request that is not among them. */
void fleet_tend(struct fleet *f, struct request *live, bool may_unload);

/* Until it must be tended again though nothing comes; -1: never. */
int fleet_timeout_ms(const struct fleet *f);

#endif
