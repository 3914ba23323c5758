/* Control channels. Non-blocking; each end is owned by one thread. */
#include "ipc/channel.h"
#include "shared/err.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

struct header {
    uint32_t type;
    uint32_t reserved;
    uint64_t epoch;
};

int channel_pair(int ret_fds[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_fds) < 0) {
        return -errno;
    }
    return 0;
}

void channel_init(struct channel *c, int fd, enum msg_peer self, enum msg_peer peer)
{
    *c = (struct channel){.fd = fd, .self = self, .peer = peer, .state = MSG_STATE_NEW};
}

void channel_close(struct channel *c)
{
    if (c->fd >= 0) {
        close(c->fd);
        c->fd = -1;
    }
}

int channel_send(struct channel *c, uint32_t type, uint64_t epoch, const void *payload, size_t len,
                 const int *fds, int n_fds)
{
    /* The state is the receiver's to judge; ours may lag behind what we are about to cause. */
    const unsigned any_state = MSG_STATE_NEW | MSG_STATE_GREETED | MSG_STATE_RUNNING;
    if (c->fd < 0) {
        return ERR_PEER_GONE;
    }
    if (len > LIMIT_CHANNEL_BYTES || n_fds > LIMIT_CHANNEL_FDS ||
        msg_check(type, MSG_CONTROL, c->self, c->peer, any_state, payload, len, n_fds) < 0) {
        return ERR_PROTOCOL;
    }
    struct header h = {.type = type, .epoch = epoch};
    struct iovec iov[2] = {{&h, sizeof(h)}, {(void *)(uintptr_t)payload, len}};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * LIMIT_CHANNEL_FDS)];
    } control = {0};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
    if (n_fds > 0) {
        size_t fd_bytes = sizeof(int) * (size_t)n_fds;
        m.msg_control = control.bytes;
        m.msg_controllen = CMSG_SPACE(fd_bytes);
        struct cmsghdr *cm = CMSG_FIRSTHDR(&m);
        ASSERT(cm); /* there is room for it */
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN(fd_bytes);
        memcpy(CMSG_DATA(cm), fds, fd_bytes);
    }
    ssize_t n;
    do {
        n = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EAGAIN || errno == ENOBUFS ? -EAGAIN : ERR_PEER_GONE;
    }
    return 0;
}

void channel_msg_finish(struct channel_msg *m)
{
    for (int i = 0; i < m->n_fds; i++) {
        if (m->fds[i] >= 0) {
            close(m->fds[i]);
        }
    }
    m->n_fds = 0;
}

int channel_recv(struct channel *c, struct channel_msg *ret)
{
    if (c->fd < 0) {
        return ERR_PEER_GONE;
    }
    struct header h;
    struct iovec iov[2] = {{&h, sizeof(h)}, {ret->payload, sizeof(ret->payload)}};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * LIMIT_CHANNEL_FDS)];
    } control;
    struct msghdr m = {
        .msg_iov = iov,
        .msg_iovlen = 2,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };
    ssize_t n;
    do { /* ECONNRESET, once: the peer left before it had read all; what it said still stands there
          */
        n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && (errno == EINTR || errno == ECONNRESET));
    if (n < 0) {
        return errno == EAGAIN ? 0 : ERR_PEER_GONE;
    }
    /* The descriptors first: they are ours to close whatever else is wrong. */
    ret->n_fds = 0;
    for (struct cmsghdr *cm = CMSG_FIRSTHDR(&m); cm; cm = CMSG_NXTHDR(&m, cm)) {
        if (cm->cmsg_level == SOL_SOCKET && cm->cmsg_type == SCM_RIGHTS) {
            size_t n_fds = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (size_t i = 0; i < n_fds && ret->n_fds < LIMIT_CHANNEL_FDS; i++) {
                memcpy(&ret->fds[ret->n_fds++], CMSG_DATA(cm) + i * sizeof(int), sizeof(int));
            }
        }
    }
    if (n == 0 && ret->n_fds == 0) {
        return ERR_PEER_GONE;
    }
    if ((size_t)n < sizeof(h) || (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        channel_msg_finish(ret);
        return ERR_PROTOCOL;
    }
    ret->type = h.type;
    ret->epoch = h.epoch;
    ret->len = (size_t)n - sizeof(h);
    int err = msg_check(ret->type, MSG_CONTROL, c->peer, c->self, c->state, ret->payload, ret->len,
                        ret->n_fds);
    if (err < 0) {
        channel_msg_finish(ret);
        return err;
    }
    return 1;
}
