/* What an answer has to look like (see form.h). Pure; runs on the gateway's loop. */
#include "gateway/form.h"

#include <errno.h>
#include <string.h>

int form_read_json_schema(struct request *r, const json_t *v, struct request_err *e)
{
    if (!json_is_object(v)) {
        return request_refuse(e, "json_schema", "is %s, wanted an object", request_type_name(v));
    }
    r->schema = v;
    return 0;
}

/* OpenAI's forms, and llama-server's, which has the schema beside the type. */
int form_read_response_format(struct request *r, const json_t *v, struct request_err *e)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    if (!type) {
        return request_refuse(e, "response_format", "has no type");
    }
    if (strcmp(type, "text") == 0) {
        return 0;
    }
    bool is_schema = strcmp(type, "json_schema") == 0;
    if (!is_schema && strcmp(type, "json_object") != 0) {
        return request_unsupported(e, "response_format",
                                   "has a type that is none of text, json_object, json_schema");
    }
    const json_t *schema = json_object_get(json_object_get(v, "json_schema"), "schema");
    schema = schema ? schema : json_object_get(v, "schema");
    if ((is_schema || schema) && !json_is_object(schema)) {
        return request_refuse(e, "response_format", "has no schema");
    }
    r->schema = schema;
    r->wants_object = !schema;
    return 0;
}

/* The template shows the tools and the model decides; or it has to call one, or that one. */
int form_read_tool_choice(struct request *r, const json_t *v, struct request_err *e)
{
    const char *word = json_string_value(v);
    const json_t *name = json_object_get(json_object_get(v, "function"), "name");
    r->hides_tools = word && strcmp(word, "none") == 0;
    r->must_call = (word && strcmp(word, "required") == 0) || json_is_string(name);
    r->must_call_name = json_string_value(name);
    return r->hides_tools || r->must_call || (word && strcmp(word, "auto") == 0)
               ? 0
               : request_refuse(e, "tool_choice",
                                "is none of auto, none, required, and names no function");
}

/* The schema of an answer that calls a tool: one of them, or the one that is named. */
static int force_call(struct request *r, struct request_err *e)
{
    struct buf *b = &r->call_schema;
    size_t n = 0;
    buf_str(b, "{\"anyOf\":[");
    for (size_t i = 0; i < json_array_size(r->tools); i++) {
        const json_t *f = json_object_get(json_array_get(r->tools, i), "function");
        const json_t *name = json_object_get(f, "name");
        const json_t *parameters = json_object_get(f, "parameters");
        if (!json_is_string(name) ||
            (r->must_call_name && strcmp(json_string_value(name), r->must_call_name) != 0)) {
            continue;
        }
        buf_str(b, n++ ? ",{" : "{");
        buf_str(b, "\"type\":\"object\",\"properties\":{\"name\":{\"const\":");
        json_put_value(b, name);
        buf_str(b, "},\"arguments\":");
        if (json_is_object(parameters)) {
            json_put_value(b, parameters);
        } else {
            buf_str(b, "{\"type\":\"object\"}");
        }
        buf_str(b, "},\"required\":[\"name\",\"arguments\"]}");
    }
    buf_str(b, "]}");
    return n == 0      ? request_refuse(e, "tool_choice", "wants a call, but there is no such tool")
           : b->failed ? err_set(&e->err, -ENOMEM, "while reading tools")
                       : 0;
}

/* llama-server's words; all but "none" give it apart. */
int form_read_reasoning_format(struct request *r, const json_t *v, struct request_err *e)
{
    const char *word = json_string_value(v);
    if (!word) {
        return request_refuse(e, "reasoning_format", "is %s, wanted a string",
                              request_type_name(v));
    }
    r->splits_reasoning = strcmp(word, "none") != 0;
    return 0;
}

int form_check(struct request *r, struct request_err *e)
{
    int rc = r->must_call ? force_call(r, e) : 0;
    if (rc < 0) {
        return rc;
    }
    bool has_schema = r->schema || r->wants_object;
    if (r->must_call && (has_schema || r->grammar.n > 0)) {
        return request_refuse(e, "tool_choice", "that wants a call cannot stand beside a schema");
    }
    has_schema = has_schema || r->must_call;
    if (r->grammar.n > 0 && has_schema) {
        return request_refuse(e, "grammar", "cannot stand beside a schema");
    }
    if ((r->grammar.n > 0 || has_schema) && r->ignores_eos) {
        return request_refuse(e, "ignore_eos", "cannot stand beside a grammar or schema");
    }
    return 0;
}

uint32_t form_encode(const struct request *r, struct buf *ret)
{
    uint32_t n = 0;
    if (r->grammar.n > 0) {
        msg_put_section(ret, MSG_GRAMMAR, 0, r->grammar.data, r->grammar.n);
        n++;
    }
    if (r->call_schema.len) {
        msg_put_section(ret, MSG_SCHEMA, 0, r->call_schema.data, r->call_schema.len);
        n++;
    }
    if (r->schema || r->wants_object) {
        struct buf json;
        buf_init(&json, LIMIT_BULK_BYTES / 2);
        if (r->schema) {
            json_put_value(&json, r->schema);
        } else {
            buf_str(&json, "{\"type\":\"object\"}");
        }
        msg_put_section(ret, MSG_SCHEMA, 0, json.data, json.len);
        ret->failed |= json.failed;
        buf_finish(&json);
        n++;
    }
    return n;
}
