/* Mapping of an epoch's shared memory. Main thread; blocks never. */
#include "worker/attach.h"
#include "ipc/memfd.h"
#include "shared/err.h"

#include <string.h>
#include <unistd.h>

void attach_init(struct attach *a)
{
    *a = (struct attach){.request_bell = -1, .event_bell = -1};
}

void attach_close(struct attach *a)
{
    for (int i = 0; i < 3; i++) {
        memfd_unmap(a->maps[i], a->map_bytes[i]);
    }
    if (a->request_bell >= 0) {
        close(a->request_bell);
    }
    if (a->event_bell >= 0) {
        close(a->event_bell);
    }
    attach_init(a);
}

int attach_open(struct attach *a, struct channel_msg *m)
{
    struct msg_attach msg;
    memcpy(&msg, m->payload, sizeof(msg));
    attach_init(a);
    a->epoch = msg.epoch;
    a->request_bell = m->fds[2];
    a->event_bell = m->fds[3];
    m->fds[2] = m->fds[3] = -1;
    size_t ring = ring_memfd_bytes(msg.ring_bytes);
    const struct {
        int fd;
        size_t bytes;
    } maps[3] = {{m->fds[0], ring}, {m->fds[1], ring}, {m->fds[4], STATUS_PAGE_BYTES}};
    int err = 0;
    for (int i = 0; i < 3 && err == 0; i++) {
        err = memfd_map(maps[i].fd, maps[i].bytes, maps[i].bytes, false, true, &a->maps[i],
                        &a->map_bytes[i]);
    }
    if (err == 0) {
        err = ring_attach(&a->requests, a->maps[0], a->map_bytes[0], msg.epoch, a->request_bell);
    }
    if (err == 0) {
        err = ring_attach(&a->events, a->maps[1], a->map_bytes[1], msg.epoch, a->event_bell);
    }
    if (err == 0) {
        a->status = status_attach(a->maps[2], a->map_bytes[2], msg.epoch);
        err = a->status ? 0 : ERR_PROTOCOL;
    }
    if (err < 0) {
        attach_close(a);
    }
    return err;
}
