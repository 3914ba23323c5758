/* JSON bodies, by the table of field.def. Pure; runs on the gateway's loop. Invariant: a number
 * that leaves here is within its declared range. */
#include "gateway/anthropic.h"
#include "gateway/form.h"
#include "gateway/prompt.h"
#include "shared/num.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    COMPLETIONS = REQUEST_COMPLETIONS,
    CHAT = REQUEST_CHAT,
    TOKENIZE = REQUEST_TOKENIZE,
    DETOKENIZE = REQUEST_DETOKENIZE,
    MODEL = REQUEST_MODEL,
    TEMPLATE = REQUEST_TEMPLATE,
    GENERATE = COMPLETIONS | CHAT,
    MESSAGES = CHAT | TEMPLATE,
    ALL = GENERATE | TOKENIZE | DETOKENIZE | MODEL | TEMPLATE,
};

typedef int field_fn(struct request *r, const json_t *v, struct request_err *e);
static field_fn read_max_tokens, read_seed, read_stop, read_logit_bias, read_logprobs,
    read_stream_options;

enum field_kind { FIELD_NUM, FIELD_INT, FIELD_BOOL, FIELD_TEXT, FIELD_FN, FIELD_OFF };

struct field {
    const char *name;
    unsigned apis;
    enum field_kind kind;
    size_t offset;  /* of the member, unless FN */
    field_fn *read; /* FN only */
    double min, max;
};

#define MEMBER_NUM(m) offsetof(struct request, m), NULL
#define MEMBER_INT(m) offsetof(struct request, m), NULL
#define MEMBER_BOOL(m) offsetof(struct request, m), NULL
#define MEMBER_TEXT(m) offsetof(struct request, m), NULL
#define MEMBER_FN(m) 0, m
#define MEMBER_OFF(m) 0, NULL

