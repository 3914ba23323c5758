/* A generation on its way to the client: what /v1/completions and /v1/chat/completions have in
 * common. One answer may hold several requests to the worker (one a prompt), each with several
 * choices. The two APIs differ in a format: how ids begin and how choices are written. */
#ifndef GATEWAY_ANSWER_H
#define GATEWAY_ANSWER_H

#include "gateway/exchange.h"
#include "gateway/link.h"
#include "gateway/request.h"
#include "gateway/splitter.h"

struct answer_choice {
    /* Owned: all of it, when the answer is not streamed; calls: JSON, joined by commas. */
    struct buf text, reasoning, calls;
    struct splitter splitter;
    uint32_t n_calls;
    /* Logprobs of tokens: all, or those whose text has not been shown yet. Chat keeps entries in
     * the first, completions uses all four columns. JSON, joined by commas. */
    struct buf logprobs[4];
    size_t n_logprobs;
    size_t n_chars; /* of pieces so far: text_offset */
    bool has_begun, is_finished, is_shown;
    float mean_logprob; /* of its tokens, where several compete */
    uint32_t finish;    /* enum msg_finish_reason */
};

/* What a piece of a stream says. */
enum answer_piece { ANSWER_BEGIN, ANSWER_TEXT, ANSWER_REASONING, ANSWER_CALL, ANSWER_FINISH };

struct answer_format {
    const char *id_prefix, *object, *chunk_object;
    const char *prompt_field; /* that errors of the prompt name */
    bool has_begin;           /* the first piece of a choice is ANSWER_BEGIN */
    /* Appends a token's logprobs to the choice's buffers. */
    void (*put_logprobs)(struct answer_choice *c, const struct link_event *ev);
    /* Appends one element of "choices". logprobs: write the choice's buffers, else null. */
    void (*put_piece)(struct buf *b, uint32_t index, enum answer_piece piece, const char *text,
                      size_t n, const struct answer_choice *logprobs, const char *finish);
    void (*put_whole)(struct buf *b, uint32_t index, const struct answer_choice *c,
                      bool has_logprobs, const char *finish);
};

/* Parses the request's body, submits it, answers. */
void answer_start(struct exchange *x, enum request_api api, const struct answer_format *format);

/* In the metrics. */
void answer_count_done(const struct msg_done *d);

/* A logprob entry's place in the pieces; advances. Returns the piece's bytes. */
const char *answer_piece_bytes(const struct link_event *ev, size_t i, size_t *at);

#endif
