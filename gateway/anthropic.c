/* Messages to chats (see anthropic.h). Pure; fuzzed with request.c. What is of the right kind in
 * both forms is passed on unlooked at: request.c judges it. */
#include "gateway/anthropic.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int no_memory(struct request_err *e)
{
    return err_set(&e->err, -ENOMEM, "while reading messages");
}

/* A value that lives elsewhere joins the object. */
static int put(json_t *object, const char *key, const json_t *v, struct request_err *e)
{
    return json_object_set(object, key, (json_t *)(uintptr_t)v) < 0 ? no_memory(e) : 0;
}

/* A new value joins the object; NULL: there was no memory. */
static int put_new(json_t *object, const char *key, json_t *v, struct request_err *e)
{
    return json_object_set_new(object, key, v) < 0 ? no_memory(e) : 0;
}

static int append_new(json_t *array, json_t *v, struct request_err *e)
{
    return json_array_append_new(array, v) < 0 ? no_memory(e) : 0;
}

static bool has_type(const json_t *block, const char *type)
{
    const char *t = json_string_value(json_object_get(block, "type"));
    return t && strcmp(t, type) == 0;
}

static int unsupported(struct request_err *e, const char *place)
{
    return request_unsupported(e, place, "has a type that is not supported");
}

/* A string, or an array of text blocks: one string. */
static int flatten(const json_t *v, const char *place, json_t **ret, struct request_err *e)
{
    struct buf text;
    int rc = 0;
    if (json_is_string(v)) {
        *ret = json_incref((json_t *)(uintptr_t)v);
        return 0;
    }
    if (v && !json_is_array(v)) {
        return request_refuse(e, place, "is neither a string nor an array of blocks");
    }
    buf_init(&text, LIMIT_BODY_BYTES);
    buf_str(&text, "");
    for (size_t i = 0; i < json_array_size(v) && rc == 0; i++) {
        const json_t *block = json_array_get(v, i), *s = json_object_get(block, "text");
        char at[REQUEST_PARAM_BYTES];
        snprintf(at, sizeof(at), "%.48s[%zu]", place, i);
        rc = !has_type(block, "text") ? unsupported(e, at)
             : json_is_string(s)      ? 0
                                      : request_refuse(e, at, "has no text");
        buf_str(&text, i ? "\n" : "");
        buf_add(&text, json_string_value(s), json_string_length(s));
    }
    *ret = rc < 0 || text.failed ? NULL : json_stringn(text.data, text.len);
    buf_finish(&text);
    return rc < 0 ? rc : *ret ? 0 : no_memory(e);
}

/* {"role", "content"}; takes content. */
static json_t *new_message(const char *role, json_t *content)
{
    return json_pack("{ss, so}", "role", role, "content", content);
}

static int add_tool_use(const json_t *block, const char *place, json_t *calls,
                        struct request_err *e)
{
    const json_t *id = json_object_get(block, "id"), *name = json_object_get(block, "name");
    const json_t *input = json_object_get(block, "input");
    struct buf text;
    if (!json_is_string(id) || !json_is_string(name) || !json_is_object(input)) {
        return request_refuse(e, place, "lacks id, name or input");
    }
    buf_init(&text, LIMIT_BODY_BYTES);
    json_put_value(&text, input);
    json_t *arguments = text.failed ? NULL : json_stringn(text.data, text.len);
    buf_finish(&text);
    return append_new(calls,
                      json_pack("{sO, ss, s{sO, so}}", "id", id, "type", "function", "function",
                                "name", name, "arguments", arguments),
                      e);
}

static int add_tool_result(const json_t *block, const char *place, json_t *out,
                           struct request_err *e)
{
    const json_t *id = json_object_get(block, "tool_use_id");
    json_t *content = NULL;
    int rc = json_is_string(id) ? flatten(json_object_get(block, "content"), place, &content, e)
                                : request_refuse(e, place, "lacks tool_use_id");
    return rc < 0 ? rc
                  : append_new(out,
                               json_pack("{ss, sO, so}", "role", "tool", "tool_call_id", id,
                                         "content", content),
                               e);
}

/* One message of blocks: what tools gave comes first, as messages of their own. */
static int add_blocks(const json_t *blocks, const char *role, size_t i, json_t *out,
                      struct request_err *e)
{
    json_t *texts = json_array(), *calls = json_array(), *content = NULL;
    bool is_answer = strcmp(role, "assistant") == 0;
    int rc = texts && calls ? 0 : no_memory(e);
    for (size_t k = 0; k < json_array_size(blocks) && rc == 0; k++) {
        const json_t *b = json_array_get(blocks, k);
        char place[REQUEST_PARAM_BYTES];
        snprintf(place, sizeof(place), "messages[%zu].content[%zu]", i, k);
        if (has_type(b, "text")) {
            rc = json_array_append(texts, (json_t *)(uintptr_t)b) < 0 ? no_memory(e) : 0;
        } else if (is_answer && has_type(b, "tool_use")) {
            rc = add_tool_use(b, place, calls, e);
        } else if (!is_answer && has_type(b, "tool_result")) {
            rc = add_tool_result(b, place, out, e);
        } else if (!is_answer || (!has_type(b, "thinking") && !has_type(b, "redacted_thinking"))) {
            rc = unsupported(e, place);
        }
    }
    bool has_calls = json_array_size(calls) > 0;
    if (rc == 0 && (json_array_size(texts) > 0 || has_calls || is_answer)) {
        char place[REQUEST_PARAM_BYTES];
        snprintf(place, sizeof(place), "messages[%zu].content", i);
        rc = flatten(texts, place, &content, e);
        json_t *m = rc == 0 ? new_message(role, content) : NULL;
        rc = rc == 0 && has_calls ? put(m, "tool_calls", calls, e) : rc;
        rc = rc < 0 ? rc : append_new(out, json_incref(m), e);
        json_decref(m);
    }
    json_decref(texts);
    json_decref(calls);
    return rc;
}