static const struct field fields[] = {
#define FIELD(name, apis, kind, member, min, max)                                                  \
    {#name, apis, FIELD_##kind, MEMBER_##kind(member), min, max},
#include "gateway/field.def"
#undef FIELD
};

/* Where the client says nothing: OpenAI's defaults; min_p as llama-server has it, because without
 * any filter small quantized models now and then draw a token from the noise of the tail. */
static void request_defaults(struct request *r)
{
    r->n = 1;
    r->temperature = 1.0;
    r->top_p = 1.0;
    r->min_p = 0.05;
    r->typical_p = 1.0;
    r->repeat_penalty = 1.0;
    r->repeat_last_n = 64;
    r->parses_special = r->api == REQUEST_TOKENIZE || r->api == REQUEST_COMPLETIONS;
    r->opens_answer = true;
    r->splits_reasoning = r->api == REQUEST_CHAT;
    r->max_tokens = -1;
    r->queue_timeout = r->first_timeout = r->total_timeout = -1;
}

int request_refuse(struct request_err *e, const char *param, const char *fmt, ...)
{
    char what[ERR_DETAIL_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    snprintf(e->param, sizeof(e->param), "%s", param);
    return err_set(&e->err, ERR_BAD_FIELD, "field '%s' %.200s", e->param, what);
}

const char *request_type_name(const json_t *v)
{
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    default:
        return "null";
    }
}

/* A whole number, also when written 16.0. */
static bool as_integer(const json_t *v, int64_t *ret)
{
    if (json_is_integer(v)) {
        *ret = json_integer_value(v);
        return true;
    }
    double d = json_is_real(v) ? json_real_value(v) : NAN;
    if (!(fabs(d) <= 0x1p53) || d != floor(d)) {
        return false;
    }
    *ret = (int64_t)d;
    return true;
}

static int out_of_range(struct request_err *e, const struct field *f, const json_t *v)
{
    char text[32];
    if (json_is_integer(v)) {
        snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    } else {
        snprintf(text, sizeof(text), "%.8g", json_real_value(v));
    }
    return request_refuse(e, f->name, "is %s, allowed %.10g to %.10g", text, f->min, f->max);
}

int request_unsupported(struct request_err *e, const char *param, const char *what)
{
    request_refuse(e, param, "%s", what);
    return e->err.code = ERR_UNSUPPORTED;
}

/* Does the value say that the field's matter is not wanted? */
static bool is_off(const json_t *v)
{
    return json_is_false(v) || (json_is_number(v) && json_number_value(v) == 0) ||
           (json_is_string(v) && json_string_length(v) == 0) ||
           (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0);
}

static int read_field(struct request *r, const struct field *f, const json_t *v,
                      struct request_err *e)
{
    char *member = (char *)r + f->offset;
    switch (f->kind) {
    case FIELD_NUM: {
        if (!json_is_number(v)) {
            return request_refuse(e, f->name, "is %s, wanted a number", request_type_name(v));
        }
        double d = json_number_value(v);
        if (!(d >= f->min && d <= f->max)) {
            return out_of_range(e, f, v);
        }
        memcpy(member, &d, sizeof(d));
        return 0;
    }
    case FIELD_INT: {
        int64_t i;
        if (!as_integer(v, &i)) {
            return request_refuse(e, f->name, "is %s, wanted a whole number",
                                  json_is_real(v) ? "a fraction" : request_type_name(v));
        }
        if ((double)i < f->min || (double)i > f->max) {
            return out_of_range(e, f, v);
        }
        memcpy(member, &i, sizeof(i));
        return 0;
    }
    case FIELD_BOOL: {
        if (!json_is_boolean(v)) {
            return request_refuse(e, f->name, "is %s, wanted true or false", request_type_name(v));
        }
        bool b = json_is_true(v);
        memcpy(member, &b, sizeof(b));
        return 0;
    }
    case FIELD_TEXT: {
        if (!json_is_string(v)) {
            return request_refuse(e, f->name, "is %s, wanted a string", request_type_name(v));
        }
        struct request_text t = {json_string_value(v), json_string_length(v)};
        if ((double)t.n > f->max) {
            return request_refuse(e, f->name, "has %zu bytes, allowed %.0f", t.n, f->max);
        }
        memcpy(member, &t, sizeof(t));
        return 0;
    }
    case FIELD_OFF:
        return is_off(v) ? 0 : request_unsupported(e, f->name, "is not supported");
    default:
        return f->read(r, v, e);
    }
}

static int read_max_tokens(struct request *r, const json_t *v, struct request_err *e)
{
    int64_t i;
    if (!as_integer(v, &i) || i < -1 || i > INT32_MAX) {
        return request_refuse(e, "max_tokens",
                              "is not a whole number from 0 to %d (or -1: to the "
                              "end of the context)",
                              INT32_MAX);
    }
    r->max_tokens = i;
    return 0;
}

static int read_seed(struct request *r, const json_t *v, struct request_err *e)
{
    int64_t i;
    if (!as_integer(v, &i)) {
        return request_refuse(e, "seed", "is %s, wanted a whole number", request_type_name(v));
    }
    r->has_seed = i != -1; /* -1 asks for a random one, as with llama-server */
    r->seed = (uint64_t)i;
    return 0;
}

static int read_stop(struct request *r, const json_t *v, struct request_err *e)
{
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (n > LIMIT_STOPS) {
        return request_refuse(e, "stop", "has %zu sequences, allowed %d", n, LIMIT_STOPS);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_is_array(v) ? json_array_get(v, i) : v;
        char param[REQUEST_PARAM_BYTES];
        snprintf(param, sizeof(param), json_is_array(v) ? "stop[%zu]" : "stop", i);
        if (!json_is_string(s)) {
            return request_refuse(e, param, "is %s, wanted a string", request_type_name(s));
        }
        size_t len = json_string_length(s);
        if (len < 1 || len > LIMIT_STOP_BYTES) {
            return request_refuse(e, param, "has %zu bytes, allowed 1 to %d", len,
                                  LIMIT_STOP_BYTES);
        }
        r->stops[i] = (struct request_text){json_string_value(s), len};
    }
    r->n_stops = n;
    return 0;
}

static int read_logit_bias(struct request *r, const json_t *v, struct request_err *e)
{
    if (!json_is_object(v)) {
        return request_refuse(e, "logit_bias", "is %s, wanted an object of id: bias",
                              request_type_name(v));
    }
    if (json_object_size(v) > LIMIT_LOGIT_BIAS) {
        return request_refuse(e, "logit_bias", "has %zu entries, allowed %d", json_object_size(v),
                              LIMIT_LOGIT_BIAS);
    }
    json_t *object = (json_t *)(uintptr_t)v; /* jansson's iterators know no const */
    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
        uint64_t id;
        const json_t *b = json_object_iter_value(it);
        double bias = json_is_number(b) ? json_number_value(b) : NAN;
        if (!num_parse_u64(json_object_iter_key(it), &id) || id > INT32_MAX) {
            return request_refuse(e, "logit_bias", "has a key that is not a token id");
        }
        if (!(bias >= -100 && bias <= 100)) {
            return request_refuse(e, "logit_bias", "of token %llu is not a number from -100 to 100",
                                  (unsigned long long)id);
        }
        struct msg_logit_bias entry = {.id = (int32_t)id, .bias = (float)bias};
        buf_add(&r->logit_bias, &entry, sizeof(entry));
    }
    return r->logit_bias.failed ? err_set(&e->err, -ENOMEM, "while reading logit_bias") : 0;
}

