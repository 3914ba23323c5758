/* The live requests: what was submitted, every token id that came back, and what the worker may say
 * next. It lives in memory only (design: requests are replayable; there is no journal on disk) and
 * is enough to give a request to a new worker: payload and ids.
 *
 * Every event is checked here before anybody acts on it: an unknown request, a choice or position
 * out of turn, a token after the end is a breach of the protocol. Pure, no I/O. */
#ifndef GATEWAY_JOURNAL_H
#define GATEWAY_JOURNAL_H

#include "ipc/msg.h"
#include "shared/buf.h"
#include "shared/err.h"

struct link_event;

struct journal_choice {
    int32_t *ids; /* owned: sampled so far */
    uint32_t n, cap;
    uint32_t n_echoed; /* prompt tokens reported (MSG_ECHO) */
    uint32_t n_tokens; /* as FINISH said */
    bool is_finished;
};

struct journal_entry {
    uint64_t id;   /* 0: free */
    uint32_t type; /* MSG_GENERATE or MSG_TEXT */
    uint32_t n_vocab, n_ctx;
    struct buf payload; /* owned */
    /* From the payload: */
    uint32_t flags, choice_base, n_choices, n_top, max_tokens;
    /* What the worker said: */
    bool is_started;
    uint32_t n_prompt;
    struct journal_choice *choices; /* owned; n_choices */
    /* What the worker is to know and knows, kept by link.c: */
    bool is_sent, is_bulk_passed;
    bool wants_cancel, is_cancelled;
    bool wants_pause, is_paused;
    bool is_in_outbox;
    struct journal_entry *next_out;
    void (*on_event)(void *owner, uint64_t id, const struct link_event *ev);
    void *owner; /* borrowed */
};

struct journal {
    struct journal_entry *entries; /* owned; LIMIT_LIVE_REQUESTS */
    size_t n_live;
    size_t payload_bytes;
    uint64_t n_ever;
};

void journal_init(struct journal *j);
void journal_finish(struct journal *j);

/* Takes the payload (of MSG_GENERATE or MSG_TEXT, well-formed) on success and writes the new id
 * into it. Errors: ERR_BUSY (too many, or too large together), -ENOMEM. */
MUST_CHECK int journal_add(struct journal *j, uint32_t type, struct buf *payload, uint32_t n_vocab,
                           uint32_t n_ctx, struct journal_entry **ret);
void journal_remove(struct journal *j, struct journal_entry *en);
struct journal_entry *journal_find(const struct journal *j, uint64_t id); /* NULL: not live */

/* May the worker say this now? The record has passed msg_check. Notes it. Returns 1 when it ends
 * the request, 0 otherwise, ERR_PROTOCOL with the reason in e, -ENOMEM. */
MUST_CHECK int journal_note(struct journal_entry *en, uint32_t type, const void *payload,
                            struct err *e);

#endif
