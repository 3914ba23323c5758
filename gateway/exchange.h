/* One request and its answer, as handlers see it. A handler answers at once (exchange_reply,
 * exchange_error) or leaves work running (exchange_work) and answers later, whole or as a stream of
 * server-sent events. Exactly one answer ends an exchange; after the end the handler's pointer is
 * dead. One thread, the loop's; nothing blocks. */
#ifndef GATEWAY_EXCHANGE_H
#define GATEWAY_EXCHANGE_H

#include "gateway/http.h"
#include "gateway/route.h"
#include "shared/buf.h"
#include <uv.h>

struct conn;
struct server;

/* What a handler leaves running; every call names it by its own pointer. pressure and silence may
 * be NULL: an answer in one piece has no use for them. */
struct exchange_work {
    /* The client left, or the connection is being closed: cancel and free. The exchange is dead. */
    void (*gone)(void *work);
    /* End now with this error (shutdown): answers and frees. */
    void (*fail)(void *work, const struct err *e);
    /* The client reads too slowly, or again fast enough. */
    void (*pressure)(void *work, bool is_full);
    /* Nothing was sent for LIMIT_KEEPALIVE_MS. */
    void (*silence)(void *work);
};

struct exchange {
    struct conn *conn;         /* borrowed: it embeds this */
    struct server *server;     /* borrowed */
    struct http *http;         /* borrowed; the request */
    const struct route *route; /* NULL: none */
    bool is_active;            /* between request and the end of its answer */
    bool is_cross_origin;      /* answer with CORS headers */
    bool is_keep_alive;
    bool is_stream; /* its head was sent as a stream */
    bool is_chunked;
    bool is_held; /* waits for a worker */
    int status;   /* sent; 0 none yet */
    uint64_t begin_ns;
    const struct exchange_work *ops; /* NULL: no work runs */
    void *work;
    uv_timer_t timer; /* hold or silence */
};

/* When the head is there: may this request be here at all? 0 or the error to answer with. */
MUST_CHECK int exchange_judge(struct exchange *x, struct err *e);
/* When the request is complete. */
void exchange_run(struct exchange *x);
/* The link's state changed, for an exchange that is held. */
void exchange_reconsider(struct exchange *x);

/* The handler goes on later; the request's body is dropped. */
void exchange_leave_work(struct exchange *x, const struct exchange_work *ops, void *work);

/* extra: further header lines, each ended by CRLF, or NULL. */
void exchange_reply(struct exchange *x, int status, const char *type, const char *body, size_t n,
                    const char *extra);
/* param: the field at fault, or NULL. */
void exchange_error(struct exchange *x, const struct err *e, const char *param);

/* A stream: head, pieces (each at least one whole event; NULL: there was no memory for it), end. */
void exchange_stream_begin(struct exchange *x);
void exchange_stream(struct exchange *x, const char *data, size_t n);
void exchange_stream_end(struct exchange *x);

/* A comment to a stream, an interim response otherwise: it comes back as a reset if nobody is
 * there. False: this client cannot be asked so. */
bool exchange_probe(struct exchange *x);

/* {"error":{...}} */
void exchange_put_error(struct buf *b, const struct err *e, const char *param);
/* {"type":"error","error":{...}}, as Anthropic has it. */
void exchange_put_named_error(struct buf *b, const struct err *e);

#endif
