/* The text of values. Prints into the run's output; recursion is bounded by jinja_enter. */
#include "worker/jinja/jinja_text.h"
#include "worker/jinja/jinja_dict.h"
#include "worker/jinja/jinja_iter.h"
#include "worker/jinja/jinja_loop.h"
#include "worker/jinja/jinja_macro.h"
#include "worker/jinja/jinja_number.h"
#include "worker/jinja/jinja_sort.h"
#include "worker/jinja/jinja_unicode.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static void put_int(struct jinja *j, int64_t i)
{
    char text[24];
    jinja_put(j, text, (size_t)snprintf(text, sizeof(text), "%" PRId64, i));
}

static void put_float(struct jinja *j, double f)
{
    char text[JINJA_NUMBER_BYTES];
    jinja_step(j, 32); /* finding the shortest form takes several conversions */
    jinja_put(j, text, (size_t)jinja_number_print(f, text));
}

static void put_code(struct jinja *j, uint32_t cp)
{
    char text[16];
    int n = snprintf(text, sizeof(text),
                     cp < 0x100     ? "\\x%02x"
                     : cp < 0x10000 ? "\\u%04x"
                                    : "\\U%08x",
                     cp);
    jinja_put(j, text, (size_t)n);
}

/* What stands between places that need another text is put in one piece. */
struct pieces {
    const char *s;
    size_t from, at;
};

static void put_piece(struct jinja *j, struct pieces *p, size_t skip)
{
    jinja_step(j, 1);
    jinja_put(j, p->s + p->from, p->at - p->from);
    p->at += skip;
    p->from = p->at;
}

static void put_repr_str(struct jinja *j, struct jinja_value v)
{
    bool has_single = v.n && memchr(v.s, '\'', v.n), has_double = v.n && memchr(v.s, '"', v.n);
    char quote = has_single && !has_double ? '"' : '\'';
    jinja_step(j, v.n / 16);
    jinja_put(j, &quote, 1);
    struct pieces p = {.s = v.s};
    while (p.at < v.n) {
        uint32_t cp;
        size_t len = jinja_unicode_get(v.s + p.at, v.n - p.at, &cp);
        const char *escape = cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : cp == '\t' ? "\\t" : NULL;
        if (cp == (unsigned char)quote || cp == '\\') {
            put_piece(j, &p, 0);
            jinja_put(j, "\\", 1);
            p.at += len;
        } else if (escape) {
            put_piece(j, &p, len);
            jinja_put_str(j, escape);
        } else if (cp < 0x20 || (cp >= 0x7F && !jinja_unicode_is(cp, JINJA_PRINTABLE))) {
            put_piece(j, &p, len);
            put_code(j, cp);
        } else {
            p.at += len;
        }
    }
    put_piece(j, &p, 0);
    jinja_put(j, &quote, 1);
}

static void put_items(struct jinja *j, struct jinja_value v, const char *open, const char *close)
{
    jinja_enter(j);
    jinja_put_str(j, open);
    for (uint32_t i = 0; i < v.n; i++) {
        jinja_put_str(j, i ? ", " : "");
        jinja_text_put_repr(j, v.items[i]);
    }
    jinja_put_str(j, v.kind == JINJA_TUPLE && v.n == 1 ? ",)" : close);
    jinja_exit(j);
}

static void put_entries(struct jinja *j, const struct jinja_dict *d)
{
    jinja_enter(j);
    jinja_put(j, "{", 1);
    for (uint32_t i = 0; i < d->n; i++) {
        jinja_put_str(j, i ? ", " : "");
        jinja_text_put_repr(j, d->entries[i].key);
        jinja_put(j, ": ", 2);
        jinja_text_put_repr(j, d->entries[i].value);
    }
    jinja_put(j, "}", 1);
    jinja_exit(j);
}

static void put_range(struct jinja *j, const struct jinja_range *r)
{
    jinja_put_str(j, "range(");
    put_int(j, r->start);
    jinja_put(j, ", ", 2);
    put_int(j, r->stop);
    if (r->step != 1) {
        jinja_put(j, ", ", 2);
        put_int(j, r->step);
    }
    jinja_put(j, ")", 1);
}

