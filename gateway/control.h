/* The channel to the supervisor: says HELLO, takes configuration, sockets and workers, obeys DRAIN.
 * The same for every front. */
#ifndef GATEWAY_CONTROL_H
#define GATEWAY_CONTROL_H

#include "gateway/front.h"

struct control {
    uv_loop_t *loop; /* borrowed */
    struct channel channel;
    uv_poll_t poll;
    uv_signal_t term;
    struct link link;
    const struct front *front;
    void *front_state;
    bool is_sandboxed; /* enter the sandbox once the sockets are there */
    bool has_config;
    uint64_t drain_ms; /* time that running requests get, when SIGTERM and not DRAIN asks */
    bool is_drained, leaves_when_drained;
    bool is_over;
    int exit_code; /* why the loop ended */
};

/* Takes fd. Greets the supervisor and begins to listen to it. */
MUST_CHECK int control_open(struct control *c, uv_loop_t *loop, int fd, const struct front *front,
                            size_t n_files, bool is_sandboxed);
/* Lets go of everything; the loop is to be run once more. */
void control_close(struct control *c);

#endif
