/* Filters of single values: texts, numbers, JSON. Those of sequences are in jinja_seq.c. */
#include "worker/jinja/jinja_filter.h"
#include "worker/jinja/jinja_attr.h"
#include "worker/jinja/jinja_dict.h"
#include "worker/jinja/jinja_format.h"
#include "worker/jinja/jinja_iter.h"
#include "worker/jinja/jinja_number.h"
#include "worker/jinja/jinja_op.h"
#include "worker/jinja/jinja_seq.h"
#include "worker/jinja/jinja_str.h"
#include "worker/jinja/jinja_strform.h"
#include "worker/jinja/jinja_text.h"
#include "worker/jinja/jinja_unicode.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define FILTER(name)                                                                               \
    static struct jinja_value name(struct jinja *j, struct jinja_value self,                       \
                                   const struct jinja_value *arg, const struct jinja_args *args)

static struct jinja_value or_none(struct jinja_value arg)
{
    return arg.kind == JINJA_MISSING ? jinja_value_none() : arg;
}

/* ---- text ---- */

static struct jinja_value mapped(struct jinja *j, struct jinja_value v, enum jinja_case to)
{
    v = jinja_text_soft(j, v);
    return jinja_str_like(v, jinja_unicode_map(j, v.s, v.n, to));
}

FILTER(filter_upper)
{
    (void)arg, (void)args;
    return mapped(j, self, JINJA_TO_UPPER);
}

FILTER(filter_lower)
{
    (void)arg, (void)args;
    return mapped(j, self, JINJA_TO_LOWER);
}

FILTER(filter_capitalize)
{
    (void)arg, (void)args;
    return mapped(j, self, JINJA_TO_CAPITAL);
}

/* Words begin behind white space and - ( { [ <, unlike those of str.title(). */
FILTER(filter_title)
{
    (void)arg, (void)args;
    struct jinja_value s = jinja_text_str(j, self);
    size_t mark = jinja_capture(j);
    jinja_step(j, s.n / 8);
    for (size_t at = 0; at < s.n;) {
        size_t from = at, first = 0;
        for (uint32_t cp; at < s.n; at += first) {
            first = jinja_unicode_get(s.s + at, s.n - at, &cp);
            bool splits =
                jinja_unicode_is(cp, JINJA_SPACE) || (cp < 0x80 && cp && strchr("-({[<", (int)cp));
            if (!splits) {
                break;
            }
        }
        jinja_put(j, s.s + from, at - from);
        if (at == s.n) {
            break;
        }
        jinja_step(j, 6);
        from = at + first;
        jinja_unicode_put(j, s.s + at, first, JINJA_TO_UPPER);
        size_t len = 0;
        for (at = from; at < s.n; at += len) {
            uint32_t cp;
            len = jinja_unicode_get(s.s + at, s.n - at, &cp);
            if (jinja_unicode_is(cp, JINJA_SPACE) ||
                (cp < 0x80 && cp && strchr("-({[<", (int)cp))) {
                break;
            }
        }
        jinja_unicode_put(j, s.s + from, at - from, JINJA_TO_LOWER);
    }
    return jinja_captured(j, mark);
}

FILTER(filter_trim)
{
    (void)args;
    return jinja_str_strip(j, jinja_text_soft(j, self), arg[0], true, true);
}

FILTER(filter_center)
{
    (void)args;
    return jinja_strform_center(j, jinja_text_soft(j, self), jinja_call_int(j, arg[0], 80),
                                JINJA_LITERAL(" "));
}

FILTER(filter_replace)
{
    (void)args;
    int64_t count = or_none(arg[2]).kind == JINJA_NONE ? -1 : jinja_call_int(j, arg[2], -1);
    return jinja_str_replace(j, jinja_text_str(j, self), jinja_text_str(j, arg[0]),
                             jinja_text_str(j, arg[1]), count);
}

