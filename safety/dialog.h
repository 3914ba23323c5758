/* The control dialog with the children, on the supervisor's side.
 *
 *   child: HELLO          -> CONFIG; LISTEN to the gateway
 *   worker greeted        -> STORE for each that is kept, ATTACH, and to the front with the same
 * five descriptors a new front greeted   -> ATTACH to it and, once more, to the worker that is
 * there worker: PREFLIGHT     -> the probe is started; its VERDICT goes to the worker worker:
 * READY, front: READY worker: STORE, DROP   to and from the vault front: BULK           -> to the
 * worker, unopened front: BREACH         -> the worker is condemned reporter: CRASHED; front: ASK,
 * answered by TOLD (crash.h) front: POISON         is kept; a new front gets it after CONFIG both:
 * DRAINED         after DRAIN gateway: PING         its echo of ours: its loop turns */
#ifndef SAFETY_DIALOG_H
#define SAFETY_DIALOG_H

#include "safety/supervisor.h"

/* Sends, or condemns the child. One whose queue is full has not read for more than a hundred
 * messages; one that is gone is reaped in a moment. False: not sent. */
bool dialog_say(struct supervisor *s, struct child *c, uint32_t type, const void *payload,
                size_t len, const int *fds, int n_fds, uint64_t now_ms);
/* Takes what the child has said. A breach of the protocol condemns it. */
void dialog_read(struct supervisor *s, struct child *c, uint64_t now_ms);
/* The worker's channel has room again. */
void dialog_flush(struct supervisor *s, uint64_t now_ms);
/* Asks the gateway for a sign of life when the last one is old; condemns it when there was none for
 * silence_ms. The terminal may block on its user and is not asked. */
void dialog_ping(struct supervisor *s, uint64_t silence_ms, uint64_t now_ms);
/* Tells the front to finish what runs within deadline_ms, and then the worker. */
void dialog_drain(struct supervisor *s, uint64_t deadline_ms, uint64_t now_ms);
/* The probe ended, or could not be started: the worker gets a verdict in any case. */
void dialog_send_verdict(struct supervisor *s, int err, const char *detail, uint64_t now_ms);

#endif
