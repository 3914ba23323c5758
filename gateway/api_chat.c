/* POST /v1/chat/completions: how its choices are written. Pure but for the handler. */
#include "gateway/answer.h"
#include "gateway/api.h"

#include <string.h>

static void put_entry(struct buf *b, const struct link_event *ev, size_t i, size_t *at)
{
    size_t n = ev->top[i].piece_bytes;
    const char *piece = answer_piece_bytes(ev, i, at);
    buf_str(b, "{\"token\":");
    json_put_string(b, piece, n);
    buf_str(b, ",\"logprob\":");
    json_put_number(b, (double)ev->top[i].logprob);
    buf_str(b, ",\"bytes\":[");
    for (size_t k = 0; k < n; k++) {
        buf_printf(b, k ? ",%u" : "%u", (unsigned char)piece[k]);
    }
    buf_char(b, ']');
}

static void put_logprobs(struct answer_choice *c, const struct link_event *ev)
{
    struct buf *b = &c->logprobs[0];
    size_t at = 0;
    if (ev->m.token.n_top == 0) {
        return;
    }
    buf_str(b, b->len ? "," : "");
    put_entry(b, ev, 0, &at);
    buf_str(b, ",\"top_logprobs\":[");
    for (size_t i = 1; i < ev->m.token.n_top; i++) {
        buf_str(b, i > 1 ? "," : "");
        put_entry(b, ev, i, &at);
        buf_char(b, '}');
    }
    buf_str(b, "]}");
}

static void put_content(struct buf *b, const struct answer_choice *c)
{
    buf_str(b, "{\"content\":[");
    buf_add(b, c->logprobs[0].data, c->logprobs[0].len);
    buf_str(b, "]}");
}

static void put_end(struct buf *b, const struct answer_choice *logprobs, const char *finish)
{
    buf_str(b, ",\"logprobs\":");
    if (logprobs) {
        put_content(b, logprobs);
    } else {
        buf_str(b, "null");
    }
    buf_printf(b, finish ? ",\"finish_reason\":\"%s\"}" : ",\"finish_reason\":null}", finish);
}

static void put_piece(struct buf *b, uint32_t index, enum answer_piece piece, const char *text,
                      size_t n, const struct answer_choice *logprobs, const char *finish)
{
    buf_printf(b, "{\"index\":%u,\"delta\":{", index);
    if (piece == ANSWER_BEGIN) {
        buf_str(b, "\"role\":\"assistant\",\"content\":\"\"");
    } else if (piece == ANSWER_TEXT) {
        buf_str(b, "\"content\":");
        json_put_string(b, text, n);
    } else if (piece == ANSWER_REASONING) {
        buf_str(b, "\"reasoning_content\":");
        json_put_string(b, text, n);
    } else if (piece == ANSWER_CALL) {
        buf_str(b, "\"tool_calls\":[");
        buf_add(b, text, n);
        buf_char(b, ']');
    }
    buf_char(b, '}');
    put_end(b, logprobs, finish);
}

static void put_whole(struct buf *b, uint32_t index, const struct answer_choice *c,
                      bool has_logprobs, const char *finish)
{
    buf_printf(b, "{\"index\":%u,\"message\":{\"role\":\"assistant\",\"content\":", index);
    if (c->n_calls > 0 && c->text.len == 0) {
        buf_str(b, "null");
    } else {
        json_put_string(b, c->text.data ? c->text.data : "", c->text.len);
    }
    if (c->reasoning.len) {
        buf_str(b, ",\"reasoning_content\":");
        json_put_string(b, c->reasoning.data, c->reasoning.len);
    }
    if (c->n_calls > 0) {
        buf_str(b, ",\"tool_calls\":[");
        buf_add(b, c->calls.data, c->calls.len);
        buf_char(b, ']');
    }
    buf_char(b, '}');
    put_end(b, has_logprobs ? c : NULL, finish);
}

static const struct answer_format format = {
    .id_prefix = "chatcmpl",
    .object = "chat.completion",
    .chunk_object = "chat.completion.chunk",
    .prompt_field = "messages",
    .has_begin = true,
    .put_logprobs = put_logprobs,
    .put_piece = put_piece,
    .put_whole = put_whole,
};

void api_chat(struct exchange *x)
{
    answer_start(x, REQUEST_CHAT, &format);
}
