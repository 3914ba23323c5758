/* POST /v1/completions: how its choices are written. Pure but for the handler. Logprobs are four
 * columns: tokens, token_logprobs, top_logprobs, text_offset (in characters of the answer's text).
 */
#include "gateway/answer.h"
#include "gateway/api.h"
#include "shared/utf8.h"

#include <string.h>

enum { TOKENS, VALUES, TOPS, OFFSETS };

static size_t count_chars(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += ((unsigned char)s[i] & 0xC0) != 0x80;
    }
    return count;
}

static void put_tops(struct buf *b, const struct link_event *ev, size_t at)
{
    if (ev->m.token.n_top < 2) {
        buf_str(b, "null");
        return;
    }
    buf_char(b, '{');
    for (size_t i = 1; i < ev->m.token.n_top; i++) {
        const char *piece = answer_piece_bytes(ev, i, &at);
        buf_str(b, i > 1 ? "," : "");
        json_put_string(b, piece, ev->top[i].piece_bytes);
        buf_char(b, ':');
        json_put_number(b, (double)ev->top[i].logprob);
    }
    buf_char(b, '}');
}

/* The first token of an echoed prompt has no probability and comes without a piece: its text is
 * what the event shows. */
static void put_logprobs(struct answer_choice *c, const struct link_event *ev)
{
    size_t at = 0;
    bool has = ev->m.token.n_top > 0;
    size_t n = has ? ev->top[0].piece_bytes : ev->n_text;
    const char *piece = has ? answer_piece_bytes(ev, 0, &at) : ev->text;
    for (size_t k = 0; k < COUNT_OF(c->logprobs); k++) {
        buf_str(&c->logprobs[k], c->logprobs[k].len ? "," : "");
    }
    json_put_string(&c->logprobs[TOKENS], piece, n);
    if (has) {
        json_put_number(&c->logprobs[VALUES], (double)ev->top[0].logprob);
    } else {
        buf_str(&c->logprobs[VALUES], "null");
    }
    put_tops(&c->logprobs[TOPS], ev, at);
    buf_printf(&c->logprobs[OFFSETS], "%zu", c->n_chars);
    c->n_chars += count_chars(piece, n);
}

static void put_choice(struct buf *b, uint32_t index, const char *text, size_t n,
                       const struct answer_choice *logprobs, const char *finish)
{
    static const char *const columns[] = {"tokens", "token_logprobs", "top_logprobs",
                                          "text_offset"};
    buf_str(b, "{\"text\":");
    json_put_string(b, text ? text : "", n);
    buf_printf(b, ",\"index\":%u,\"logprobs\":", index);
    if (logprobs) {
        for (size_t k = 0; k < COUNT_OF(columns); k++) {
            buf_printf(b, "%c\"%s\":[", k ? ',' : '{', columns[k]);
            buf_add(b, logprobs->logprobs[k].data, logprobs->logprobs[k].len);
            buf_char(b, ']');
        }
        buf_char(b, '}');
    } else {
        buf_str(b, "null");
    }
    buf_printf(b, finish ? ",\"finish_reason\":\"%s\"}" : ",\"finish_reason\":null}", finish);
}

static void put_piece(struct buf *b, uint32_t index, enum answer_piece piece, const char *text,
                      size_t n, const struct answer_choice *logprobs, const char *finish)
{
    (void)piece; /* text, or the empty end */
    put_choice(b, index, text, n, logprobs, finish);
}

static void put_whole(struct buf *b, uint32_t index, const struct answer_choice *c,
                      bool has_logprobs, const char *finish)
{
    put_choice(b, index, c->text.data, c->text.len, has_logprobs ? c : NULL, finish);
}

static const struct answer_format format = {
    .id_prefix = "cmpl",
    .object = "text_completion",
    .chunk_object = "text_completion",
    .prompt_field = "prompt",
    .put_logprobs = put_logprobs,
    .put_piece = put_piece,
    .put_whole = put_whole,
};

void api_completions(struct exchange *x)
{
    answer_start(x, REQUEST_COMPLETIONS, &format);
}
