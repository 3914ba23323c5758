/* One answer of a request: its ids, how the next is drawn, what of its text was shown. The
 * scheduler decides when it computes. */
#ifndef WORKER_CHOICE_H
#define WORKER_CHOICE_H

#include "worker/events.h"
#include "worker/grammar/constraint.h"
#include "worker/request.h"

/* Logits of one row of a step; on a device they may have stayed there but for the largest
 * (worker/engine.h). */
struct choice_logits {
    struct engine *engine; /* borrowed */
    int64_t at;            /* the row's place among those of the step that wanted logits */
    const float *all;      /* borrowed; NULL: not fetched */
};

struct choice {
    struct request *request; /* borrowed */
    uint32_t number;         /* in messages and random keys */
    int32_t *ids;            /* owned; the answer so far, the end-of-generation id excepted */
    int64_t n_ids, n_max;
    double logprob_sum;              /* of what was drawn, with MSG_RANK */
    bool drew_end;                   /* an end-of-generation id came */
    uint32_t reason;                 /* enum msg_finish_reason; 0: it goes on */
    uint32_t replayed_reason;        /* with MSG_RANK: its replay is its end, once all is ranked */
    int stop_index;                  /* the stop sequence that ended it; -1 none */
    bool had_ended;                  /* in an earlier epoch: nothing of it is sent again */
    int64_t n_replayed;              /* of ids, from an earlier epoch */
    int64_t n_accepted;              /* of ids, those that the sampler has been told of */
    struct constraint_place place;   /* behind the ids that the sampler was told of */
    struct sampler *sampler;         /* owned */
    struct detokenizer *detokenizer; /* owned */

    /* the scheduler's */
    struct engine_seq *seq; /* owned; NULL: nothing of it is in the KV cache */
    bool is_unborn;         /* waits for the bearer's prompt */
    bool is_suspect; /* was in a step that failed: computes alone until it has proved itself */
    struct choice *prev, *next; /* in the queue */
};

static inline bool choice_is_older(const struct choice *a, const struct choice *b)
{
    uint64_t x = a->request->arrival, y = b->request->arrival;
    return x != y ? x < y : a->number < b->number;
}

static inline int64_t choice_n_known(const struct choice *c)
{
    return c->request->n_prompt + c->n_ids;
}

static inline int32_t choice_known(const struct choice *c, int64_t i)
{
    const struct request *r = c->request;
    return i < r->n_prompt ? r->prompt[i] : c->ids[i - r->n_prompt];
}

/* Tokens to compute before the next is drawn. */
static inline int64_t choice_n_missing(const struct choice *c)
{
    return choice_n_known(c) - engine_seq_length(c->seq);
}

static inline bool choice_is_bearer(const struct choice *c)
{
    return c->request->bearer == c;
}

/* Slots that it will need, those of the choices that wait for its prompt included. */
static inline int64_t choice_n_slots(const struct choice *c)
{
    return 1 + (choice_is_bearer(c) ? c->request->n_unborn : 0);
}

/* Takes the request's parameters; the prompt stands. Runs in a prepare thread. n_max: ids the
 * answer may have. Errors: those of sampler_create, -ENOMEM. */
MUST_CHECK int choice_init(struct choice *c, struct request *r, uint32_t number, int64_t n_max,
                           struct err *e);
void choice_finish(struct choice *c);

/* Goes through ids that were sent in an earlier epoch. May end the choice. end: it had ended; or
 * NULL. Errors: ERR_INTERNAL when ids go on after the end, or the end does not fit them; -ENOMEM;
 * ERR_MODEL_TOKENIZER. */
MUST_CHECK int choice_replay(struct choice *c, const int32_t *ids, size_t n,
                             const struct msg_resume_end *end, struct err *e);

/* Is the id at this position one of an earlier epoch whose logits are wanted still? */
bool choice_wants_check(const struct choice *c, int64_t position);
/* With MSG_VERIFY draws it again; with MSG_RANK adds it to the sum. ERR_REPLAY_DIVERGENCE: another
 * one was drawn. */
MUST_CHECK int choice_check(struct choice *c, int64_t position, struct choice_logits *logits,
                            struct err *e);

/* How many of the largest logits may do for drawing and checking; 0: all are needed. */
int32_t choice_n_top(const struct choice *c);
/* Draws the next id from these logits and sends it; sets reason when the answer ends there. */
MUST_CHECK int choice_draw(struct choice *c, struct choice_logits *logits, struct events *ev,
                           struct err *e);

/* Sends FINISH with the text that was held back. */
void choice_send_finish(struct choice *c, struct events *ev);

/* Reports the next prompt token of a request with MSG_ECHO, to every choice. logits: of the row
 * before it; NULL: without logprobs. */
MUST_CHECK int choice_echo(struct request *r, struct choice_logits *logits, struct events *ev,
                           struct err *e);

#endif
