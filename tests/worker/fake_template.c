/* Templates for tests, in place of worker/template*.c at link time: renders "role:content;" for
 * every message, then the names of the other variables in order. */
#include "tests/test.h"
#include "worker/template.h"

#include <errno.h>

struct template
{
    int nothing;
};

int template_create(const char *source, size_t n, struct template **ret, struct err *e)
{
    (void)source;
    if (n == 0) {
        return err_set(e, ERR_TEMPLATE, "an empty template");
    }
    *ret = calloc(1, sizeof(**ret));
    return *ret ? 0 : -ENOMEM;
}

void template_destroy(struct template **t)
{
    free(*t);
    *t = NULL;
}

int template_render(const struct template *t, const json_t *context, int64_t now_unix_s,
                    struct buf *ret, struct err *e)
{
    (void)t;
    CHECK(now_unix_s > 0);
    const json_t *messages = json_object_get(context, "messages"), *m;
    size_t i;
    json_array_foreach(messages, i, m)
    {
        const char *role = json_string_value(json_object_get(m, "role"));
        const char *content = json_string_value(json_object_get(m, "content"));
        if (!role) {
            return err_set(e, ERR_TEMPLATE, "message %zu has no role", i);
        }
        buf_printf(ret, "%s:%s;", role, content ? content : "(none)");
        const json_t *call = json_array_get(json_object_get(m, "tool_calls"), 0);
        const json_t *args = json_object_get(json_object_get(call, "function"), "arguments");
        buf_str(ret, json_is_object(args) ? "{object}" : json_is_string(args) ? "{string}" : "");
    }
    static const char *const others[] = {"tools", "enable_thinking", "bos_token", "eos_token",
                                         "add_generation_prompt"};
    for (size_t k = 0; k < COUNT_OF(others); k++) {
        const json_t *v = json_object_get(context, others[k]);
        char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
        buf_printf(ret, text ? "%s=%s;" : "", others[k], text);
        free(text);
    }
    return ret->failed ? -ENOMEM : 0;
}
