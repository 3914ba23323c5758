/* Prompts (see prompt.h): of text, of ids, of chats through the model's template. */
#include "worker/prompt.h"
#include "shared/json.h"
#include "shared/utf8.h"
#include "worker/template_chat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int render(struct request *r, int64_t now_unix_s, struct buf *ret, struct err *e)
{
    const struct model *m = r->model;
    if (!m->template) {
        return err_set(e, ERR_NO_TEMPLATE, "model %s", m->name);
    }
    json_t *messages = NULL, *args = NULL;
    int err = json_parse(r->messages.data, r->messages.n, &messages, e);
    if (err == 0 && r->template_args.data) {
        err = json_parse(r->template_args.data, r->template_args.n, &args, e);
    }
    if (err == 0) {
        err = template_chat_render(m->template, messages, args, m->bos_text, m->eos_text,
                                   now_unix_s, ret, e);
    }
    json_decref(messages);
    json_decref(args);
    return err;
}

static int encode(const struct request *r, const char *text, size_t n, unsigned flags,
                  struct buf *ret, struct err *e)
{
    if (!r->model->tokenizer) {
        return err_set(e, ERR_NO_TOKENIZER, "model %s", r->model->name);
    }
    return tokenizer_encode(r->model->tokenizer, text, n, flags, ret);
}

static int check_ids(const struct request *r, int64_t n_allowed, struct err *e)
{
    const int32_t *ids = r->prompt_ids.data;
    for (size_t i = 0; i < r->prompt_ids.n; i++) {
        if (ids[i] < 0 || ids[i] >= n_allowed) {
            return err_set(e, ERR_BAD_TOKEN, "token %d at %zu; the vocabulary has %lld", ids[i], i,
                           (long long)n_allowed);
        }
    }
    return 0;
}

static int chat_ids(struct request *r, int64_t now_unix_s, struct buf *ids, struct err *e)
{
    struct buf text;
    buf_init(&text, LIMIT_TEMPLATE_OUTPUT_BYTES);
    int err = render(r, now_unix_s, &text, e);
    if (err == 0) { /* the template writes control tokens as text; a BOS it wrote is not doubled */
        err = encode(r, text.data ? text.data : "", text.len,
                     TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, ids, e);
    }
    buf_finish(&text);
    return err;
}

int prompt_make(struct request *r, int64_t now_unix_s, struct err *e)
{
    struct buf ids;
    buf_init(&ids, 0);
    int err;
    if (r->messages.data) {
        err = chat_ids(r, now_unix_s, &ids, e);
    } else if (r->prompt_text.data) {
        unsigned parse = r->generate.flags & MSG_PARSE_SPECIAL ? TOKENIZER_PARSE_SPECIAL : 0;
        err = encode(r, r->prompt_text.data, r->prompt_text.n, TOKENIZER_ADD_SPECIAL | parse, &ids,
                     e);
    } else {
        err = check_ids(r, r->model->n_vocab, e);
        buf_add(&ids, r->prompt_ids.data, r->prompt_ids.n * sizeof(int32_t));
    }
    if (err == 0 && ids.failed) {
        err = -ENOMEM;
    }
    if (err < 0) {
        buf_finish(&ids);
        return err;
    }
    r->prompt = (int32_t *)(void *)ids.data;
    r->n_prompt = (int64_t)(ids.len / sizeof(int32_t));
    return 0;
}

/* Token ids may cut characters: what goes out is UTF-8 all the same. */
static int detokenize(struct request *r, struct err *e)
{
    const struct tokenizer *t = r->model->tokenizer;
    if (!t) {
        return err_set(e, ERR_NO_TOKENIZER, "model %s", r->model->name);
    }
    int err = check_ids(r, tokenizer_size(t), e);
    if (err < 0) {
        return err;
    }
    struct buf text;
    buf_init(&text, LIMIT_BULK_BYTES);
    err = tokenizer_decode(t, r->prompt_ids.data, r->prompt_ids.n, true, &text);
    if (err == 0) {
        char *repaired = malloc(3 * text.len + 1);
        if (repaired) {
            buf_add(&r->result, repaired, utf8_repair(text.data, text.len, repaired));
            free(repaired);
        } else {
            err = -ENOMEM;
        }
    }
    buf_finish(&text);
    return err;
}

int prompt_text_op(struct request *r, int64_t now_unix_s, struct err *e)
{
    int err;
    switch (r->text.op) {
    case MSG_TOKENIZE:
        err = encode(r, r->prompt_text.data, r->prompt_text.n,
                     (r->text.add_special ? TOKENIZER_ADD_SPECIAL : 0u) |
                         (r->text.parse_special ? TOKENIZER_PARSE_SPECIAL : 0u),
                     &r->result, e);
        break;
    case MSG_DETOKENIZE:
        err = detokenize(r, e);
        break;
    default:
        err = render(r, now_unix_s, &r->result, e);
        break;
    }
    return err == 0 && r->result.failed ? err_set(e, -ENOMEM, "the result is too large") : err;
}
