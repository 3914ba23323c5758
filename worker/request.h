/* One request, from its message to its terminal event.
 *
 * A request belongs to the token loop. Between prepare_submit and prepare_take it is lent to a
 * prepare thread: the loop then touches nothing but the fields of its own (first group) and sends
 * nothing.
 *
 *   AWAITING   announced by BULK_NOTE; its payload comes on the control channel
 *   LOADING    its model is not loaded yet, or it is the order to load one
 *   PREPARING  lent: text is tokenized, samplers are made, sent ids are replayed
 *   ACTIVE     GENERATE: the scheduler has it. TEXT: its result is being sent
 *   ENDED      its terminal event was given to `events`; it goes when that has passed it on */
#ifndef WORKER_REQUEST_H
#define WORKER_REQUEST_H

#include "ipc/msg.h"
#include "shared/buf.h"
#include "shared/err.h"
#include "worker/detokenizer.h"
#include "worker/models.h"
#include "worker/sampler.h"

enum request_stage {
    REQUEST_AWAITING,
    REQUEST_LOADING,
    REQUEST_PREPARING,
    REQUEST_ACTIVE,
    REQUEST_ENDED
};

struct request_span { /* borrowed from the payload */
    const void *data;
    size_t n; /* bytes, or elements where the name says so */
};

struct request {
    /* the loop's own */
    uint64_t id;
    uint64_t arrival; /* order of arrival */
    enum request_stage stage;
    bool is_bulk;        /* its payload is a memfd: prepared behind other large ones */
    bool is_paused;      /* its reader is slow */
    bool is_cancelled;   /* while AWAITING or PREPARING: ends as soon as it is back */
    bool is_orphan;      /* its gateway is gone: no events, not even the terminal one */
    uint64_t stalled_ns; /* since when it is paused or has pending events; 0: it is not */
    struct buf pending;  /* events that found no room in the ring */
    size_t pending_at;
    struct request *next_live; /* in the list of all */

    struct request *next; /* in a list of prepare.c */

    /* the message, valid until prepared */
    uint32_t type; /* MSG_GENERATE or MSG_TEXT */
    void *payload; /* owned; a mapping with is_bulk */
    size_t payload_len;
    union {
        struct msg_generate generate;
        struct msg_text text;
    };
    const struct model *model; /* borrowed */
    struct request_span prompt_text, prompt_ids /* n: ids */, messages, template_args;
    struct request_span bias; /* n: struct msg_logit_bias */
    struct request_span grammar, schema;
    struct detokenizer_stop stops[LIMIT_STOPS];
    size_t n_stops;
    struct request_span resume[LIMIT_CHOICES]; /* n: ids */
    struct request_span ends[LIMIT_CHOICES];   /* struct msg_resume_end; data NULL: it goes on */
    bool is_resumed;                           /* some choice has sent ids, or had ended */

    /* what preparing made */
    struct err err;    /* code < 0: the request fails */
    struct buf result; /* of a TEXT */
    size_t result_sent;
    int32_t *prompt; /* owned */
    int64_t n_prompt;
    struct constraint *constraint; /* owned; NULL: answers are free */
    struct choice *choices;   /* owned; generate.n_choices of them */
    struct detokenizer *echo; /* owned; of the prompt, with MSG_ECHO */

    /* the scheduler's */
    struct choice *bearer; /* computes the prompt for all; NULL afterwards */
    uint32_t n_unborn;     /* choices that wait for the prompt, the bearer excepted */
    uint32_t n_unfinished;
    int64_t n_echoed; /* prompt tokens reported */
    int64_t n_cached; /* prompt tokens that the prefix cache had when it started */
    uint64_t received_ns, started_ns, first_ns,
        last_ns; /* arrival, STARTED, first and last token */
};

/* A new request of this message; payload is not read yet. */
struct request *request_create(uint64_t id, uint32_t type, uint64_t arrival, uint64_t now_ns);
void request_destroy(struct request **r);

/* Takes the payload over (owned from here on, also on failure) and reads it: msg_check was passed.
 * ERR_PROTOCOL where it breaks the rules of msg.h. */
MUST_CHECK int request_read(struct request *r, void *payload, size_t len, bool is_bulk,
                            const struct models *models);
/* Frees the payload; the spans are void. */
void request_drop_payload(struct request *r);

static inline bool request_is_stalled(const struct request *r)
{
    return r->stalled_ns != 0;
}

#endif
