/* An epoch's shared memory, as the supervisor hands it over: two rings, their bells, the status
 * page. */
#ifndef WORKER_ATTACH_H
#define WORKER_ATTACH_H

#include "ipc/channel.h"
#include "ipc/ring.h"
#include "ipc/status.h"

struct attach {
    uint64_t epoch;
    struct ring requests; /* we consume */
    struct ring events;   /* we produce */
    struct status_page *status;
    int request_bell, event_bell; /* owned; -1 */
    void *maps[3];                /* owned: requests, events, status */
    size_t map_bytes[3];
};

void attach_init(struct attach *a);
/* Takes an ATTACH apart; its descriptors are taken over. ERR_PROTOCOL, -errno of mmap. */
MUST_CHECK int attach_open(struct attach *a, struct channel_msg *m);
void attach_close(struct attach *a);

#endif
