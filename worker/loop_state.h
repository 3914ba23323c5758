/* The token loop's state, shared by its parts: loop.c (the turn, control messages, sleep),
 * loop_intake.c (requests on their way in). */
#ifndef WORKER_LOOP_STATE_H
#define WORKER_LOOP_STATE_H

#include "worker/budget.h"
#include "worker/fleet.h"
#include "worker/pace.h"
#include "worker/loop.h"
#include "worker/prepare.h"

enum {
    LOOP_MAX_LIVE = 2 * LIMIT_QUEUE, /* requests known at all; with that many no record is taken */
};

struct loop_bulk { /* a payload that came before its note */
    uint64_t request;
    int fd; /* owned */
};

struct loop {
    struct models *models;   /* borrowed */
    struct channel *channel; /* borrowed */
    struct attach *attach;   /* borrowed */
    size_t queue_size;
    struct events events;
    struct trace trace;
    struct prepare *prepare; /* owned */
    int prepare_bell;        /* owned */
    struct fleet fleet;
    struct budget budget;
    struct pace paces[LIMIT_MODELS];
    struct request *live; /* owned, but for what is lent; newest first */
    size_t n_live, n_orphans;
    uint64_t n_arrived;
    struct loop_bulk bulks[LIMIT_QUEUE];
    size_t n_bulks;
    uint64_t busy_ns; /* of turns that computed */
    bool is_settling; /* the next turn comes at once: engine_settle has more to do */
    bool is_draining;
    uint64_t drain_deadline_ns;
    struct channel_msg msg; /* scratch */
    _Alignas(16) uint8_t record[LIMIT_RECORD_BYTES];
};

/* Everything that waits in the request ring, while there is room. ERR_PROTOCOL, -errno. */
MUST_CHECK int loop_intake_records(struct loop *l, struct err *e);
/* l->msg is a BULK: the payload of a note that has come or will. ERR_PROTOCOL, -errno. */
MUST_CHECK int loop_intake_bulk(struct loop *l);
/* Those that wait for a model that is loaded by now go on; oldest first. */
void loop_intake_loaded(struct loop *l);

#endif