void jinja_text_put_repr(struct jinja *j, struct jinja_value v)
{
    jinja_step(j, 2);
    switch ((enum jinja_kind)v.kind) {
    case JINJA_MISSING:
    case JINJA_UNDEFINED:
        jinja_put_str(j, "Undefined");
        break;
    case JINJA_NONE:
        jinja_put_str(j, "None");
        break;
    case JINJA_BOOL:
        jinja_put_str(j, v.b ? "True" : "False");
        break;
    case JINJA_INT:
        put_int(j, v.i);
        break;
    case JINJA_FLOAT:
        put_float(j, v.f);
        break;
    case JINJA_STR:
        jinja_put_str(j, v.flag == JINJA_MARKUP ? "Markup(" : "");
        put_repr_str(j, v);
        jinja_put_str(j, v.flag == JINJA_MARKUP ? ")" : "");
        break;
    case JINJA_LIST:
        put_items(j, v, "[", "]");
        break;
    case JINJA_TUPLE:
        put_items(j, v, "(", ")");
        break;
    case JINJA_DICT:
        put_entries(j, v.dict);
        break;
    case JINJA_RANGE:
        put_range(j, v.range);
        break;
    case JINJA_VIEW:
        jinja_put_str(j, jinja_value_type(v));
        put_items(j, jinja_iter_list(j, v), "([", "])");
        break;
    case JINJA_NAMESPACE:
        jinja_put_str(j, "<Namespace ");
        put_entries(j, v.dict);
        jinja_put(j, ">", 1);
        break;
    case JINJA_LOOP:
        jinja_put_str(j, "<LoopContext ");
        put_int(j, v.loop->index0 + 1);
        jinja_put(j, "/", 1);
        put_int(j, jinja_loop_length(j, v.loop));
        jinja_put(j, ">", 1);
        break;
    case JINJA_MACRO:
        jinja_put_str(j, "<Macro ");
        if (v.macro->name.s) {
            put_repr_str(j, v.macro->name);
        } else {
            jinja_put_str(j, "anonymous");
        }
        jinja_put(j, ">", 1);
        break;
    default:
        jinja_put(j, "<", 1);
        jinja_put_str(j, jinja_value_type(v));
        jinja_put(j, ">", 1);
    }
}

void jinja_text_put(struct jinja *j, struct jinja_value v)
{
    if (v.kind == JINJA_STR) {
        jinja_put(j, v.s, v.n);
    } else if (v.kind != JINJA_UNDEFINED) {
        jinja_text_put_repr(j, v);
    }
}

struct jinja_value jinja_text_str(struct jinja *j, struct jinja_value v)
{
    if (v.kind == JINJA_STR) {
        return jinja_value_str(v.s, v.n);
    }
    size_t mark = jinja_capture(j);
    jinja_text_put(j, v);
    return jinja_captured(j, mark);
}

struct jinja_value jinja_text_soft(struct jinja *j, struct jinja_value v)
{
    return v.kind == JINJA_STR ? v : jinja_text_str(j, v);
}

struct jinja_value jinja_text_repr(struct jinja *j, struct jinja_value v)
{
    size_t mark = jinja_capture(j);
    jinja_text_put_repr(j, v);
    return jinja_captured(j, mark);
}

struct jinja_value jinja_text_escape(struct jinja *j, struct jinja_value v)
{
    if (jinja_value_is_markup(v)) {
        return v;
    }
    v = jinja_text_str(j, v);
    jinja_step(j, v.n / 16);
    struct pieces p = {.s = v.s};
    size_t mark = jinja_capture(j);
    while (p.at < v.n) {
        const char *entity = NULL;
        switch (v.s[p.at]) {
        case '&':
            entity = "&amp;";
            break;
        case '<':
            entity = "&lt;";
            break;
        case '>':
            entity = "&gt;";
            break;
        case '\'':
            entity = "&#39;";
            break;
        case '"':
            entity = "&#34;";
            break;
        default:
            p.at++;
            continue;
        }
        put_piece(j, &p, 1);
        jinja_put_str(j, entity);
    }
    put_piece(j, &p, 0);
    v = jinja_captured(j, mark);
    v.flag = JINJA_MARKUP;
    return v;
}

/* ---- JSON ---- */

static void put_json_escape(struct jinja *j, uint32_t cp)
{
    char text[16];
    int n = cp < 0x10000
                ? snprintf(text, sizeof(text), "\\u%04x", cp)
                : snprintf(text, sizeof(text), "\\u%04x\\u%04x", 0xD800 + ((cp - 0x10000) >> 10),
                           0xDC00 + ((cp - 0x10000) & 0x3FF));
    jinja_put(j, text, (size_t)n);
}

