/* One client connection: bytes in, one exchange after the other (pipelined requests wait their
 * turn), bytes out with back-pressure, timeouts, and an end that does not cut off the last answer.
 *
 *   WAIT -> HEAD -> BODY -> ANSWER -> WAIT ...        ANSWER -> LINGER -> CLOSED
 * HEAD begins with a request's first byte. LINGER: everything was sent and our side shut down; what
 * still comes is read and dropped for a moment, because closing with unread input resets the
 * connection and would take the answer with it. Any state may go to CLOSED at once. */
#ifndef GATEWAY_CONN_H
#define GATEWAY_CONN_H

#include "gateway/exchange.h"

enum conn_state { CONN_WAIT, CONN_HEAD, CONN_BODY, CONN_ANSWER, CONN_LINGER, CONN_CLOSED };

struct conn {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } io;
    struct server *server;   /* borrowed */
    struct conn *next, **at; /* the server's list */
    struct conn *next_dirty;
    enum conn_state state;
    bool is_unix, is_dirty, is_reading, is_writing, is_full;
    bool is_eof; /* the client sends no more */
    bool had_last_turn; /* its time is over but for one turn of the loop */
    bool closes; /* after what is in `out` */
    uint8_t n_probes, n_handles;
    struct http http;
    struct exchange x;
    struct buf pending; /* owned: bytes read ahead of their turn */
    struct buf out;     /* owned: to be sent */
    struct buf sending; /* owned: being sent by `write` */
    uv_write_t write;
    uv_shutdown_t shutdown;
    uv_timer_t timer;
    size_t n_body_counted; /* of the server's body_bytes */
    size_t last_unsent;
    uint64_t progress_ms; /* when the client last took bytes */
};

/* Takes the descriptor. */
void conn_open(struct server *s, int fd, bool is_unix);
/* At once, whatever is going on. */
void conn_close(struct conn *c);
/* Closes if it waits for a request; otherwise after the answer. */
void conn_retire(struct conn *c);

/* Appends to what is to be sent; it leaves at the end of the loop's turn. */
void conn_send(struct conn *c, const void *data, size_t n);
/* An answer cannot be written for want of memory: the connection ends with this turn of the loop.
 */
void conn_fail(struct conn *c);
/* The exchange is over. */
void conn_next(struct conn *c, bool keep_alive);
/* Sends what there is and reads on; by the server, once a turn for every dirty connection. */
void conn_flush(struct conn *c);

#endif