static int add_messages(const json_t *messages, json_t *out, struct request_err *e)
{
    int rc = json_is_array(messages) ? 0 : request_refuse(e, "messages", "is not an array");
    for (size_t i = 0; i < json_array_size(messages) && rc == 0; i++) {
        const json_t *m = json_array_get(messages, i), *content = json_object_get(m, "content");
        const char *role = json_string_value(json_object_get(m, "role"));
        char place[REQUEST_PARAM_BYTES];
        snprintf(place, sizeof(place), "messages[%zu]", i);
        if (!role || (strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0)) {
            rc = request_refuse(e, place, "has a role that is neither user nor assistant");
        } else if (json_is_array(content)) {
            rc = add_blocks(content, role, i, out, e);
        } else {
            rc = append_new(out, json_incref((json_t *)(uintptr_t)m), e);
        }
    }
    return rc;
}

static int put_messages(const json_t *in, json_t *out, struct request_err *e)
{
    const json_t *system = json_object_get(in, "system");
    json_t *list = json_array(), *text = NULL;
    int rc = list ? 0 : no_memory(e);
    if (rc == 0 && system && !json_is_null(system)) {
        rc = flatten(system, "system", &text, e);
        rc = rc < 0 ? rc : append_new(list, new_message("system", text), e);
    }
    rc = rc < 0 ? rc : add_messages(json_object_get(in, "messages"), list, e);
    rc = rc < 0 ? rc : put(out, "messages", list, e);
    json_decref(list);
    return rc;
}

static int put_tools(const json_t *in, json_t *out, struct request_err *e)
{
    const json_t *tools = json_object_get(in, "tools");
    json_t *list = json_array();
    int rc = !list                            ? no_memory(e)
             : tools && !json_is_array(tools) ? request_refuse(e, "tools", "is not an array")
                                              : 0;
    for (size_t i = 0; i < json_array_size(tools) && rc == 0; i++) {
        const json_t *t = json_array_get(tools, i), *schema = json_object_get(t, "input_schema");
        const json_t *name = json_object_get(t, "name");
        const json_t *about = json_object_get(t, "description");
        char place[REQUEST_PARAM_BYTES];
        snprintf(place, sizeof(place), "tools[%zu]", i);
        if (!json_is_string(name) || !json_is_object(schema)) {
            rc = request_refuse(e, place, "lacks name or input_schema");
            break;
        }
        json_t *f = json_pack("{sO, sO}", "name", name, "parameters", schema);
        rc = f && about ? put(f, "description", about, e) : 0;
        rc = rc < 0 ? rc
                    : append_new(list, json_pack("{ss, sO}", "type", "function", "function", f), e);
        json_decref(f);
    }
    rc = rc == 0 && json_array_size(list) > 0 ? put(out, "tools", list, e) : rc;
    json_decref(list);
    return rc;
}

static int put_tool_choice(const json_t *in, json_t *out, struct request_err *e)
{
    const json_t *v = json_object_get(in, "tool_choice");
    if (!v || json_is_null(v)) {
        return 0;
    }
    if (has_type(v, "tool")) {
        const json_t *name = json_object_get(v, "name");
        return json_is_string(name)
                   ? put_new(out, "tool_choice",
                             json_pack("{ss, s{sO}}", "type", "function", "function", "name", name),
                             e)
                   : request_refuse(e, "tool_choice", "lacks the name");
    }
    const char *word = has_type(v, "auto")   ? "auto"
                       : has_type(v, "none") ? "none"
                       : has_type(v, "any")  ? "required"
                                             : NULL;
    return word ? put_new(out, "tool_choice", json_string(word), e)
                : request_refuse(e, "tool_choice", "has no type that is known");
}

/* Keys that mean nothing to both, or something else. */
static bool is_own(const char *key)
{
    static const char *const keys[] = {"system",         "messages", "tools",        "tool_choice",
                                       "stop_sequences", "thinking", "metadata",     "n",
                                       "best_of",        "logprobs", "top_logprobs", "stop",
                                       "stream_options", "user",     "echo"};
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        if (strcmp(key, keys[i]) == 0) {
            return true;
        }
    }
    return false;
}

int anthropic_translate(const json_t *in, json_t **ret, struct request_err *e)
{
    json_t *out = json_object(), *object = (json_t *)(uintptr_t)in;
    const json_t *stop = json_object_get(in, "stop_sequences");
    const json_t *user = json_object_get(json_object_get(in, "metadata"), "user_id");
    int rc = out ? 0 : no_memory(e);
    for (void *it = json_object_iter(object); it && rc == 0;
         it = json_object_iter_next(object, it)) {
        const char *key = json_object_iter_key(it);
        rc = is_own(key) ? 0 : put(out, key, json_object_iter_value(it), e);
    }
    if (rc == 0 && !json_is_integer(json_object_get(in, "max_tokens"))) {
        rc = request_refuse(e, "max_tokens", "is missing");
    }
    rc = rc == 0 && stop ? put(out, "stop", stop, e) : rc;
    rc = rc == 0 && user ? put(out, "user", user, e) : rc;
    rc = rc < 0 ? rc : put_messages(in, out, e);
    rc = rc < 0 ? rc : put_tools(in, out, e);
    rc = rc < 0 ? rc : put_tool_choice(in, out, e);
    if (rc < 0) {
        json_decref(out);
        return rc;
    }
    *ret = out;
    return 0;
}