/* Chat: a boolean (top_logprobs says how many). Completions: the number of alternatives. */
static int read_logprobs(struct request *r, const json_t *v, struct request_err *e)
{
    int64_t i;
    if (json_is_boolean(v)) {
        r->wants_logprobs = json_is_true(v);
        return 0;
    }
    if (r->api == REQUEST_CHAT) {
        return request_refuse(e, "logprobs", "is %s, wanted true or false", request_type_name(v));
    }
    if (!as_integer(v, &i) || i < 0 || i > LIMIT_TOP_LOGPROBS) {
        return request_refuse(e, "logprobs", "is not a whole number from 0 to %d",
                              LIMIT_TOP_LOGPROBS);
    }
    r->wants_logprobs = true;
    r->top_logprobs = i;
    return 0;
}

static int read_stream_options(struct request *r, const json_t *v, struct request_err *e)
{
    if (!json_is_object(v)) {
        return request_refuse(e, "stream_options", "is %s, wanted an object", request_type_name(v));
    }
    const json_t *usage = json_object_get(v, "include_usage");
    if (usage && !json_is_boolean(usage) && !json_is_null(usage)) {
        return request_refuse(e, "stream_options.include_usage", "is %s, wanted true or false",
                              request_type_name(usage));
    }
    r->wants_usage = json_is_true(usage);
    return 0;
}

/* What one field alone cannot tell. */
static int check_together(struct request *r, struct request_err *e)
{
    switch (r->api) {
    case REQUEST_COMPLETIONS:
        if (!r->prompt) {
            return request_refuse(e, "prompt", "is missing");
        }
        break;
    case REQUEST_CHAT:
    case REQUEST_TEMPLATE:
        if (r->messages.len == 0) {
            return request_refuse(e, "messages", "is missing");
        }
        if (r->top_logprobs > 0 && !r->wants_logprobs) {
            return request_refuse(e, "top_logprobs", "needs logprobs to be true");
        }
        break;
    case REQUEST_TOKENIZE:
        if (!r->content.data) {
            return request_refuse(e, "content", "is missing");
        }
        break;
    case REQUEST_DETOKENIZE:
        if (!r->prompt) {
            return request_refuse(e, "tokens", "is missing");
        }
        break;
    default: /* MODEL */
        if (!r->model.data) {
            return request_refuse(e, "model", "is missing");
        }
        break;
    }
    int rc = form_check(r, e);
    if (rc < 0) {
        return rc;
    }
    if (r->best_of > 0 && r->best_of < r->n) {
        return request_refuse(e, "best_of", "is less than n");
    }
    if (r->best_of > r->n && r->is_stream) {
        return request_refuse(e, "best_of",
                              "more than n cannot be streamed: which are best is "
                              "known at the end");
    }
    r->best_of = MAX(r->best_of, r->n);
    r->tools = r->hides_tools ? NULL : r->tools;
    return 0;
}

int request_parse(enum request_api api, const char *body, size_t n, struct request *ret,
                  struct request_err *e)
{
    *e = (struct request_err){0};
    bool is_messages = api == REQUEST_ANTHROPIC;
    struct request r = {.api = is_messages ? REQUEST_CHAT : api};
    buf_init(&r.messages, LIMIT_BULK_BYTES / 2);
    buf_init(&r.logit_bias, 0);
    buf_init(&r.call_schema, LIMIT_BULK_BYTES / 2);
    request_defaults(&r);
    int rc = json_parse(body, n, &r.json, &e->err);
    if (rc < 0) {
        return rc;
    }
    if (!json_is_object(r.json)) {
        rc =
            err_set(&e->err, ERR_BAD_JSON, "it is %s, wanted an object", request_type_name(r.json));
    } else if (is_messages) {
        json_t *chat = NULL;
        rc = anthropic_translate(r.json, &chat, e);
        json_decref(r.json);
        r.json = chat;
    }
    for (size_t i = 0; i < COUNT_OF(fields) && rc == 0; i++) {
        const json_t *v = fields[i].apis & r.api ? json_object_get(r.json, fields[i].name) : NULL;
        if (v && !json_is_null(v)) {
            rc = read_field(&r, &fields[i], v, e);
        }
    }
    rc = rc < 0 ? rc : check_together(&r, e);
    if (rc < 0) {
        request_finish(&r);
        return rc;
    }
    *ret = r;
    return 0;
}

