/* Whose fault was it? A worker that dies by a fault of its own leaves suspects: the requests that
 * it had. They run again one at a time, each until it has got further than where the worker died (a
 * token for every choice, or its end); meanwhile nothing else computes. One with which a worker
 * dies again while it is alone is convicted. Those that got through wait until the last one is
 * judged, and then all go on together. A suspect that nobody waits for any more is judged like the
 * others, and cancelled when it is acquitted.
 *
 * Pure; works on the journal's entries: is_suspect, is_held, n_trial. */
#ifndef GATEWAY_TRIAL_H
#define GATEWAY_TRIAL_H

#include "gateway/journal.h"

struct trial {
    uint64_t id; /* of the request on trial; 0: none */
    size_t n_suspects;
};

/* A worker died (the entries are not rewound yet). is_counted: by its own fault; had_read: it had
 * taken all that was sent to it. Returns the convicted entry or NULL. */
struct journal_entry *trial_death(struct trial *t, const struct journal *j, bool is_counted,
                                  bool had_read);

/* The worker said this of a request, or (type 0) its entry is about to be removed. True: who may go
 * has changed, call trial_arrange. */
bool trial_note(struct trial *t, struct journal_entry *en, uint32_t type);

/* Holds and lets go. To be called when a worker serves, and after trial_note says so. */
void trial_arrange(struct trial *t, const struct journal *j);

#endif
