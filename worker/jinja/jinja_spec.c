/* Fields: width, alignment, sign, grouping, precision. Pure; prints. */
#include "worker/jinja/jinja_spec.h"
#include "shared/utf8.h"
#include "worker/jinja/jinja_number.h"
#include "worker/jinja/jinja_text.h"
#include "worker/jinja/jinja_unicode.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

NORETURN static void fail_spec(struct jinja *j, struct jinja_value text)
{
    jinja_fail(j, "Invalid format specifier '%.*s'", (int)MIN(text.n, 60u), text.s);
}

static int64_t parse_count(struct jinja *j, struct jinja_value text, size_t *at)
{
    int64_t n = 0;
    for (; *at < text.n && isdigit((unsigned char)text.s[*at]); (*at)++) {
        n = n * 10 + (text.s[*at] - '0');
        if (n > INT32_MAX) {
            jinja_fail(j, "a width or precision in a format is too large");
        }
    }
    return n;
}

struct jinja_spec jinja_spec_parse(struct jinja *j, struct jinja_value text)
{
    struct jinja_spec s = {.fill = JINJA_LITERAL(" "), .precision = -1};
    size_t at = 0, first = text.n ? jinja_unicode_step(text.s, text.n) : 0;
    if (text.n > first && strchr("<>^=", text.s[first]) && text.s[first]) {
        s.fill = jinja_value_str(text.s, first);
        s.align = text.s[first];
        at = first + 1;
    } else if (text.n && strchr("<>^=", text.s[0]) && text.s[0]) {
        s.align = text.s[0];
        at = 1;
    }
    if (at < text.n && (text.s[at] == '+' || text.s[at] == '-' || text.s[at] == ' ')) {
        s.sign = text.s[at] == '-' ? 0 : text.s[at];
        at++;
    }
    if (at < text.n && text.s[at] == '#') {
        s.alternate = true;
        at++;
    }
    if (at < text.n && text.s[at] == '0') {
        if (!s.align) {
            s.fill = JINJA_LITERAL("0");
            s.align = '0'; /* '=' for numbers, '<' for texts */
        }
        at++;
    }
    s.width = parse_count(j, text, &at);
    if (at < text.n && (text.s[at] == ',' || text.s[at] == '_')) {
        s.group = text.s[at++];
    }
    if (at < text.n && text.s[at] == '.') {
        size_t digits = ++at;
        s.precision = parse_count(j, text, &at);
        if (at == digits) {
            jinja_fail(j, "Format specifier missing precision");
        }
    }
    if (at < text.n) {
        s.type = text.s[at++];
    }
    if (at != text.n) {
        fail_spec(j, text);
    }
    return s;
}

static void put_fill(struct jinja *j, struct jinja_value fill, int64_t n)
{
    if (fill.n == 1) {
        jinja_put_fill(j, fill.s[0], (size_t)MAX(n, 0));
        return;
    }
    for (; n > 0; n--) {
        jinja_step(j, 1);
        jinja_put(j, fill.s, fill.n);
    }
}

/* sign and prefix, then the rest; the fill of '=' goes between. */
static void put_field(struct jinja *j, const struct jinja_spec *spec, const char *head,
                      struct jinja_value rest, char align)
{
    int64_t used = (int64_t)(strlen(head) + jinja_unicode_count(rest.s, rest.n));
    int64_t pad = MAX(spec->width - used, 0);
    jinja_step(j, rest.n / 32);
    int64_t left = align == '>' ? pad : align == '^' ? pad / 2 : 0;
    put_fill(j, spec->fill, left);
    jinja_put_str(j, head);
    if (align == '=') {
        put_fill(j, spec->fill, pad);
    }
    jinja_put(j, rest.s, rest.n);
    if (align == '<' || align == '^') {
        put_fill(j, spec->fill, pad - left);
    }
}

