/* What the gateway tells the supervisor about epochs and requests, in order and never lost: the
 * channel may be full for a moment (large requests pass through it), so what finds no room waits
 * here and goes as soon as there is some. One thread, the loop's; nothing blocks. */
#ifndef GATEWAY_NOTICE_H
#define GATEWAY_NOTICE_H

#include "ipc/channel.h"
#include <uv.h>

enum { NOTICE_WAITING = 32, NOTICE_BYTES = 384 };

struct notice {
    struct channel *channel; /* borrowed */
    uv_timer_t retry;
    size_t n; /* waiting, oldest first */
    struct notice_row {
        uint32_t type;
        uint64_t epoch;
        size_t len;
        uint8_t payload[NOTICE_BYTES];
    } rows[NOTICE_WAITING];
};

MUST_CHECK int notice_open(struct notice *n, uv_loop_t *loop, struct channel *channel);
void notice_close(struct notice *n);

/* A control message without descriptors, of at most NOTICE_BYTES. */
void notice_send(struct notice *n, uint32_t type, uint64_t epoch, const void *payload, size_t len);

#endif
