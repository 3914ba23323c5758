/* What one worker life shares with the gateway: two rings, their bells and the status page, all
 * made anew for every worker. The supervisor formats the rings and never touches them again; it
 * keeps the status page mapped, read-only, for the watchdog. */
#ifndef SAFETY_EPOCH_H
#define SAFETY_EPOCH_H

#include "ipc/channel.h"
#include "ipc/status.h"

enum epoch_fd {
    EPOCH_REQUEST_RING,
    EPOCH_EVENT_RING,
    EPOCH_REQUEST_BELL,
    EPOCH_EVENT_BELL,
    EPOCH_STATUS,
    EPOCH_FDS
};

struct epoch {
    uint64_t id;                    /* 0: none */
    int fds[EPOCH_FDS];             /* owned; in the order of msg_attach */
    int status_read_fd;             /* owned; the status page without the right to write */
    const struct status_page *page; /* owned mapping */
};

void epoch_init(struct epoch *ep);
/* pace: what earlier workers measured. 0 or -errno; *ep is untouched on failure. */
MUST_CHECK int epoch_create(struct epoch *ep, uint64_t id, const struct status_pace *pace);
void epoch_close(struct epoch *ep); /* safe when there is none */

/* Sends ATTACH; the gateway gets the status page read-only. Errors as channel_send. */
MUST_CHECK int epoch_attach(const struct epoch *ep, struct channel *c);

/* Has the request bell been rung without the worker taking notice? */
bool epoch_bell_rings(const struct epoch *ep);

#endif