void jinja_spec_put_str(struct jinja *j, const struct jinja_spec *spec, struct jinja_value s)
{
    if ((spec->type && spec->type != 's') || spec->sign || spec->group || spec->alternate ||
        spec->align == '=') {
        jinja_fail(j, "a format that is not for texts");
    }
    if (spec->precision >= 0) {
        jinja_step(j, s.n / 32);
        s.n = (uint32_t)jinja_unicode_offset(s.s, s.n, (size_t)spec->precision);
    }
    put_field(j, spec, "", s, spec->align && spec->align != '0' ? spec->align : '<');
}

/* The digits of a number with separators; zeros are put before them up to the width, as a group may
 * have to be opened for them. */
static struct jinja_value grouped(struct jinja *j, const struct jinja_spec *spec,
                                  struct jinja_value digits, size_t n_whole, int64_t width,
                                  size_t every)
{
    int64_t zeros = 0, tail = (int64_t)(digits.n - n_whole);
    if (spec->fill.n == 1 && spec->fill.s[0] == '0' && spec->align == '0') {
        int64_t whole = (int64_t)n_whole;
        while (whole + (whole - 1) / (int64_t)every + tail < width) {
            jinja_step(j, 1);
            whole++;
        }
        zeros = whole - (int64_t)n_whole;
    }
    size_t n = n_whole + (size_t)zeros, mark = jinja_capture(j);
    for (size_t i = 0; i < n; i++) {
        if (i && (n - i) % every == 0) {
            jinja_put(j, &spec->group, 1);
        }
        jinja_put(j, i < (size_t)zeros ? "0" : &digits.s[i - (size_t)zeros], 1);
    }
    jinja_put(j, digits.s + n_whole, digits.n - n_whole);
    return jinja_captured(j, mark);
}

/* A number of which `digits` are the digits, n_whole of them before the point. */
static void put_number(struct jinja *j, const struct jinja_spec *spec, bool negative,
                       const char *prefix, struct jinja_value digits, size_t n_whole, size_t every)
{
    char head[8];
    char sign[2] = {negative ? '-' : spec->sign, 0};
    snprintf(head, sizeof(head), "%s%s", sign, prefix);
    if (spec->group) {
        digits = grouped(j, spec, digits, n_whole, spec->width - (int64_t)strlen(head), every);
    }
    put_field(j, spec, head, digits, spec->align == '0' ? '=' : spec->align ? spec->align : '>');
}

void jinja_spec_put_int(struct jinja *j, const struct jinja_spec *spec, int64_t i)
{
    char text[80], out[4];
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    unsigned base = 10;
    const char *prefix = "", *digits = "0123456789abcdef";
    switch (spec->type) {
    case 0:
    case 'd':
    case 'n':
        break;
    case 'b':
        base = 2;
        prefix = "0b";
        break;
    case 'o':
        base = 8;
        prefix = "0o";
        break;
    case 'x':
        base = 16;
        prefix = "0x";
        break;
    case 'X':
        base = 16;
        prefix = "0X";
        digits = "0123456789ABCDEF";
        break;
    case 'c': {
        int n = u <= 0x10FFFF && i >= 0 ? utf8_encode((uint32_t)u, out) : 0;
        if (n == 0) {
            jinja_fail(j, "%%c needs a character's code, not %" PRId64, i);
        }
        put_field(j, spec, "", jinja_value_str(out, (size_t)n), spec->align ? spec->align : '<');
        return;
    }
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
    case '%':
        jinja_spec_put_float(j, spec, (double)i);
        return;
    default:
        jinja_fail(j, "Unknown format code '%c' for object of type 'int'", spec->type);
    }
    if (spec->precision >= 0) {
        jinja_fail(j, "Precision not allowed in integer format specifier");
    }
    size_t at = sizeof(text);
    do {
        text[--at] = digits[u % base];
        u /= base;
    } while (u);
    size_t n = sizeof(text) - at;
    put_number(j, spec, i < 0, spec->alternate ? prefix : "", jinja_value_str(text + at, n), n,
               base == 10 ? 3 : 4);
}

