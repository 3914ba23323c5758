/* Control channel: a SOCK_SEQPACKET socket pair made by the supervisor; one packet is one message,
 * with up to LIMIT_CHANNEL_FDS descriptors. Messages are those of msg.def marked CONTROL, checked
 * against the table (direction, size, state, number of fds) on a private copy before any
 * handler. */
#ifndef IPC_CHANNEL_H
#define IPC_CHANNEL_H

#include "ipc/msg.h"

enum { CHANNEL_CHILD_FD = 3 }; /* where a child finds its end */

struct channel {
    int fd;              /* owned; -1 when closed */
    enum msg_peer self;  /* who I am */
    enum msg_peer peer;  /* who is at the other end */
    unsigned state;      /* bits of enum msg_state, kept by the owner */
};

struct channel_msg {
    uint32_t type;       /* enum msg_type */
    uint64_t epoch;
    size_t len;          /* payload bytes */
    int n_fds;
    int fds[LIMIT_CHANNEL_FDS]; /* owned by the receiver until it takes them (sets -1) */
    _Alignas(16) uint8_t payload[LIMIT_CHANNEL_BYTES];
};

/* Both ends non-blocking and close-on-exec. */
MUST_CHECK int channel_pair(int ret_fds[2]);
void channel_init(struct channel *c, int fd, enum msg_peer self, enum msg_peer peer);
void channel_close(struct channel *c);

/* 0, -EAGAIN (peer does not read), ERR_PEER_GONE, ERR_PROTOCOL (we would break the table). The fds
 * stay the caller's. */
MUST_CHECK int channel_send(struct channel *c, uint32_t type, uint64_t epoch, const void *payload,
                            size_t len, const int *fds, int n_fds);

/* 1 and a checked message, 0 when there is none now, ERR_PEER_GONE, ERR_PROTOCOL. */
MUST_CHECK int channel_recv(struct channel *c, struct channel_msg *ret);
/* Closes the descriptors that nobody took. */
void channel_msg_finish(struct channel_msg *m);

#endif
