/* The gateway's end of the rings, for tests: builds requests, collects answers, and checks that
 * every event is one that msg.h allows at that moment. */
#ifndef TESTS_WORKER_PEER_H
#define TESTS_WORKER_PEER_H

#include "ipc/ring.h"
#include "shared/buf.h"
#include "worker/attach.h"

enum { PEER_MAX = 512 };

struct ask { /* a request being built */
    struct msg_generate m;
    struct msg_text t; /* with type MSG_TEXT */
    uint32_t type;
    struct buf sections;
    uint32_t n_sections;
};

struct ask ask_text(uint64_t id, const char *prompt); /* greedy, no limit */
struct ask ask_ids(uint64_t id, const int32_t *ids, size_t n);
struct ask ask_chat(uint64_t id, const char *messages, const char *args); /* args may be NULL */
struct ask ask_op(uint64_t id, enum msg_text_op op);                      /* MSG_TEXT */
void ask_add(struct ask *a, enum msg_section_kind kind, uint32_t index, const void *data, size_t n);
void ask_stop(struct ask *a, const char *stop);
/* The payload; the ask is finished. */
void ask_encode(struct ask *a, struct buf *ret);

struct answer_choice {
    struct buf text;
    int32_t ids[8192];
    size_t text_at[8192]; /* bytes of text known when id i had come */
    size_t n_ids, n_echo, first;
    bool is_finished;
    uint32_t reason, n_tokens;
    int stop_index;
    float logprob_sum;
};

struct answer {
    uint64_t id;
    bool is_started, is_over, is_cancelled;
    struct msg_started started;
    struct msg_done done;
    uint32_t n_before; /* tokens of choices that a replay said had ended */
    int err; /* FAIL */
    char detail[MSG_DETAIL_BYTES];
    uint32_t n_prefilled;
    struct buf result;   /* of TEXT */
    struct buf logprobs; /* every struct msg_logprob in order of arrival */
    struct buf pieces;
    struct answer_choice *choices[LIMIT_CHOICES]; /* by number; NULL: nothing heard */
};

struct peer {
    void *maps[2];
    struct ring requests, events; /* ours: producer, consumer */
    struct attach attach;         /* the worker's end */
    struct status_page page;
    int bells[2];
    struct answer *answers[PEER_MAX];
    size_t n_answers;
    struct msg_model models[LIMIT_MODELS];
    uint32_t n_models;
    size_t n_events;
};

void peer_init(struct peer *p, size_t ring_bytes);
void peer_finish(struct peer *p);

/* Puts it into the request ring (it must fit), and begins its answer. */
void peer_send(struct peer *p, struct ask *a);
struct answer *peer_begin(struct peer *p, uint64_t id);     /* only the second half */
void peer_tell(struct peer *p, uint32_t type, uint64_t id); /* CANCEL, PAUSE, RESUME */
/* Takes at most `most` events. Returns how many there were. */
size_t peer_take(struct peer *p, size_t most);
struct answer *peer_answer(struct peer *p, uint64_t id);
void peer_forget_one(struct peer *p, uint64_t id);
void peer_forget(struct peer *p); /* all answers */
bool peer_all_over(const struct peer *p);
/* Text of a choice, "" when there is none. */
const char *peer_text(struct peer *p, uint64_t id, uint32_t choice);
void peer_check_same(struct peer *p, uint64_t a, uint64_t b, uint32_t choice);

#endif
