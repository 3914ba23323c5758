/* What the worker tells the gateway: composition of the event records, and back-pressure. Where the
 * ring is full, a request's events wait in its own `pending` buffer, in order; the scheduler
 * computes nothing for it until they are gone, so the buffer holds the events of one step at most.
 * Token loop; never blocks. */
#ifndef WORKER_EVENTS_H
#define WORKER_EVENTS_H

#include "ipc/ring.h"
#include "worker/request.h"
#include "worker/trace.h"

struct choice;

struct events {
    struct ring *ring; /* borrowed; NULL: nobody listens, events are dropped */
    int err;           /* what ended the ring: ERR_PROTOCOL, -ENOMEM; 0 */
    uint64_t now_ns;   /* of the turn of the loop */
    struct trace *trace; /* borrowed; NULL: spans are not kept */
    uint64_t compute_ns; /* in engine steps, since the start */
    struct buf text;   /* scratch: the text of an event */
    struct buf pieces; /* scratch */
    _Alignas(16) uint8_t record[LIMIT_RECORD_BYTES];
};

void events_init(struct events *ev);
void events_finish(struct events *ev);

/* Sends what is pending of a request. True when nothing is any more. */
bool events_flush(struct events *ev, struct request *r);

/* Where the ring has no room it stays due (is_card_due). */
void events_model(struct events *ev, struct models *models, uint32_t index);
void events_started(struct events *ev, struct request *r);
void events_prefilled(struct events *ev, struct request *r, int64_t n_done);
/* text: ev->text. top (n_top entries) gets its piece_bytes filled in. */
void events_token(struct events *ev, struct request *r, uint32_t number, int64_t position,
                  int32_t id, bool is_prompt, struct msg_logprob *top, uint32_t n_top);
/* The choice's end, with ev->text. */
void events_finish_choice(struct events *ev, const struct choice *c);
/* Terminal events; the request is ENDED. */
void events_done(struct events *ev, struct request *r);
void events_fail(struct events *ev, struct request *r, const struct err *e);
/* One record of a TEXT's result; ENDED with the last. */
void events_part(struct events *ev, struct request *r, const char *text, bool is_last);
/* Sends the next parts of a TEXT's result until there is no room; ENDED after the last. */
void events_result(struct events *ev, struct request *r);

#endif
