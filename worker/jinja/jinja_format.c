/* The % operator and str.format(). Prints into a capture. */
#include "worker/jinja/jinja_format.h"
#include "worker/jinja/jinja_attr.h"
#include "worker/jinja/jinja_dict.h"
#include "worker/jinja/jinja_number.h"
#include "worker/jinja/jinja_op.h"
#include "worker/jinja/jinja_spec.h"
#include "worker/jinja/jinja_text.h"
#include "worker/jinja/jinja_unicode.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* ---- % ---- */

struct percent {
    struct jinja *j;
    struct jinja_value format, values;
    size_t at;
    bool is_tuple;   /* values are taken one by one */
    bool is_mapping; /* ... or by name, and need not all be used */
    uint32_t used;
    bool markup;
};

static char peek(const struct percent *p)
{
    return p->at < p->format.n ? p->format.s[p->at] : 0;
}

static struct jinja_value next_value(struct percent *p)
{
    uint32_t n = p->is_tuple ? p->values.n : 1;
    if (p->used >= n) {
        jinja_fail(p->j, "not enough arguments for format string");
    }
    return p->is_tuple ? p->values.items[p->used++] : (p->used++, p->values);
}

static struct jinja_value named_value(struct percent *p)
{
    size_t from = p->at, depth = 1;
    for (; p->at < p->format.n && depth; p->at++) {
        depth += p->format.s[p->at] == '(';
        depth -= p->format.s[p->at] == ')';
    }
    if (depth) {
        jinja_fail(p->j, "incomplete format key");
    }
    if (p->values.kind != JINJA_DICT) {
        jinja_fail(p->j, "format requires a mapping");
    }
    size_t n = p->at - 1 - from;
    const char *name = p->format.s + from;
    struct jinja_value *v = jinja_dict_get_str(p->j, p->values.dict, name, n);
    if (!v) {
        jinja_fail(p->j, "the format names '%.*s', which was not given", (int)MIN(n, (size_t)100),
                   name);
    }
    return *v;
}

static int64_t number(struct percent *p)
{
    int64_t n = 0;
    if (peek(p) == '*') {
        p->at++;
        n = jinja_call_int(p->j, next_value(p), 0);
    }
    for (; isdigit((unsigned char)peek(p)); p->at++) {
        n = n * 10 + (peek(p) - '0');
        if (n > INT32_MAX) {
            break;
        }
    }
    if (n > INT32_MAX || n < -INT32_MAX) {
        jinja_fail(p->j, "a width or precision in a format is too large");
    }
    return n;
}

/* %d and the like: precision is the least number of digits. */
static void put_percent_int(struct percent *p, struct jinja_spec *spec, struct jinja_value v,
                            char type)
{
    struct jinja *j = p->j;
    int64_t i = 0;
    bool decimal = type == 'd' || type == 'i' || type == 'u';
    if (v.kind == JINJA_UNDEFINED) {
        jinja_value_use_undefined(j, v);
    }
    if (v.kind == JINJA_FLOAT && decimal) {
        v = jinja_number_truncate(j, v.f);
    }
    if (!jinja_value_as_int(v, &i)) {
        jinja_fail(j, "%%%c format: %s is required, not %s", type,
                   decimal ? "a real number" : "an integer", jinja_value_type(v));
    }
    spec->type = decimal ? 'd' : type;
    int64_t digits = spec->precision;
    spec->precision = -1;
    if (digits <= 0) {
        jinja_spec_put_int(j, spec, i);
        return;
    }
    struct jinja_spec inner = *spec; /* as many digits as asked for, then the field */
    inner.width = digits + (i < 0 || spec->sign) + (spec->alternate && !decimal ? 2 : 0);
    inner.fill = JINJA_LITERAL("0");
    inner.align = '0';
    size_t mark = jinja_capture(j);
    jinja_spec_put_int(j, &inner, i);
    struct jinja_value text = jinja_captured(j, mark);
    struct jinja_spec outer = {.fill = spec->fill,
                               .align = spec->align == '<' ? '<' : '>',
                               .width = spec->width,
                               .precision = -1};
    jinja_spec_put_str(j, &outer, text);
}

static void put_percent_text(struct percent *p, struct jinja_spec *spec, struct jinja_value v,
                             char type)
{
    struct jinja *j = p->j;
    if (type == 'c') {
        int64_t i;
        if (jinja_value_as_int(v, &i)) {
            spec->type = 'c';
            spec->align = spec->align ? spec->align : '>';
            jinja_spec_put_int(j, spec, i);
            return;
        }
        if (v.kind != JINJA_STR || v.n == 0 || jinja_unicode_step(v.s, v.n) != v.n) {
            jinja_fail(j, "%%c requires int or char");
        }
    }
    v = type == 's' || type == 'c' ? jinja_text_soft(j, v) : jinja_text_repr(j, v);
    if (p->markup) {
        v = jinja_text_escape(j, v);
    }
    spec->align = spec->align == '<' ? '<' : '>';
    spec->fill = JINJA_LITERAL(" ");
    spec->sign = 0;
    spec->alternate = false;
    if (type == 'c') {
        spec->precision = -1;
    }
    jinja_spec_put_str(j, spec, v);
}