FILTER(filter_indent)
{
    (void)args;
    struct jinja_value s = jinja_call_str(j, self, NULL), with = arg[0];
    bool first = jinja_call_bool(arg[1], false), blank = jinja_call_bool(arg[2], false);
    if (with.kind != JINJA_STR) {
        size_t mark = jinja_capture(j);
        jinja_put_fill(j, ' ', (size_t)MAX(jinja_call_int(j, with, 4), 0));
        with = jinja_captured(j, mark);
    }
    struct jinja_value lines =
        jinja_str_lines(j, jinja_value_concat(j, s, JINJA_LITERAL("\n")), false);
    size_t mark = jinja_capture(j);
    for (uint32_t i = 0; i < lines.n; i++) {
        bool here = i == 0 ? first : blank || lines.items[i].n > 0;
        jinja_put(j, "\n", i > 0);
        jinja_put(j, with.s, here ? with.n : 0);
        jinja_put(j, lines.items[i].s, lines.items[i].n);
    }
    return jinja_str_like(s, jinja_captured(j, mark));
}

FILTER(filter_truncate)
{
    (void)args;
    int64_t n, length = jinja_call_int(j, arg[0], 255);
    int64_t leeway = or_none(arg[3]).kind == JINJA_NONE ? 5 : jinja_call_int(j, arg[3], 5);
    struct jinja_value end = jinja_call_str(j, arg[2], "...");
    int64_t n_end = (int64_t)jinja_unicode_count(end.s, end.n);
    if (length < n_end || leeway < 0) {
        jinja_fail(j, "truncate: a length of at least %" PRId64 " and a leeway of at least 0",
                   n_end);
    }
    if (!jinja_value_length(j, self, &n)) {
        jinja_fail(j, "object of type '%s' has no len()", jinja_value_type(self));
    }
    if (n <= length || n - length <= leeway) {
        return self;
    }
    struct jinja_value s = jinja_call_str(j, self, NULL), all = s;
    s.n = (uint32_t)jinja_unicode_offset(s.s, s.n, (size_t)(length - n_end));
    const char *space = s.n && !jinja_call_bool(arg[1], false) ? memrchr(s.s, ' ', s.n) : NULL;
    s.n = space ? (uint32_t)(space - s.s) : s.n;
    return jinja_op_binary(j, JINJA_ADD, jinja_str_like(all, s), end);
}

FILTER(filter_wordcount)
{
    (void)arg, (void)args;
    struct jinja_value s = jinja_text_str(j, self);
    int64_t words = 0;
    bool in_word = false;
    jinja_step(j, s.n / 2);
    for (size_t at = 0; at < s.n;) {
        uint32_t cp;
        at += jinja_unicode_get(s.s + at, s.n - at, &cp);
        bool word = cp == '_' || jinja_unicode_is(cp, JINJA_ALNUM);
        words += word && !in_word;
        in_word = word;
    }
    return jinja_value_int(words);
}

FILTER(filter_string)
{
    (void)arg, (void)args;
    return jinja_text_soft(j, self);
}

FILTER(filter_safe)
{
    (void)arg, (void)args;
    struct jinja_value v = jinja_text_str(j, self);
    v.flag = JINJA_MARKUP;
    return v;
}

FILTER(filter_escape)
{
    (void)arg, (void)args;
    return jinja_text_escape(j, self);
}

FILTER(filter_forceescape)
{
    (void)arg, (void)args;
    return jinja_text_escape(j, jinja_text_str(j, self));
}

FILTER(filter_format)
{
    (void)arg;
    if (args->n_pos && args->n_kw) {
        jinja_fail(j, "can't handle positional and keyword arguments at the same time");
    }
    struct jinja_value values = jinja_value_items(JINJA_TUPLE, args->pos, args->n_pos);
    if (args->n_kw) {
        struct jinja_dict *d = jinja_dict_create(j, args->n_kw);
        for (uint32_t i = 0; i < args->n_kw; i++) {
            jinja_dict_set(j, d, args->kw[i].name, args->kw[i].value);
        }
        values = jinja_dict_value(d);
    }
    return jinja_format_percent(j, jinja_text_soft(j, self), values);
}

