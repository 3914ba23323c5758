/* The token loop: the one thread that reads requests, drives the schedulers and sends events. It
 * sleeps only when there is nothing to compute, and then without any timer unless a request is in
 * flight. */
#ifndef WORKER_LOOP_H
#define WORKER_LOOP_H

#include "worker/attach.h"
#include "worker/models.h"

struct loop;

/* Everything is borrowed; attach is the first epoch's and is replaced when another ATTACH comes.
 * Sends MODEL for every model. queue_size: requests that may wait; more fail with ERR_BUSY.
 * idle_s: a model that is unused so long is unloaded; 0: never. Errors:
 * -errno of threads and descriptors. */
MUST_CHECK int loop_create(struct models *models, struct channel *channel,
                           struct attach *attach, size_t queue_size, double idle_s,
                           struct loop **ret);
void loop_destroy(struct loop **l);

enum { LOOP_DRAINED = 1, LOOP_COMPUTED = 2 };

/* One turn without sleeping: control messages, requests, prepared requests, one step of every model
 * that has work. Returns 0 (nothing to compute now), LOOP_COMPUTED, LOOP_DRAINED (after DRAIN,
 * everything has ended and was said so), ERR_PROTOCOL (a peer broke the rules; e says which),
 * ERR_PEER_GONE, -errno. */
MUST_CHECK int loop_turn(struct loop *l, struct err *e);

/* Sleeps until something may have come. */
void loop_sleep(struct loop *l);

/* Turns and sleeps until drained (0) or broken (negative). */
MUST_CHECK int loop_run(struct loop *l, struct err *e);

#endif
