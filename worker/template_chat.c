/* Chats for templates. The context of a template is what Hugging Face's apply_chat_template gives:
 * messages, tools, add_generation_prompt, bos_token, eos_token, and the client's
 * chat_template_kwargs. Loading reads a file; rendering is pure. */
#include "worker/template_chat.h"
#include "shared/clock.h"
#include "shared/json.h"
#include "shared/limits.h"
#include "shared/num.h"
#include "worker/template_builtin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- which template ---- */

static int read_file(const char *path, struct buf *ret, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_set(e, ERR_CONFIG, "chat_template %s: %s, and no built-in one has that name",
                       path, strerror(errno));
    }
    char chunk[4096];
    ssize_t n;
    while ((n = read(fd, chunk, sizeof(chunk))) > 0 && !ret->failed) {
        buf_add(ret, chunk, (size_t)n);
    }
    close(fd);
    if (n < 0 || ret->failed) {
        return err_set(e, ERR_CONFIG, "chat_template %s: %s", path,
                       n < 0 ? "cannot be read" : "larger than a template may be");
    }
    return 0;
}

static int load_file(const char *path, struct template **ret, struct err *e)
{
    struct buf text;
    buf_init(&text, LIMIT_TEMPLATE_BYTES);
    int rc = read_file(path, &text, e);
    if (rc == 0) {
        rc = template_create(text.data ? text.data : "", text.len, ret, e);
    }
    buf_finish(&text);
    return rc;
}

int template_chat_load(const struct gguf *g, const char *choice, struct template **ret,
                       struct err *e)
{
    const char *builtin = template_builtin_find(choice);
    if (builtin) {
        return template_create(builtin, strlen(builtin), ret, e);
    }
    if (*choice) {
        return load_file(choice, ret, e);
    }
    struct gguf_str own = {0};
    int rc = gguf_get_str(g, "tokenizer.chat_template", &own, e);
    if (rc == 0 && own.data) {
        return template_create(own.data, own.len, ret, e);
    }
    if (rc == 0) {
        *ret = NULL;
    }
    return rc;
}

/* ---- what it is given ---- */

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

/* The API carries the arguments of tool calls as JSON text. */
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
            return err_set(e, err, "message %zu", i);
        }
    }
    return 0;
}

static int fill_context(json_t *messages, const json_t *args, const char *bos, const char *eos,
                        json_t *context)
{
    json_t *kwargs = json_object_get(args, "chat_template_kwargs");
    json_t *tools = json_object_get(args, "tools");
    const json_t *prompt = json_object_get(args, "add_generation_prompt");
    bool ok = !json_is_object(kwargs) || json_object_update(context, kwargs) == 0;
    ok = ok && json_object_set(context, "messages", messages) == 0;
    ok = ok && (!tools || json_object_set(context, "tools", tools) == 0);
    ok = ok && json_object_set_new(context, "add_generation_prompt",
                                   json_boolean(!prompt || json_is_true(prompt))) == 0;
    /* Token texts may be any bytes; jansson refuses what is not UTF-8, and then there is none. */
    json_object_set_new(context, "bos_token", json_string(bos ? bos : ""));
    json_object_set_new(context, "eos_token", json_string(eos ? eos : ""));
    return ok ? 0 : -ENOMEM;
}

int template_chat_render(const struct template *t, json_t *messages, const json_t *args,
                         const char *bos, const char *eos, int64_t now_unix_s, struct buf *ret,
                         struct err *e)
{
    json_t *context = json_object();
    int err = context ? adapt_messages(messages, e) : -ENOMEM;
    if (err == 0) {
        err = fill_context(messages, args, bos, eos, context);
    }
    if (err == 0) {
        err = template_render(t, context, now_unix_s, ret, e);
    }
    json_decref(context);
    return err;
}

int64_t template_chat_now(void)
{
    const char *text = getenv("SOURCE_DATE_EPOCH");
    int64_t now;
    return text && num_parse_i64(text, &now) ? now : clock_unix_s();
}
