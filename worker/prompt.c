/* Prompts (see prompt.h). The context of a chat template is what Hugging Face's apply_chat_template
 * gives: messages, tools, add_generation_prompt, bos_token, eos_token, and the client's
 * chat_template_kwargs. Messages get the form that templates are written for: content as one string
 * where all parts are text, and the arguments of tool calls as objects (the API carries them as
 * JSON text). */
#include "worker/prompt.h"
#include "shared/json.h"
#include "shared/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Text parts joined by line ends; parts of other kinds are the template's to judge. */
static int flatten_content(json_t *message)
{
    json_t *content = json_object_get(message, "content"), *part;
    struct buf text;
    size_t i;
    if (!json_is_array(content)) {
        return 0;
    }
    buf_init(&text, 0);
    buf_str(&text, "");
    json_array_foreach(content, i, part)
    {
        const json_t *type = json_object_get(part, "type"), *s = json_object_get(part, "text");
        if (!json_is_string(s) || !json_is_string(type) ||
            strcmp(json_string_value(type), "text") != 0) {
            buf_finish(&text);
            return 0;
        }
        buf_str(&text, i ? "\n" : "");
        buf_add(&text, json_string_value(s), json_string_length(s));
    }
    json_t *flat = text.failed ? NULL : json_stringn(text.data, text.len);
    buf_finish(&text);
    return flat && json_object_set_new(message, "content", flat) == 0 ? 0 : -ENOMEM;
}

static int open_arguments(json_t *message)
{
    json_t *calls = json_object_get(message, "tool_calls"), *call;
    size_t i;
    json_array_foreach(calls, i, call)
    {
        json_t *function = json_object_get(call, "function");
        json_t *text = json_object_get(function, "arguments"), *value;
        if (!json_is_string(text)) {
            continue;
        }
        int err = json_parse(json_string_value(text), json_string_length(text), &value, NULL);
        if (err == -ENOMEM) {
            return err;
        }
        if (err < 0) {
            continue; /* a model wrote it: templates show it as it is */
        }
        if (!json_is_object(value)) {
            json_decref(value);
        } else if (json_object_set_new(function, "arguments", value) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static int adapt_messages(json_t *messages, struct err *e)
{
    json_t *message;
    size_t i;
    if (!json_is_array(messages)) {
        return err_set(e, ERR_BAD_FIELD, "messages is not an array");
    }
    json_array_foreach(messages, i, message)
    {
        int err = flatten_content(message);
        err = err < 0 ? err : open_arguments(message);
        if (err < 0) {
            return err;
        }
    }
    return 0;
}

/* Fills the context; messages is borrowed, args may be NULL. */
static int fill_context(const struct model *m, json_t *messages, json_t *args, json_t *context)
{
    json_t *kwargs = json_object_get(args, "chat_template_kwargs");
    json_t *tools = json_object_get(args, "tools");
    bool ok = !json_is_object(kwargs) || json_object_update(context, kwargs) == 0;
    ok = ok && json_object_set(context, "messages", messages) == 0;
    ok = ok && (!tools || json_object_set(context, "tools", tools) == 0);
    ok = ok && json_object_set_new(context, "add_generation_prompt", json_true()) == 0;
    /* Token texts may be any bytes; jansson refuses what is not UTF-8, and then there is none. */
    const char *bos = m->bos_text ? m->bos_text : "", *eos = m->eos_text ? m->eos_text : "";
    json_object_set_new(context, "bos_token", json_string(bos));
    json_object_set_new(context, "eos_token", json_string(eos));
    return ok ? 0 : -ENOMEM;
}

static int render(struct request *r, int64_t now_unix_s, struct buf *ret, struct err *e)
{
    const struct model *m = r->model;
    if (!m->template) {
        return err_set(e, ERR_NO_TEMPLATE, "model %s", m->name);
    }
    json_t *messages = NULL, *args = NULL, *context = json_object();
    int err = context ? 0 : -ENOMEM;
    if (err == 0) {
        err = json_parse(r->messages.data, r->messages.n, &messages, e);
    }
    if (err == 0 && r->template_args.data) {
        err = json_parse(r->template_args.data, r->template_args.n, &args, e);
    }
    if (err == 0) {
        err = adapt_messages(messages, e);
    }
    if (err == 0) {
        err = fill_context(m, messages, args, context);
    }
    if (err == 0) {
        err = template_render(m->template, context, now_unix_s, ret, e);
    }
    json_decref(messages);
    json_decref(args);
    json_decref(context);
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
