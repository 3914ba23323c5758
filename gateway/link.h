/* The gateway's end of the rings: requests go out, events come in, workers come and go. Knows no
 * HTTP; a terminal uses it the same way.
 *
 * One thread (the loop's). Nothing here blocks. An epoch is one worker's life: epoch_attach begins
 * it, epoch_detach or a breach of the protocol ends it. The requests in flight are then given to
 * the next worker with what they have, and their owners hear nothing of it but the pause; MSG_FAIL
 * with ERR_WORKER_DOWN comes when no worker is expected, or none went on with a request within
 * resume_ms. Requests that bring workers down are found and refused (trial.h, poison.h). Events
 * come from the loop only, never from within a link_* call that submits, cancels or pauses. */
#ifndef GATEWAY_LINK_H
#define GATEWAY_LINK_H

#include "gateway/journal.h"
#include "gateway/notice.h"
#include "gateway/trial.h"
#include "ipc/channel.h"
#include "ipc/poison.h"
#include "ipc/ring.h"
#include "ipc/status.h"
#include "shared/err.h"
#include <uv.h>

enum link_state {
    LINK_STARTING, /* no worker yet */
    LINK_LOADING,  /* attached; the models are not all there */
    LINK_READY,
    LINK_DOWN, /* the last worker is gone */
};

struct link_event {
    uint32_t type; /* MSG_STARTED, PREFILLED, TOKEN, FINISH, DONE, FAIL, RESULT */
    union {
        struct msg_started started;
        struct msg_prefilled prefilled;
        struct msg_token token;
        struct msg_finish finish;
        struct msg_done done;
        struct msg_result result;
    } m;
    const char
        *resumed_on;  /* DONE: device, if ids of another numeric profile were forced; or NULL */
    const char *text; /* TOKEN, FINISH, RESULT: borrowed */
    size_t n_text;
    const struct msg_logprob *top; /* TOKEN: m.token.n_top of them */
    const char *pieces;            /* their bytes, one after the other */
    struct err err;                /* FAIL */
};

typedef void link_event_fn(void *owner, uint64_t id, const struct link_event *ev);

/* What is known of the worker; see link_status. */
struct link_status {
    enum link_state state;
    int64_t since_unix_s; /* of this state */
    uint64_t epoch;
    bool is_stalled; /* work is there and no progress */
    uint32_t phase;  /* enum status_phase */
    uint32_t n_active, n_queued;
    uint64_t load_done_bytes, load_total_bytes;
    uint64_t kv_blocks, kv_used, kv_cached, kv_evicted, n_preempted, busy_ns, compute_ns;
    uint64_t kv_restored, kv_broken, weights_bytes, cache_bytes;
    uint32_t n_ways_off;
    bool is_expected;        /* READY is expected without anybody's help */
    uint32_t retry_after_ms; /* best guess until READY; 0 unknown */
    int err;                 /* DOWN: why (ERR_*) */
    bool is_own_fault;       /* DOWN: the worker caused it */
    const char *detail;      /* DOWN: borrowed, valid until the next change */
    size_t n_waiting;        /* requests that wait to be resumed */
};

struct link {
    uv_loop_t *loop;              /* borrowed */
    struct channel *channel;      /* borrowed */
    struct notice notice;         /* to the supervisor */
    struct msg_tally tally;       /* from it */
    struct msg_vram vram;         /* likewise; total_bytes 0: no card */
    uint64_t vram_ms;             /* when that came */
    void (*on_change)(void *arg); /* after every change of state */
    void *arg;
    enum link_state state;
    int64_t since_unix_s;
    uint64_t since_ms;
    uint64_t epoch, n_epochs, n_breaches;
    struct msg_detach why; /* of DOWN */
    uint64_t resume_ms;    /* a request waits for a new worker so long; set by the front */
    struct journal journal;
    struct trial trial;
    struct poison poison;
    uint32_t
        n_forgiving; /* times that it was cleared here and the supervisor has not answered yet */
    uint64_t n_resumed;  /* requests given to another worker */
    uint64_t down_ms;    /* when the last worker died; 0: none has, or the next one serves */
    uint32_t reload_ms;  /* from there to READY, as last measured; 0 never */
    uv_timer_t patience; /* looks for requests that have waited too long */
    size_t n_paused;     /* live entries that are to pause */
    struct journal_entry *outbox, **outbox_end;
    struct msg_model models[LIMIT_MODELS]; /* of the newest epoch that sent any */
    uint32_t n_models;                     /* announced so far in this epoch */
    uint32_t n_models_known;               /* valid in models: stays over an epoch's end */
    /* One epoch's: */
    struct ring requests, events;
    void *maps[3]; /* owned: request ring, event ring, status page */
    size_t map_bytes[3];
    int bells[2]; /* owned: request, event */
    const struct status_page *status;
    uint64_t waiting_since_ms; /* work was there and the worker idle: since when; 0 not so */
    uv_poll_t *bell;           /* heap: libuv lets go of it later than we do */
    uv_timer_t poll;
    bool is_draining;
    _Alignas(16) uint8_t record[LIMIT_RECORD_BYTES];
};

MUST_CHECK int link_open(struct link *l, uv_loop_t *loop, struct channel *channel,
                         void (*on_change)(void *arg), void *arg);
/* Requests in flight are forgotten without events. */
void link_close(struct link *l);

void link_status(const struct link *l, struct link_status *ret);

/* The model of that name; name NULL is the first one. NULL: none. */
const struct msg_model *link_model(const struct link *l, const char *name, size_t n);

/* Sends a request (payload of MSG_GENERATE or MSG_TEXT; taken on success; its id is filled in).
 * Events come to on_event until the terminal one. Errors: ERR_WORKER_DOWN (not READY), ERR_BUSY,
 * ERR_POISON, -ENOMEM. */
MUST_CHECK int link_submit(struct link *l, uint32_t type, struct buf *payload,
                           const struct msg_model *model, link_event_fn *on_event, void *owner,
                           uint64_t *ret_id);
/* No more events come; the worker is told. A suspect (trial.h) is judged all the same: else one who
 * leaves in time and asks again never would be. Of an id that is not live: nothing. */
void link_cancel(struct link *l, uint64_t id);
void link_pause(struct link *l, uint64_t id, bool pause);

/* From the supervisor: what an earlier gateway refused, or (until_ms 0) its answer to
 * link_forgive. */
void link_poison(struct link *l, const struct msg_poison *m);
/* Nothing is refused any more; the supervisor is told. */
void link_forgive(struct link *l);

/* ---- for the link's own files ---- */
void link_set_state(struct link *l, enum link_state state);
/* The rings are looked at soon, and then polled while something is awaited. */
void link_kick(struct link *l);
/* Nothing is awaited: the polling ends. */
void link_rest(struct link *l);
void link_on_bell(uv_poll_t *p, int status, int events);
/* Puts all that may go into the outbox, in order of arrival. */
void link_send_all(struct link *l);
/* The request is over, by no word of the worker: its owner and the worker are told. */
void link_fail(struct link *l, struct journal_entry *en, const struct err *e);
/* Likewise for its owner; a suspect stays until it is judged. */
void link_give_up(struct link *l, struct journal_entry *en, const struct err *e);
/* Nobody hears of it any more; the worker is told, if it knows of it. */
void link_drop(struct link *l, struct journal_entry *en);
/* The request is over and its owner knows. */
void link_forget(struct link *l, struct journal_entry *en);

#endif
