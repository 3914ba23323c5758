/* What the model is to read: prompts, token ids, chat messages. Pure; runs on the gateway's loop.
 */
#include "gateway/prompt.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int read_ids(const json_t *ids, const char *param, struct request_err *e)
{
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *v = json_array_get(ids, i);
        json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || id > INT32_MAX) {
            char place[REQUEST_PARAM_BYTES];
            snprintf(place, sizeof(place), "%.32s[%zu]", param, i);
            return request_refuse(e, place, "is not a token id");
        }
    }
    return 0;
}

/* A string, token ids, or an array of those. */
int prompt_read(struct request *r, const json_t *v, struct request_err *e)
{
    r->prompt = v;
    r->n_prompts = 1;
    if (json_is_string(v)) {
        return 0;
    }
    if (!json_is_array(v) || json_array_size(v) == 0) {
        return request_refuse(e, "prompt",
                              "is not a string, an array of token ids, or an array "
                              "of those");
    }
    if (json_is_integer(json_array_get(v, 0))) {
        return read_ids(v, "prompt", e);
    }
    r->n_prompts = json_array_size(v);
    if (r->n_prompts > LIMIT_PROMPTS) {
        return request_refuse(e, "prompt", "has %zu prompts, allowed %d", r->n_prompts,
                              LIMIT_PROMPTS);
    }
    for (size_t i = 0; i < r->n_prompts; i++) {
        const json_t *one = json_array_get(v, i);
        char place[REQUEST_PARAM_BYTES];
        snprintf(place, sizeof(place), "prompt[%zu]", i);
        if (json_is_string(one)) {
            continue;
        }
        if (!json_is_array(one) || json_array_size(one) == 0) {
            return request_refuse(e, place, "is neither a string nor token ids");
        }
        int rc = read_ids(one, place, e);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

int prompt_read_tokens(struct request *r, const json_t *v, struct request_err *e)
{
    if (!json_is_array(v)) {
        return request_refuse(e, "tokens", "is not an array of token ids");
    }
    r->prompt = v;
    r->n_prompts = 1;
    return read_ids(v, "tokens", e);
}

/* Content as templates can print it: one string. Parts are joined by line breaks, as vLLM and
 * llama-server do for templates that know only strings. */
static int put_content(struct buf *out, const json_t *v, const char *place, struct request_err *e)
{
    if (!v || json_is_null(v)) {
        buf_str(out, "\"\""); /* a naive template would print None */
        return 0;
    }
    if (json_is_string(v)) {
        json_put_string(out, json_string_value(v), json_string_length(v));
        return 0;
    }
    if (!json_is_array(v)) {
        return request_refuse(e, place, "is neither a string nor an array of parts");
    }
    struct buf text;
    buf_init(&text, LIMIT_BODY_BYTES);
    int rc = 0;
    for (size_t i = 0; i < json_array_size(v) && rc == 0; i++) {
        const json_t *part = json_array_get(v, i);
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *s = json_object_get(part, "text");
        char at[REQUEST_PARAM_BYTES];
        snprintf(at, sizeof(at), "%.40s[%zu]", place, i);
        if (!type || strcmp(type, "text") != 0) {
            rc = request_refuse(e, at, "has a type that is not supported; only 'text' is");
        } else if (!json_is_string(s)) {
            rc = request_refuse(e, at, "has no text");
        } else {
            if (i) {
                buf_char(&text, '\n');
            }
            buf_add(&text, json_string_value(s), json_string_length(s));
        }
    }
    if (rc == 0) {
        json_put_string(out, text.data ? text.data : "", text.len);
        out->failed |= text.failed;
    }
    buf_finish(&text);
    return rc;
}

/* One message: role and content in their places, everything else passed on for the template. */
static int put_message(struct buf *out, const json_t *m, size_t i, struct request_err *e)
{
    char place[REQUEST_PARAM_BYTES];
    snprintf(place, sizeof(place), "messages[%zu]", i);
    if (!json_is_object(m)) {
        return request_refuse(e, place, "is not an object");
    }
    const json_t *role = json_object_get(m, "role");
    size_t n_role = json_is_string(role) ? json_string_length(role) : 0;
    if (n_role < 1 || n_role > 64) {
        snprintf(place, sizeof(place), "messages[%zu].role", i);
        return request_refuse(e, place, "is not a string of 1 to 64 bytes");
    }
    buf_str(out, i ? ",{\"role\":" : "{\"role\":");
    json_put_value(out, role);
    buf_str(out, ",\"content\":");
    snprintf(place, sizeof(place), "messages[%zu].content", i);
    int rc = put_content(out, json_object_get(m, "content"), place, e);
    if (rc < 0) {
        return rc;
    }
    json_t *object = (json_t *)(uintptr_t)m; /* jansson's iterators know no const */
    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
        const char *key = json_object_iter_key(it);
        const json_t *v = json_object_iter_value(it);
        if (strcmp(key, "role") != 0 && strcmp(key, "content") != 0 && !json_is_null(v)) {
            buf_char(out, ',');
            json_put_string(out, key, strlen(key));
            buf_char(out, ':');
            json_put_value(out, v);
        }
    }
    buf_char(out, '}');
    return 0;
}

int prompt_read_messages(struct request *r, const json_t *v, struct request_err *e)
{
    size_t n = json_array_size(v);
    if (!json_is_array(v) || n == 0) {
        return request_refuse(e, "messages", "is not an array of at least one message");
    }
    if (n > LIMIT_MESSAGES) {
        return request_refuse(e, "messages", "has %zu messages, allowed %d", n, LIMIT_MESSAGES);
    }
    buf_char(&r->messages, '[');
    for (size_t i = 0; i < n; i++) {
        int rc = put_message(&r->messages, json_array_get(v, i), i, e);
        if (rc < 0) {
            return rc;
        }
    }
    buf_char(&r->messages, ']');
    r->n_prompts = 1;
    return r->messages.failed ? err_set(&e->err, -ENOMEM, "while reading messages") : 0;
}

int prompt_read_tools(struct request *r, const json_t *v, struct request_err *e)
{
    if (!json_is_array(v)) {
        return request_refuse(e, "tools", "is not an array");
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (!json_is_object(json_array_get(v, i))) {
            char place[REQUEST_PARAM_BYTES];
            snprintf(place, sizeof(place), "tools[%zu]", i);
            return request_refuse(e, place, "is not an object");
        }
    }
    r->tools = v;
    return 0;
}

int prompt_read_kwargs(struct request *r, const json_t *v, struct request_err *e)
{
    if (!json_is_object(v)) {
        return request_refuse(e, "chat_template_kwargs", "is not an object");
    }
    r->template_kwargs = v;
    return 0;
}

static void put_ids(struct buf *ret, const json_t *ids)
{
    struct buf flat;
    buf_init(&flat, 0);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        int32_t id = (int32_t)json_integer_value(json_array_get(ids, i));
        buf_add(&flat, &id, sizeof(id));
    }
    msg_put_section(ret, MSG_PROMPT_IDS, 0, flat.data, flat.len);
    ret->failed |= flat.failed;
    buf_finish(&flat);
}

