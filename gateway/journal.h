/* The live requests: what was submitted, every token id that came back, and what the worker may say
 * next. It lives in memory only (design: requests are replayable; there is no journal on disk) and
 * is enough to give a request to a new worker: payload and ids. To the owner of a request a new
 * worker goes on where the dead one ended: what was heard before is not heard again.
 *
 * Every event is checked here before anybody acts on it: an unknown request, a choice or position
 * out of turn, a token after the end is a breach of the protocol. Pure, no I/O. */
#ifndef GATEWAY_JOURNAL_H
#define GATEWAY_JOURNAL_H

#include "ipc/msg.h"
#include "shared/buf.h"
#include "shared/err.h"
#include "shared/hash.h"

struct link_event;

struct journal_choice {
    int32_t *ids; /* owned: sampled so far */
    uint32_t n, cap;
    uint32_t n_echoed;        /* prompt tokens reported (MSG_ECHO) by this worker */
    uint32_t n_echoed_before; /* and at most by those before it */
    uint32_t n_trial;         /* n, when its trial began (trial.c) */
    uint32_t n_tokens;        /* as FINISH said */
    bool is_finished;
};

struct journal_entry {
    uint64_t id;            /* 0: free */
    uint32_t type;          /* MSG_GENERATE or MSG_TEXT */
    struct msg_model model; /* that it runs on */
    struct buf payload;     /* owned */
    /* From the payload: */
    uint32_t flags, choice_base, n_choices, n_top;
    uint32_t max_tokens; /* that a choice may have */
    /* What the worker said: */
    bool is_started, was_started;   /* this worker began it; any did */
    uint32_t n_prompt, n_cached;    /* as the first STARTED said */
    uint64_t result_bytes;          /* TEXT: of RESULTs from this worker */
    uint64_t result_bytes_before;   /* and at most from those before it */
    struct journal_choice *choices; /* owned; n_choices */
    uint64_t since_ms;              /* clock_ms when it was submitted */
    uint64_t first_ns;              /* clock_ns at its first sampled token; 0 none yet */
    bool is_interrupted;            /* a worker died after that */
    /* After the death of its worker: */
    struct buf replay; /* owned; what is sent in place of payload; empty: payload */
    uint64_t waits_ms; /* since when it gets nothing because of a worker's death; 0 it does not */
    bool is_forced;    /* some ids are those of another numeric profile */
    bool is_suspect;   /* was in flight when a worker died by its own fault */
    bool is_left;      /* a suspect that nobody waits for: it stays until it is judged */
    bool is_held;      /* waits while another is on trial */
    /* What the worker is to know and knows, kept by link.c: */
    bool is_sent, is_bulk_passed;
    bool wants_cancel, is_cancelled;
    bool wants_pause, is_paused;
    bool is_in_outbox;
    struct journal_entry *next_out;
    struct journal_entry *older, *newer; /* among the live ones, kept by journal.c */
    void (*on_event)(void *owner, uint64_t id, const struct link_event *ev);
    void *owner; /* borrowed */
};

struct journal {
    struct journal_entry *entries; /* owned; LIMIT_LIVE_REQUESTS */
    struct journal_entry *oldest, *newest;
    size_t n_live;
    size_t payload_bytes;
    uint64_t n_ever;
};

void journal_init(struct journal *j);
void journal_finish(struct journal *j);

/* Takes the payload (of MSG_GENERATE or MSG_TEXT, well-formed) on success and writes the new id
 * into it. Errors: ERR_BUSY (too many, or too large together), -ENOMEM. */
MUST_CHECK int journal_add(struct journal *j, uint32_t type, struct buf *payload,
                           const struct msg_model *model, struct journal_entry **ret);
void journal_remove(struct journal *j, struct journal_entry *en);
struct journal_entry *journal_find(const struct journal *j, uint64_t id); /* NULL: not live */
/* The ids of the live ones in order of arrival; returns their number. For walks on which requests
 * may end, whoever's they are. */
size_t journal_ids(const struct journal *j, uint64_t ret[LIMIT_LIVE_REQUESTS]);

enum { JOURNAL_GOES_ON, JOURNAL_ENDS, JOURNAL_KNOWN };

/* May the worker say this now? The record has passed msg_check. Notes it. Returns JOURNAL_ENDS when
 * it ends the request, JOURNAL_KNOWN when its owner heard it before, JOURNAL_GOES_ON otherwise;
 * with the reason in e: ERR_PROTOCOL, and what fails the request alone: ERR_REPLAY_DIVERGENCE,
 * -ENOMEM. */
MUST_CHECK int journal_note(struct journal_entry *en, uint32_t type, const void *payload,
                            struct err *e);

/* Its worker is gone: the request is as if never sent, but for what its owner has heard. */
void journal_rewind(struct journal_entry *en);

/* Makes it ready for a worker that serves this model: the ids so far join the payload. Errors:
 * ERR_MODEL_CHANGED, -ENOMEM, with words in e. */
MUST_CHECK int journal_replay(struct journal_entry *en, const struct msg_model *model,
                              struct err *e);

/* Which of its time limits a request has passed (ERR_*_TIMEOUT); 0 none. The worker minds them
 * where there is one. */
int journal_overdue(const struct journal_entry *en, uint64_t now_ms);

/* SHA-256 of the payload without id and seed: the same request sent again has the same. */
void journal_digest(uint32_t type, const struct buf *payload, uint8_t ret[HASH_SHA256_BYTES]);

#endif
