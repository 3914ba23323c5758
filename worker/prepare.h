/* What must not stall the token loop happens here, in threads of its own: rendering templates,
 * tokenizing, making samplers, replaying sent ids, and the TEXT operations. Two threads: requests
 * that came in a ring record never wait behind those that came in a memfd. */
#ifndef WORKER_PREPARE_H
#define WORKER_PREPARE_H

#include "worker/request.h"

struct prepare;

/* bell: an eventfd (borrowed), rung whenever a request is ready. Errors: -errno of thread creation.
 */
MUST_CHECK int prepare_create(int bell, struct prepare **ret);
/* Waits for the job at work, drops the others (their requests are destroyed). NULL-safe. */
void prepare_destroy(struct prepare **p);

/* Lends a request that request_read has accepted. */
void prepare_submit(struct prepare *p, struct request *r);
/* The next one that is ready, NULL: none now. r->err says whether it failed. */
struct request *prepare_take(struct prepare *p);

/* What the threads do with a request that request_read has accepted, here and now. */
void prepare_now(struct request *r);

#endif
