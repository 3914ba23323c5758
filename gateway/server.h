/* The HTTP front: listeners, connections, policy. One per process, owned by main. */
#ifndef GATEWAY_SERVER_H
#define GATEWAY_SERVER_H

#include "gateway/auth.h"
#include "gateway/conn.h"
#include "gateway/front.h"
#include "gateway/link.h"

enum { SERVER_LISTENERS = 4, SERVER_READ_BYTES = 64 * 1024 };

struct server {
    uv_loop_t *loop;   /* borrowed */
    struct link *link; /* borrowed */
    struct front_host host;
    struct config config; /* owned */
    struct auth auth;
    bool has_config;
    struct listener {
        uv_poll_t poll;
        int fd; /* owned */
        bool is_unix;
        struct server *server;
    } listeners[SERVER_LISTENERS];
    size_t n_listeners;
    struct conn *conns, *dirty;
    size_t n_conns, max_conns, n_active, n_held;
    size_t body_bytes;
    uv_prepare_t before_sleep;
    uv_check_t after_sleep;
    uv_timer_t drain;
    size_t n_handles; /* libuv still holds */
    int spare_fd;     /* given up for a moment to answer 503 when descriptors run out */
    bool is_draining, is_drained;
    struct crashes *asks; /* questions that the supervisor has not answered (crashes.c) */
    uint64_t n_asks;
    uint32_t n_asks_open; /* answers that are to come, of those that left, too */
    char read_buffer[SERVER_READ_BYTES];
};

extern const struct front server_front;

void server_mark_dirty(struct server *s, struct conn *c);
/* An exchange began or ended; a request is held or no more. */
void server_count_active(struct server *s, int change);
void server_count_held(struct server *s, int change);
void server_count_body(struct server *s, struct conn *c, size_t n);

#endif