static void put_percent_float(struct percent *p, struct jinja_spec *spec, struct jinja_value v,
                              char type)
{
    if (v.kind == JINJA_UNDEFINED) {
        jinja_value_use_undefined(p->j, v);
    }
    if (!jinja_value_is_number(v)) {
        jinja_fail(p->j, "must be real number, not %s", jinja_value_type(v));
    }
    spec->type = type;
    jinja_spec_put_float(p->j, spec, jinja_value_as_float(v));
}

/* What stands behind a '%'. */
static void conversion(struct percent *p)
{
    struct jinja_spec spec = {.fill = JINJA_LITERAL(" "), .precision = -1};
    struct jinja_value v = {.kind = JINJA_MISSING};
    if (peek(p) == '(') {
        p->at++;
        v = named_value(p);
    }
    for (; peek(p) && strchr("-+ #0", peek(p)); p->at++) {
        char c = peek(p);
        if (c == '-') {
            spec.align = '<';
            spec.fill = JINJA_LITERAL(" ");
        } else if (c == '0' && spec.align != '<') {
            spec.align = '0';
            spec.fill = JINJA_LITERAL("0");
        } else if (c == '#') {
            spec.alternate = true;
        } else if (c == '+' || (c == ' ' && !spec.sign)) {
            spec.sign = c;
        }
    }
    spec.width = number(p);
    if (spec.width < 0) {
        spec.align = '<';
        spec.fill = JINJA_LITERAL(" ");
        spec.width = -spec.width;
    }
    if (peek(p) == '.') {
        p->at++;
        int64_t precision = number(p);
        spec.precision = MAX(precision, 0);
    }
    while (peek(p) && strchr("hlL", peek(p))) {
        p->at++;
    }
    char type = peek(p);
    if (!type) {
        jinja_fail(p->j, "incomplete format");
    }
    p->at++;
    if (type == '%') {
        jinja_put(p->j, "%", 1);
        return;
    }
    v = v.kind == JINJA_MISSING ? next_value(p) : v;
    if (strchr("diuoxX", type)) {
        put_percent_int(p, &spec, v, type);
    } else if (strchr("eEfFgG", type)) {
        put_percent_float(p, &spec, v, type);
    } else if (strchr("srac", type)) {
        put_percent_text(p, &spec, v, type);
    } else {
        jinja_fail(p->j, "unsupported format character '%c'", type);
    }
}

struct jinja_value jinja_format_percent(struct jinja *j, struct jinja_value format,
                                        struct jinja_value values)
{
    struct percent p = {.j = j, .format = format, .values = values};
    p.is_tuple = values.kind == JINJA_TUPLE;
    p.is_mapping = values.kind == JINJA_DICT || values.kind == JINJA_LIST ||
                   values.kind == JINJA_RANGE || values.kind == JINJA_UNDEFINED;
    p.markup = jinja_value_is_markup(format);
    size_t mark = jinja_capture(j);
    while (p.at < format.n) {
        const char *next = memchr(format.s + p.at, '%', format.n - p.at);
        size_t to = next ? (size_t)(next - format.s) : format.n;
        jinja_put(j, format.s + p.at, to - p.at);
        p.at = to;
        if (next) {
            p.at++;
            jinja_step(j, 2);
            conversion(&p);
        }
    }
    if (p.used < (p.is_tuple ? values.n : 1) && !p.is_mapping) {
        jinja_fail(j, "not all arguments converted during string formatting");
    }
    struct jinja_value v = jinja_captured(j, mark);
    v.flag = format.flag;
    return v;
}

/* ---- format() ---- */

struct braces {
    struct jinja *j;
    const struct jinja_args *args;
    uint32_t next;          /* of automatic numbering */
    bool automatic, manual; /* which numbering was seen */
    bool markup;
};

static struct jinja_value first_field(struct braces *b, const char *s, size_t n)
{
    struct jinja *j = b->j;
    int64_t i = 0;
    bool is_number = n == 0 || isdigit((unsigned char)s[0]);
    if (!is_number) {
        for (uint32_t k = 0; k < b->args->n_kw; k++) {
            jinja_step(j, 1);
            if (jinja_value_is_str(b->args->kw[k].name, s, n)) {
                return b->args->kw[k].value;
            }
        }
        jinja_fail(j, "the format names '%.*s', which was not given", (int)MIN(n, (size_t)100), s);
    }
    b->automatic = b->automatic || n == 0;
    b->manual = b->manual || n > 0;
    if (b->automatic && b->manual) {
        jinja_fail(j, "a format numbers some fields and others not");
    }
    if (n == 0) {
        i = b->next++;
    } else if (!jinja_number_parse_int(j, s, n, 10, &i)) {
        jinja_fail(j, "'%.*s' is no field of a format", (int)MIN(n, (size_t)100), s);
    }
    if (i >= b->args->n_pos) {
        jinja_fail(j, "Replacement index %u out of range for positional args tuple", (unsigned)i);
    }
    return b->args->pos[i];
}

