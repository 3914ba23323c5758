/* An epoch is one worker's life as the gateway sees it: its rings are attached, its models are
 * announced, it serves, it is gone. What it leaves unfinished waits for the next one. */
#ifndef GATEWAY_EPOCH_H
#define GATEWAY_EPOCH_H

#include "gateway/link.h"

/* The descriptors of MSG_ATTACH, in its order; taken (set to -1) as far as they are kept. Errors:
 * ERR_PROTOCOL, -errno; then the state is DOWN. */
MUST_CHECK int epoch_attach(struct link *l, const struct msg_attach *m, int fds[5]);
void epoch_detach(struct link *l, const struct msg_detach *m);

/* ---- for the link's own files ---- */
/* Its models are known and it serves: it gets what the one before left. */
void epoch_resume(struct link *l);
/* It broke the protocol: that is its end, and the supervisor is told. */
void epoch_breach(struct link *l, const struct err *e);
/* Lets go of its memory and bells. */
void epoch_release(struct link *l);

#endif
