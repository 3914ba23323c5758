/* Shared memory of one worker life; made in the supervisor. Never blocks. */
#include "safety/epoch.h"
#include "ipc/memfd.h"
#include "ipc/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

void epoch_init(struct epoch *ep)
{
    *ep = (struct epoch){.status_read_fd = -1};
    for (int i = 0; i < EPOCH_FDS; i++) {
        ep->fds[i] = -1;
    }
}

static int make_ring(const char *name, uint64_t id)
{
    size_t bytes = ring_memfd_bytes(LIMIT_RING_BYTES);
    int fd = memfd_create_shared(name, bytes);
    if (fd < 0) {
        return fd;
    }
    void *map;
    int rc = memfd_map(fd, bytes, bytes, false, true, &map, &bytes);
    if (rc != 0) {
        close(fd);
        return rc;
    }
    ring_format(map, LIMIT_RING_BYTES, id);
    memfd_unmap(map, bytes);
    return fd;
}

static int make_bell(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

static int make_status(uint64_t id, const struct status_pace *pace)
{
    size_t bytes = STATUS_PAGE_BYTES;
    int fd = memfd_create_shared("rocmforge-status", bytes);
    if (fd < 0) {
        return fd;
    }
    void *map;
    int rc = memfd_map(fd, bytes, bytes, false, true, &map, &bytes);
    if (rc != 0) {
        close(fd);
        return rc;
    }
    status_format(map, id);
    status_pass_pace(pace, map);
    memfd_unmap(map, bytes);
    return fd;
}

/* A second descriptor of the page, which cannot be mapped writable. */
static int open_read_only(int fd)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int read_fd = open(path, O_RDONLY | O_CLOEXEC);
    return read_fd < 0 ? -errno : read_fd;
}

int epoch_create(struct epoch *ep, uint64_t id, const struct status_pace *pace)
{
    struct epoch made;
    epoch_init(&made);
    made.id = id;
    void *map = NULL;
    size_t bytes = STATUS_PAGE_BYTES;
    int rc = 0;
    for (int i = 0; i < EPOCH_FDS && rc >= 0; i++) {
        rc = i == EPOCH_REQUEST_RING ? make_ring("rocmforge-requests", id)
             : i == EPOCH_EVENT_RING ? make_ring("rocmforge-events", id)
             : i == EPOCH_STATUS     ? make_status(id, pace)
                                     : make_bell();
        made.fds[i] = rc;
    }
    if (rc >= 0) {
        rc = made.status_read_fd = open_read_only(made.fds[EPOCH_STATUS]);
    }
    if (rc >= 0) {
        rc = memfd_map(made.status_read_fd, bytes, bytes, false, false, &map, &bytes);
    }
    if (rc < 0) {
        epoch_close(&made);
        return rc;
    }
    made.page = map;
    *ep = made;
    return 0;
}

void epoch_close(struct epoch *ep)
{
    for (int i = 0; i < EPOCH_FDS; i++) {
        if (ep->fds[i] >= 0) {
            close(ep->fds[i]);
        }
    }
    if (ep->status_read_fd >= 0) {
        close(ep->status_read_fd);
    }
    memfd_unmap((void *)(uintptr_t)ep->page, STATUS_PAGE_BYTES);
    epoch_init(ep);
}

int epoch_attach(const struct epoch *ep, struct channel *c)
{
    int fds[EPOCH_FDS];
    for (int i = 0; i < EPOCH_FDS; i++) {
        fds[i] = ep->fds[i];
    }
    if (c->peer == MSG_GATEWAY) {
        fds[EPOCH_STATUS] = ep->status_read_fd;
    }
    struct msg_attach m = {.epoch = ep->id, .ring_bytes = LIMIT_RING_BYTES};
    return channel_send(c, MSG_ATTACH, ep->id, &m, sizeof(m), fds, EPOCH_FDS);
}

bool epoch_bell_rings(const struct epoch *ep)
{
    struct pollfd p = {.fd = ep->fds[EPOCH_REQUEST_BELL], .events = POLLIN};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}