/* "0.name[key]" */
static struct jinja_value field(struct braces *b, const char *s, size_t n)
{
    struct jinja *j = b->j;
    size_t at = 0;
    while (at < n && s[at] != '.' && s[at] != '[') {
        at++;
    }
    struct jinja_value v = first_field(b, s, at);
    while (at < n) {
        size_t from = at + 1;
        bool is_item = s[at] == '[';
        at = from;
        while (at < n && (is_item ? s[at] != ']' : s[at] != '.' && s[at] != '[')) {
            at++;
        }
        if (at == from || (is_item && at == n)) {
            jinja_fail(j, "an empty attribute or a missing ']' in a format");
        }
        int64_t i = 0;
        if (!is_item) {
            v = jinja_attr_get(j, v, s + from, at - from);
        } else {
            bool is_index = isdigit((unsigned char)s[from]) &&
                            jinja_number_parse_int(j, s + from, at - from, 10, &i);
            v = jinja_op_item(j, v,
                              is_index ? jinja_value_int(i) : jinja_value_str(s + from, at - from));
        }
        at += is_item;
        if (is_item && at < n && s[at] != '.' && s[at] != '[') {
            jinja_fail(j, "only '.' or '[' may follow ']' in a format");
        }
    }
    return v;
}

static void put_braces(struct braces *b, struct jinja_value format, int depth);

/* "name!conversion:specification" */
static void replacement(struct braces *b, struct jinja_value text, int depth)
{
    struct jinja *j = b->j;
    size_t name = 0, brackets = 0;
    while (name < text.n && (brackets || (text.s[name] != '!' && text.s[name] != ':'))) {
        brackets = text.s[name] == '[' ? 1 : text.s[name] == ']' ? 0 : brackets;
        name++;
    }
    struct jinja_value v = field(b, text.s, name);
    size_t at = name;
    char conversion = 0;
    if (at < text.n && text.s[at] == '!') {
        conversion = at + 1 < text.n ? text.s[at + 1] : 0;
        at += 2;
        if (!conversion || !strchr("rsa", conversion) || (at < text.n && text.s[at] != ':')) {
            jinja_fail(j, "a conversion in a format must be !r, !s or !a");
        }
    }
    struct jinja_value spec = JINJA_LITERAL("");
    if (at < text.n) {
        size_t mark = jinja_capture(j);
        put_braces(b, jinja_value_str(text.s + at + 1, text.n - at - 1), depth + 1);
        spec = jinja_captured(j, mark);
    }
    if (conversion) {
        v = conversion == 's' ? jinja_text_str(j, v) : jinja_text_repr(j, v);
    }
    size_t mark = jinja_capture(j);
    if (spec.n) {
        struct jinja_spec parsed = jinja_spec_parse(j, spec);
        jinja_spec_put(j, &parsed, v);
    } else {
        jinja_text_put(j, v);
    }
    if (b->markup && !jinja_value_is_markup(v)) {
        struct jinja_value escaped = jinja_text_escape(j, jinja_captured(j, mark));
        jinja_put(j, escaped.s, escaped.n);
    }
}

static void put_braces(struct braces *b, struct jinja_value format, int depth)
{
    struct jinja *j = b->j;
    if (depth > 1) {
        jinja_fail(j, "fields of a format nested too deep");
    }
    for (size_t at = 0; at < format.n;) {
        size_t from = at;
        while (at < format.n && format.s[at] != '{' && format.s[at] != '}') {
            at++;
        }
        jinja_put(j, format.s + from, at - from);
        if (at == format.n) {
            break;
        }
        jinja_step(j, 2);
        char c = format.s[at++];
        if (at < format.n && format.s[at] == c && depth == 0) {
            jinja_put(j, &c, 1);
            at++;
            continue;
        }
        from = at;
        size_t open = c == '{';
        for (; at < format.n && open; at++) {
            open += format.s[at] == '{';
            open -= format.s[at] == '}';
        }
        if (c == '}' || open) {
            jinja_fail(j, c == '}' ? "Single '}' encountered in format string"
                                   : "expected '}' before end of string");
        }
        replacement(b, jinja_value_str(format.s + from, at - 1 - from), depth);
    }
}

struct jinja_value jinja_format_braces(struct jinja *j, struct jinja_value format,
                                       const struct jinja_args *args)
{
    struct braces b = {.j = j, .args = args, .markup = jinja_value_is_markup(format)};
    size_t mark = jinja_capture(j);
    put_braces(&b, format, 0);
    struct jinja_value v = jinja_captured(j, mark);
    v.flag = format.flag;
    return v;
}