static void put_json_str(struct jinja *j, struct jinja_value v, bool ascii)
{
    static const char *const escapes[128] = {
        ['"'] = "\\\"", ['\\'] = "\\\\", ['\n'] = "\\n", ['\r'] = "\\r",
        ['\t'] = "\\t", ['\b'] = "\\b",  ['\f'] = "\\f",
    };
    jinja_step(j, v.n / 16);
    jinja_put(j, "\"", 1);
    struct pieces p = {.s = v.s};
    while (p.at < v.n) {
        uint32_t cp = (unsigned char)v.s[p.at];
        size_t len = 1;
        if (cp < 0x80 && escapes[cp]) {
            put_piece(j, &p, 1);
            jinja_put_str(j, escapes[cp]);
            continue;
        }
        if (cp >= 0x80 && ascii) {
            len = jinja_unicode_get(v.s + p.at, v.n - p.at, &cp);
        }
        if (cp < 0x20 || (cp >= 0x80 && ascii)) {
            put_piece(j, &p, len);
            put_json_escape(j, cp);
        } else {
            p.at += len;
        }
    }
    put_piece(j, &p, 0);
    jinja_put(j, "\"", 1);
}

static void put_json_line(struct jinja *j, const struct jinja_json *how, unsigned level)
{
    if (how->indent.kind == JINJA_NONE) {
        return;
    }
    jinja_put(j, "\n", 1);
    for (unsigned i = 0; i < level; i++) {
        if (how->indent.kind == JINJA_STR) {
            jinja_put(j, how->indent.s, how->indent.n);
        } else if (how->indent.i > 0) {
            jinja_put_fill(j, ' ', (size_t)how->indent.i);
        }
    }
}

static void put_json(struct jinja *j, struct jinja_value v, const struct jinja_json *how,
                     unsigned level);

static void put_json_key(struct jinja *j, struct jinja_value key, const struct jinja_json *how)
{
    if (key.kind == JINJA_STR) {
        put_json_str(j, key, how->ascii);
        return;
    }
    if (key.kind != JINJA_NONE && !jinja_value_is_number(key)) {
        jinja_fail(j, "keys must be str, int, float, bool or None, not %s", jinja_value_type(key));
    }
    jinja_put(j, "\"", 1);
    put_json(j, key, how, 0);
    jinja_put(j, "\"", 1);
}

static void put_json_dict(struct jinja *j, const struct jinja_dict *d, const struct jinja_json *how,
                          unsigned level)
{
    struct jinja_sorted *sorted = NULL;
    if (how->sort) {
        sorted = jinja_array(j, d->n, sizeof(*sorted));
        for (uint32_t i = 0; i < d->n; i++) {
            sorted[i] = (struct jinja_sorted){d->entries[i].key, d->entries[i].value};
        }
        jinja_sort(j, sorted, d->n, false);
    }
    jinja_put(j, "{", 1);
    for (uint32_t i = 0; i < d->n; i++) {
        if (i) {
            jinja_put(j, how->item.s, how->item.n);
        }
        put_json_line(j, how, level + 1);
        put_json_key(j, sorted ? sorted[i].key : d->entries[i].key, how);
        jinja_put(j, how->key.s, how->key.n);
        put_json(j, sorted ? sorted[i].value : d->entries[i].value, how, level + 1);
    }
    if (d->n) {
        put_json_line(j, how, level);
    }
    jinja_put(j, "}", 1);
}

static void put_json_list(struct jinja *j, struct jinja_value v, const struct jinja_json *how,
                          unsigned level)
{
    jinja_put(j, "[", 1);
    for (uint32_t i = 0; i < v.n; i++) {
        if (i) {
            jinja_put(j, how->item.s, how->item.n);
        }
        put_json_line(j, how, level + 1);
        put_json(j, v.items[i], how, level + 1);
    }
    if (v.n) {
        put_json_line(j, how, level);
    }
    jinja_put(j, "]", 1);
}

static void put_json(struct jinja *j, struct jinja_value v, const struct jinja_json *how,
                     unsigned level)
{
    jinja_step(j, 2);
    switch ((enum jinja_kind)v.kind) {
    case JINJA_NONE:
        jinja_put_str(j, "null");
        break;
    case JINJA_BOOL:
        jinja_put_str(j, v.b ? "true" : "false");
        break;
    case JINJA_INT:
        put_int(j, v.i);
        break;
    case JINJA_FLOAT:
        if (isfinite(v.f)) {
            put_float(j, v.f);
        } else {
            jinja_put_str(j, isnan(v.f) ? "NaN" : v.f < 0 ? "-Infinity" : "Infinity");
        }
        break;
    case JINJA_STR:
        put_json_str(j, v, how->ascii);
        break;
    case JINJA_LIST:
    case JINJA_TUPLE:
        jinja_enter(j);
        put_json_list(j, v, how, level);
        jinja_exit(j);
        break;
    case JINJA_DICT:
        jinja_enter(j);
        put_json_dict(j, v.dict, how, level);
        jinja_exit(j);
        break;
    default:
        jinja_fail(j, "Object of type %s is not JSON serializable", jinja_value_type(v));
    }
}

void jinja_text_put_json(struct jinja *j, struct jinja_value v, const struct jinja_json *how)
{
    put_json(j, v, how, 0);
}