/* Digits as 'g' gives them where the type is left out: like repr, with a digit behind the point. */
static int print_general(char *text, size_t bytes, double f, int precision)
{
    precision = MAX(precision, 1);
    int n = snprintf(text, bytes, "%.*e", precision - 1, f);
    int exponent = atoi(strchr(text, 'e') + 1);
    if (exponent >= -4 && exponent < precision - 1) {
        n = snprintf(text, bytes, "%.*f", precision - 1 - exponent, f);
        while (n > 0 && text[n - 1] == '0' && text[n - 2] != '.') {
            n--;
        }
        return n;
    }
    char *e = strchr(text, 'e'), *end = e;
    if (memchr(text, '.', (size_t)(e - text))) {
        while (end[-1] == '0') {
            end--;
        }
        end -= end[-1] == '.';
    }
    memmove(end, e, strlen(e) + 1);
    return n - (int)(e - end);
}

static int print_float(char *text, size_t bytes, const struct jinja_spec *spec, double f)
{
    int precision = spec->precision < 0 ? 6 : (int)spec->precision;
    switch (spec->type) {
    case 'e':
        return snprintf(text, bytes, spec->alternate ? "%#.*e" : "%.*e", precision, f);
    case 'E':
        return snprintf(text, bytes, spec->alternate ? "%#.*E" : "%.*E", precision, f);
    case 'f':
    case '%':
        return snprintf(text, bytes, spec->alternate ? "%#.*f" : "%.*f", precision, f);
    case 'F':
        return snprintf(text, bytes, spec->alternate ? "%#.*F" : "%.*F", precision, f);
    case 'G':
        return snprintf(text, bytes, spec->alternate ? "%#.*G" : "%.*G", precision, f);
    case 0:
        if (spec->precision < 0) {
            return jinja_number_print(f, text);
        }
        return isfinite(f) ? print_general(text, bytes, f, precision)
                           : snprintf(text, bytes, "%s", isnan(f) ? "nan" : "inf");
    default:
        return snprintf(text, bytes, spec->alternate ? "%#.*g" : "%.*g", precision, f);
    }
}

void jinja_spec_put_float(struct jinja *j, const struct jinja_spec *spec, double f)
{
    if (spec->type && !strchr("eEfFgGn%", spec->type)) {
        jinja_fail(j, "Unknown format code '%c' for object of type 'float'", spec->type);
    }
    if (spec->precision > JINJA_SPEC_MAX_PRECISION) {
        jinja_fail(j, "a precision of more than %d digits", JINJA_SPEC_MAX_PRECISION);
    }
    char text[JINJA_SPEC_MAX_PRECISION + 400]; /* a double has up to 309 digits before its point */
    f *= spec->type == '%' ? 100 : 1;
    bool negative = signbit(f) && !isnan(f);
    int n = print_float(text, sizeof(text), spec, fabs(f));
    if (spec->type == '%') {
        text[n++] = '%';
    }
    size_t whole = 0;
    while (whole < (size_t)n && isdigit((unsigned char)text[whole])) {
        whole++;
    }
    put_number(j, spec, negative, "", jinja_value_str(text, (size_t)n), whole, 3);
}

void jinja_spec_put(struct jinja *j, const struct jinja_spec *spec, struct jinja_value v)
{
    switch ((enum jinja_kind)v.kind) {
    case JINJA_STR:
        jinja_spec_put_str(j, spec, v);
        break;
    case JINJA_BOOL:
    case JINJA_INT:
        jinja_spec_put_int(j, spec, v.kind == JINJA_INT ? v.i : v.b);
        break;
    case JINJA_FLOAT:
        jinja_spec_put_float(j, spec, v.f);
        break;
    default:
        jinja_fail(j, "unsupported format string passed to %s.__format__", jinja_value_type(v));
    }
}