void request_finish(struct request *r)
{
    json_decref(r->json);
    r->json = NULL;
    buf_finish(&r->messages);
    buf_finish(&r->logit_bias);
    buf_finish(&r->call_schema);
}

static void encode_text(const struct request *r, enum msg_text_op op, uint32_t model,
                        struct buf *ret)
{
    struct msg_text m = {
        .model = model,
        .op = op,
        .add_special = r->adds_special,
        .parse_special = r->parses_special,
        .n_sections = 1,
    };
    size_t at = ret->len;
    buf_add(ret, &m, sizeof(m));
    if (op == MSG_TOKENIZE) {
        msg_put_section(ret, MSG_PROMPT_TEXT, 0, r->content.data, r->content.n);
    } else {
        prompt_encode(r, 0, ret, &m.n_sections);
    }
    if (!ret->failed) {
        memcpy(ret->data + at, &m, sizeof(m)); /* now with the number of sections */
    }
}

/* Some time is never none. */
static uint32_t milliseconds(double seconds)
{
    return seconds > 0 ? (uint32_t)MAX(seconds * 1000, 1.0) : 0;
}

void request_encode(const struct request *r, size_t i, uint32_t model, uint64_t seed,
                    struct buf *ret)
{
    if (!(r->api & GENERATE)) {
        encode_text(r,
                    r->api == REQUEST_TOKENIZE     ? MSG_TOKENIZE
                    : r->api == REQUEST_DETOKENIZE ? MSG_DETOKENIZE
                                                   : MSG_APPLY_TEMPLATE,
                    model, ret);
        return;
    }
    struct msg_generate m = {
        .seed = seed,
        .client = r->client,
        .model = model,
        .flags = (r->api == REQUEST_CHAT ? MSG_CHAT : 0u) |
                 (r->wants_logprobs ? MSG_LOGPROBS : 0u) | (r->wants_echo ? MSG_ECHO : 0u) |
                 (r->parses_special ? MSG_PARSE_SPECIAL : 0u) |
                 (r->ignores_eos ? MSG_IGNORE_EOS : 0u) | (r->best_of > r->n ? MSG_RANK : 0u) |
                 (r->max_tokens == 0 ? MSG_PROMPT_ONLY : 0u),
        .max_tokens = (uint32_t)MAX(r->max_tokens, (int64_t)0),
        .n_choices = (uint32_t)r->best_of,
        .choice_base = (uint32_t)(i * (size_t)r->best_of),
        .top_logprobs = (uint32_t)r->top_logprobs,
        .top_k = (int32_t)MAX(r->top_k, (int64_t)0),
        .temperature = (float)r->temperature,
        .top_p = (float)r->top_p,
        .min_p = (float)r->min_p,
        .typical_p = (float)r->typical_p,
        .presence_penalty = (float)r->presence_penalty,
        .frequency_penalty = (float)r->frequency_penalty,
        .repeat_penalty = (float)r->repeat_penalty,
        .repeat_last_n = (int32_t)r->repeat_last_n,
        .queue_ms = milliseconds(r->queue_timeout),
        .first_ms = milliseconds(r->first_timeout),
        .total_ms = milliseconds(r->total_timeout),
    };
    size_t at = ret->len;
    buf_add(ret, &m, sizeof(m));
    prompt_encode(r, i, ret, &m.n_sections);
    for (size_t s = 0; s < r->n_stops; s++, m.n_sections++) {
        msg_put_section(ret, MSG_STOP, (uint32_t)s, r->stops[s].data, r->stops[s].n);
    }
    m.n_sections += form_encode(r, ret);
    if (r->logit_bias.len) {
        msg_put_section(ret, MSG_LOGIT_BIAS, 0, r->logit_bias.data, r->logit_bias.len);
        m.n_sections++;
    }
    if (!ret->failed) {
        memcpy(ret->data + at, &m, sizeof(m)); /* now with the number of sections */
    }
}