/* Appends the section, if there is anything to say; returns how many. */
static uint32_t put_template_args(const struct request *r, struct buf *ret)
{
    if (!r->tools && !r->template_kwargs && r->opens_answer) {
        return 0;
    }
    struct buf args;
    buf_init(&args, LIMIT_BULK_BYTES / 2);
    buf_printf(&args, "{\"add_generation_prompt\":%s", r->opens_answer ? "true" : "false");
    if (r->tools) {
        buf_str(&args, ",\"tools\":");
        json_put_value(&args, r->tools);
    }
    if (r->template_kwargs) {
        buf_str(&args, ",\"chat_template_kwargs\":");
        json_put_value(&args, r->template_kwargs);
    }
    buf_char(&args, '}');
    msg_put_section(ret, MSG_TEMPLATE_ARGS, 0, args.data, args.len);
    ret->failed |= args.failed;
    buf_finish(&args);
    return 1;
}

void prompt_encode(const struct request *r, size_t i, struct buf *ret, uint32_t *n_sections)
{
    *n_sections = 1;
    if (r->messages.len) {
        msg_put_section(ret, MSG_MESSAGES, 0, r->messages.data, r->messages.len);
        *n_sections += put_template_args(r, ret);
        return;
    }
    const json_t *p = r->prompt;
    if (json_is_array(p) && !json_is_integer(json_array_get(p, 0)) && json_array_size(p) > 0) {
        p = json_array_get(p, i);
    }
    if (json_is_string(p)) {
        msg_put_section(ret, MSG_PROMPT_TEXT, 0, json_string_value(p), json_string_length(p));
    } else {
        put_ids(ret, p);
    }
}