static void put_url(struct jinja *j, struct jinja_value v, bool in_query)
{
    v = jinja_text_str(j, v);
    jinja_step(j, v.n / 2);
    for (uint32_t i = 0; i < v.n; i++) {
        unsigned char c = (unsigned char)v.s[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     (c && strchr("_.-~", c)) || (c == '/' && !in_query);
        if (plain || (c == ' ' && in_query)) {
            jinja_put(j, plain ? &v.s[i] : "+", 1);
        } else {
            const char *digits = "0123456789ABCDEF";
            const char code[3] = {'%', digits[c >> 4], digits[c & 15]};
            jinja_put(j, code, 3);
        }
    }
}

FILTER(filter_urlencode)
{
    (void)arg, (void)args;
    size_t mark = jinja_capture(j);
    struct jinja_iter *it = NULL;
    if (self.kind == JINJA_DICT) {
        self = (struct jinja_value){.kind = JINJA_VIEW, .aux = JINJA_ITEMS, .dict = self.dict};
    }
    if (self.kind == JINJA_STR || !(it = jinja_iter_try(j, self))) {
        put_url(j, self, false);
        return jinja_captured(j, mark);
    }
    bool more = false;
    for (struct jinja_value v; jinja_iter_next(j, it, &v); more = true) {
        struct jinja_value pair = jinja_iter_list(j, v);
        if (pair.n != 2) {
            jinja_fail(j, "urlencode: pairs of a name and a value");
        }
        jinja_put(j, "&", more);
        put_url(j, pair.items[0], true);
        jinja_put(j, "=", 1);
        put_url(j, pair.items[1], true);
    }
    return jinja_captured(j, mark);
}

FILTER(filter_xmlattr)
{
    (void)args;
    if (self.kind != JINJA_DICT) {
        jinja_fail(j, "xmlattr: a dict, not a %s", jinja_value_type(self));
    }
    size_t mark = jinja_capture(j);
    bool space = jinja_call_bool(arg[0], true);
    for (uint32_t i = 0; i < self.dict->n; i++) {
        struct jinja_value key = self.dict->entries[i].key, value = self.dict->entries[i].value;
        if (value.kind == JINJA_NONE || value.kind == JINJA_UNDEFINED) {
            continue;
        }
        key = jinja_call_str(j, key, NULL);
        for (uint32_t at = 0; at < key.n; at++) {
            if (strchr(" \t\n\r\f\v/>=", key.s[at]) && key.s[at]) {
                jinja_fail(j, "Invalid character in attribute name: '%.*s'", (int)MIN(key.n, 100u),
                           key.s);
            }
        }
        jinja_put(j, " ", space);
        space = true;
        key = jinja_text_escape(j, key);
        value = jinja_text_escape(j, value);
        jinja_put(j, key.s, key.n);
        jinja_put(j, "=\"", 2);
        jinja_put(j, value.s, value.n);
        jinja_put(j, "\"", 1);
    }
    return jinja_captured(j, mark);
}

/* ---- numbers ---- */

FILTER(filter_int)
{
    (void)args;
    struct jinja_value def = arg[0].kind == JINJA_MISSING ? jinja_value_int(0) : arg[0];
    int64_t i;
    double f;
    if (self.kind == JINJA_UNDEFINED) {
        jinja_value_use_undefined(j, self);
    }
    if (jinja_value_as_int(self, &i)) {
        return jinja_value_int(i);
    }
    if (self.kind == JINJA_FLOAT) {
        return isnan(self.f) ? def : jinja_number_truncate(j, self.f);
    }
    if (self.kind != JINJA_STR) {
        return def;
    }
    if (jinja_number_parse_int(j, self.s, self.n, jinja_call_int(j, arg[1], 10), &i)) {
        return jinja_value_int(i);
    }
    return jinja_number_parse_float(j, self.s, self.n, &f) && isfinite(f)
               ? jinja_number_truncate(j, f)
               : def;
}

FILTER(filter_float)
{
    (void)args;
    double f;
    if (self.kind == JINJA_UNDEFINED) {
        jinja_value_use_undefined(j, self);
    }
    if (jinja_value_is_number(self)) {
        return jinja_value_float(jinja_value_as_float(self));
    }
    if (self.kind == JINJA_STR && jinja_number_parse_float(j, self.s, self.n, &f)) {
        return jinja_value_float(f);
    }
    return arg[0].kind == JINJA_MISSING ? jinja_value_float(0) : arg[0];
}

static void need_number(struct jinja *j, const char *what, struct jinja_value v)
{
    if (v.kind == JINJA_UNDEFINED) {
        jinja_value_use_undefined(j, v);
    }
    if (!jinja_value_is_number(v)) {
        jinja_fail(j, "%s: a number, not a %s", what, jinja_value_type(v));
    }
}

FILTER(filter_abs)
{
    (void)arg, (void)args;
    need_number(j, "abs", self);
    if (self.kind == JINJA_FLOAT) {
        return jinja_value_float(fabs(self.f));
    }
    return self.kind == JINJA_INT && self.i < 0 ? jinja_number_negate(j, self)
                                                : jinja_op_sign(j, false, self);
}

FILTER(filter_round)
{
    (void)args;
    int64_t digits = jinja_call_int(j, arg[0], 0);
    struct jinja_value method = jinja_call_str(j, arg[1], "common");
    need_number(j, "round", self);
    if (jinja_value_is_str(method, "common", 6)) {
        return jinja_number_round(j, self, digits);
    }
    bool ceiling = jinja_value_is_str(method, "ceil", 4);
    if (!ceiling && !jinja_value_is_str(method, "floor", 5)) {
        jinja_fail(j, "method must be common, ceil or floor");
    }
    struct jinja_value scale =
        jinja_number_op(j, JINJA_POW, jinja_value_int(10), jinja_value_int(digits));
    struct jinja_value v = jinja_number_op(j, JINJA_MUL, self, scale);
    if (v.kind == JINJA_FLOAT) {
        v = jinja_number_truncate(j, ceiling ? ceil(v.f) : floor(v.f));
    }
    return jinja_number_op(j, JINJA_DIV, v, scale);
}

FILTER(filter_filesizeformat)
{
    (void)args;
    double bytes;
    static const char *const prefixes = "kMGTPEZY";
    bool binary = jinja_call_bool(arg[0], false);
    double base = binary ? 1024 : 1000, unit = base;
    if (self.kind == JINJA_STR && !jinja_number_parse_float(j, self.s, self.n, &bytes)) {
        jinja_fail(j, "could not convert string to float");
    }
    if (self.kind != JINJA_STR) {
        need_number(j, "filesizeformat", self);
        bytes = jinja_value_as_float(self);
    }
    char text[400];
    if (bytes == 1) {
        return JINJA_LITERAL("1 Byte");
    }
    if (bytes < base) {
        struct jinja_value whole = jinja_number_truncate(j, bytes);
        snprintf(text, sizeof(text), "%" PRId64 " Bytes", whole.i);
        return jinja_value_text(j, text, strlen(text));
    }
    size_t i = 0;
    for (; i < 7 && bytes >= unit * base; i++) {
        unit *= base;
    }
    char prefix = binary && i == 0 ? 'K' : prefixes[i];
    snprintf(text, sizeof(text), "%.1f %c%sB", bytes / unit, prefix, binary ? "i" : "");
    return jinja_value_text(j, text, strlen(text));
}

/* ---- others ---- */

FILTER(filter_default)
{
    (void)j, (void)args;
    bool falsy = jinja_call_bool(arg[1], false) && !jinja_value_is_true(self);
    if (self.kind != JINJA_UNDEFINED && !falsy) {
        return self;
    }
    return arg[0].kind == JINJA_MISSING ? JINJA_LITERAL("") : arg[0];
}

FILTER(filter_length)
{
    (void)arg, (void)args;
    int64_t n;
    if (!jinja_value_length(j, self, &n)) {
        jinja_fail(j, "object of type '%s' has no len()", jinja_value_type(self));
    }
    return jinja_value_int(n);
}

FILTER(filter_attr)
{
    (void)args;
    struct jinja_value name = jinja_call_str(j, arg[0], NULL), v;
    if (self.kind == JINJA_UNDEFINED) {
        jinja_value_use_undefined(j, self);
    }
    return jinja_attr_find(j, self, name.s, name.n, &v)
               ? v
               : jinja_value_no_attr(self.kind, name.s, name.n);
}

/* As the transformers library defines it: json.dumps, without escapes for HTML. */
FILTER(filter_tojson)
{
    (void)args;
    struct jinja_json how = {
        .ascii = jinja_call_bool(arg[0], false),
        .indent = or_none(arg[1]),
        .sort = jinja_call_bool(arg[3], false),
    };
    if (how.indent.kind == JINJA_BOOL) {
        how.indent = jinja_value_int(how.indent.b);
    }
    if (how.indent.kind != JINJA_NONE && how.indent.kind != JINJA_STR) {
        how.indent = jinja_value_int(jinja_call_int(j, how.indent, 0));
    }
    how.item = how.indent.kind == JINJA_NONE ? JINJA_LITERAL(", ") : JINJA_LITERAL(",");
    how.key = JINJA_LITERAL(": ");
    if (or_none(arg[2]).kind != JINJA_NONE) {
        struct jinja_value pair = jinja_iter_list(j, arg[2]);
        if (pair.n != 2) {
            jinja_fail(j, "tojson: separators are two texts");
        }
        how.item = jinja_call_str(j, pair.items[0], NULL);
        how.key = jinja_call_str(j, pair.items[1], NULL);
    }
    size_t mark = jinja_capture(j);
    jinja_text_put_json(j, self, &how);
    return jinja_captured(j, mark);
}

static const struct jinja_builtin filters[] = {
    {"tojson", "ensure_ascii? indent? separators? sort_keys?", filter_tojson},
    {"trim", "chars?", filter_trim},
    {"length", "", filter_length},
    {"count", "", filter_length},
    {"default", "default_value? boolean?", filter_default},
    {"d", "default_value? boolean?", filter_default},
    {"string", "", filter_string},
    {"upper", "", filter_upper},
    {"lower", "", filter_lower},
    {"title", "", filter_title},
    {"capitalize", "", filter_capitalize},
    {"center", "width?", filter_center},
    {"replace", "old new count?", filter_replace},
    {"indent", "width? first? blank?", filter_indent},
    {"truncate", "length? killwords? end? leeway?", filter_truncate},
    {"wordcount", "", filter_wordcount},
    {"safe", "", filter_safe},
    {"escape", "", filter_escape},
    {"e", "", filter_escape},
    {"forceescape", "", filter_forceescape},
    {"format", "*", filter_format},
    {"urlencode", "", filter_urlencode},
    {"xmlattr", "autospace?", filter_xmlattr},
    {"int", "default? base?", filter_int},
    {"float", "default?", filter_float},
    {"abs", "", filter_abs},
    {"round", "precision? method?", filter_round},
    {"filesizeformat", "binary?", filter_filesizeformat},
    {"attr", "name", filter_attr},
};

const struct jinja_builtin *jinja_filter_find(const char *name, size_t n)
{
    const struct jinja_builtin *b = jinja_call_find(filters, COUNT_OF(filters), name, n);
    return b ? b : jinja_call_find(jinja_seq_filters, jinja_seq_n_filters, name, n);
}
