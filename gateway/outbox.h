/* What the worker is to know of a request (submitted, cancelled, paused) is kept as wishes in its
 * journal entry; the outbox lists entries whose wishes are not yet in the ring. So a full ring
 * costs memory only for requests that were admitted, and nothing is lost or sent twice. Part of the
 * link, for its own files. */
#ifndef GATEWAY_OUTBOX_H
#define GATEWAY_OUTBOX_H

#include "gateway/link.h"

void outbox_init(struct link *l);
/* If it has wishes and is not listed already. Only while a worker serves: the next one gets all
 * with what they have (epoch_resume), and nothing before. */
void outbox_add(struct link *l, struct journal_entry *en);
void outbox_remove(struct link *l, struct journal_entry *en);
/* Puts what it wishes into the ring. -EAGAIN: no room now; other errors: ring_put's, memfd's. */
MUST_CHECK int outbox_send(struct link *l, struct journal_entry *en);

#endif
