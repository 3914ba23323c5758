/* Reasoning, text and tool calls (see splitter.h). Pure; runs on the gateway's loop. */
#include "gateway/splitter.h"
#include "shared/json.h"
#include "shared/limits.h"

#include <string.h>

static const char think[] = "<think>", think_end[] = "</think>";
static const char call[] = "<tool_call>", call_end[] = "</tool_call>";

struct out {
    splitter_fn *fn;
    void *arg;
};

void splitter_init(struct splitter *s, bool finds_reasoning, bool finds_calls)
{
    *s = (struct splitter){.finds_reasoning = finds_reasoning, .finds_calls = finds_calls};
    buf_init(&s->held, LIMIT_ANSWER_BYTES);
}

void splitter_finish(struct splitter *s)
{
    buf_finish(&s->held);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static size_t count_space(const struct buf *b)
{
    size_t n = 0;
    while (n < b->len && is_space(b->data[n])) {
        n++;
    }
    return n;
}

/* Gives the first n bytes that are held. */
static void give(struct splitter *s, enum splitter_part part, size_t n, const struct out *o)
{
    if (n > 0) {
        o->fn(o->arg, part, s->held.data, n, NULL, 0);
        buf_consume(&s->held, n);
    }
}

/* How many of the last bytes may be the beginning of the tag. */
static size_t partial_tag(const struct buf *b, const char *tag)
{
    size_t n = MIN(strlen(tag) - 1, b->len);
    while (n > 0 && memcmp(b->data + b->len - n, tag, n) != 0) {
        n--;
    }
    return n;
}

static const char *find_tag(const struct buf *b, const char *tag)
{
    return b->len ? memmem(b->data, b->len, tag, strlen(tag)) : NULL;
}

/* ---- calls ---- */

static const json_t *arguments_of(const json_t *v)
{
    const json_t *a = json_object_get(v, "arguments");
    return a ? a : json_object_get(v, "parameters");
}

/* {"name", "arguments"}, perhaps as the "function" of {"type": "function"}. NULL: it is none. */
static const json_t *as_call(const json_t *v)
{
    const json_t *f = json_object_get(v, "function");
    v = json_is_object(f) ? f : v;
    const json_t *a = arguments_of(v);
    return json_string_length(json_object_get(v, "name")) > 0 &&
                   (json_is_object(a) || json_is_string(a))
               ? v
               : NULL;
}

static bool give_call(const json_t *v, const struct out *o)
{
    const json_t *name = json_object_get(v, "name"), *a = arguments_of(v);
    struct buf text;
    buf_init(&text, LIMIT_ANSWER_BYTES);
    if (json_is_string(a)) {
        buf_add(&text, json_string_value(a), json_string_length(a));
    } else {
        json_put_value(&text, a);
    }
    bool ok = !text.failed;
    if (ok) {
        o->fn(o->arg, SPLITTER_PART_CALL, json_string_value(name), json_string_length(name),
              text.data ? text.data : "", text.len);
    }
    buf_finish(&text);
    return ok;
}

/* One call, or an array of nothing else. 1 given, 0 it is none, -1 no memory. */
static int give_calls(const char *text, size_t n, const struct out *o)
{
    json_t *v = NULL;
    if (json_parse(text, n, &v, NULL) < 0) {
        return 0;
    }
    size_t n_calls = json_is_array(v) ? json_array_size(v) : 1;
    int rc = n_calls > 0;
    for (size_t i = 0; i < n_calls && rc == 1; i++) {
        rc = as_call(json_is_array(v) ? json_array_get(v, i) : v) != NULL;
    }
    for (size_t i = 0; i < n_calls && rc == 1; i++) {
        rc = give_call(as_call(json_is_array(v) ? json_array_get(v, i) : v), o) ? 1 : -1;
    }
    json_decref(v);
    return rc;
}

/* May JSON that begins so still be a call? Its first key tells. */
static bool may_be_call(const struct buf *b)
{
    static const char *const keys[] = {"name", "type", "id", "function", "arguments", "parameters"};
    const char *first = memchr(b->data, '"', b->len);
    const char *last =
        first ? memchr(first + 1, '"', b->len - (size_t)(first + 1 - b->data)) : NULL;
    if (!last) {
        return b->len < 64;
    }
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        if (strlen(keys[i]) == (size_t)(last - first - 1) &&
            memcmp(first + 1, keys[i], strlen(keys[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- states: true when there may be more to decide ---- */

static bool at_start(struct splitter *s, bool is_end)
{
    size_t space = count_space(&s->held), left = s->held.len - space;
    const char *p = left ? s->held.data + space : "";
    if (left == 0 && !is_end) {
        return false;
    }
    if (s->finds_reasoning && memcmp(p, think, MIN(left, strlen(think))) == 0 && left > 0) {
        if (left < strlen(think) && !is_end) {
            return false;
        }
        if (left >= strlen(think)) {
            buf_consume(&s->held, space + strlen(think));
            s->state = SPLITTER_REASONING;
            return true;
        }
    }
    s->state = s->finds_calls && (*p == '{' || *p == '[') ? SPLITTER_JSON : SPLITTER_TEXT;
    return true;
}

static bool in_reasoning(struct splitter *s, bool is_end, const struct out *o)
{
    const char *end = find_tag(&s->held, think_end);
    if (!end) {
        give(s, SPLITTER_PART_REASONING,
             s->held.len - (is_end ? 0 : partial_tag(&s->held, think_end)), o);
        return false;
    }
    give(s, SPLITTER_PART_REASONING, (size_t)(end - s->held.data), o);
    buf_consume(&s->held, strlen(think_end));
    s->finds_reasoning = false;
    s->drops_space = true;
    s->state = SPLITTER_START;
    return true;
}

static bool in_text(struct splitter *s, bool is_end, const struct out *o)
{
    const char *tag = s->finds_calls ? find_tag(&s->held, call) : NULL;
    if (!tag) {
        bool waits = s->finds_calls && !is_end;
        give(s, SPLITTER_PART_TEXT, s->held.len - (waits ? partial_tag(&s->held, call) : 0), o);
        return false;
    }
    give(s, SPLITTER_PART_TEXT, (size_t)(tag - s->held.data), o);
    s->state = SPLITTER_CALL;
    return true;
}

/* The tag stands first in what is held. Some models end without the closing one. */
static bool in_call(struct splitter *s, bool is_end, const struct out *o, bool *ret_ok)
{
    size_t from = MIN(s->n_searched, s->held.len);
    const char *end = memmem(s->held.data + from, s->held.len - from, call_end, strlen(call_end));
    if (!end && !is_end) {
        s->n_searched = s->held.len - MIN(s->held.len, strlen(call_end) - 1);
        return false;
    }
    s->n_searched = 0;
    size_t n = end ? (size_t)(end - s->held.data) : s->held.len;
    int rc = give_calls(s->held.data + strlen(call), n - strlen(call), o);
    *ret_ok = rc >= 0;
    n += end ? strlen(call_end) : 0;
    if (rc == 1) {
        buf_consume(&s->held, n);
        s->drops_space = true;
    } else {
        give(s, SPLITTER_PART_TEXT, n, o);
    }
    s->state = SPLITTER_TEXT;
    return rc >= 0 && s->held.len > 0;
}

static bool in_json(struct splitter *s, bool is_end, const struct out *o, bool *ret_ok)
{
    if (!is_end && may_be_call(&s->held)) {
        return false;
    }
    int rc = is_end ? give_calls(s->held.data, s->held.len, o) : 0;
    *ret_ok = rc >= 0;
    if (rc == 1) {
        buf_clear(&s->held);
    }
    s->state = SPLITTER_TEXT;
    return rc == 0;
}

bool splitter_feed(struct splitter *s, const char *text, size_t n, bool is_end, splitter_fn *fn,
                   void *arg)
{
    const struct out o = {fn, arg};
    bool goes_on = true, ok = true;
    buf_add(&s->held, text, n);
    while (goes_on && ok && !s->held.failed) {
        if (s->drops_space) {
            buf_consume(&s->held, count_space(&s->held));
            s->drops_space = s->held.len == 0;
        }
        goes_on = s->held.len > 0;
        if (!goes_on) {
            break;
        }
        switch (s->state) {
        case SPLITTER_START:
            goes_on = at_start(s, is_end);
            break;
        case SPLITTER_REASONING:
            goes_on = in_reasoning(s, is_end, &o);
            break;
        case SPLITTER_TEXT:
            goes_on = in_text(s, is_end, &o);
            break;
        case SPLITTER_CALL:
            goes_on = in_call(s, is_end, &o, &ok);
            break;
        case SPLITTER_JSON:
            goes_on = in_json(s, is_end, &o, &ok);
            break;
        }
    }
    return ok && !s->held.failed;
}
