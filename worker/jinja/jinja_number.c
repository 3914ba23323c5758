/* Arithmetic, rounding, parsing and printing of numbers. Pure. */
#include "worker/jinja/jinja_number.h"
#include "worker/jinja/jinja_unicode.h"

#include <ctype.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

NORETURN static void fail_big(struct jinja *j)
{
    jinja_fail(j, "an integer of more than 64 bits");
}

static int64_t floor_div(struct jinja *j, int64_t a, int64_t b, int64_t *ret_mod)
{
    if (b == 0) {
        jinja_fail(j, "integer division or modulo by zero");
    }
    if (b == -1) { /* the one quotient that overflows */
        if (a == INT64_MIN) {
            fail_big(j);
        }
        *ret_mod = 0;
        return -a;
    }
    int64_t q = a / b, m = a % b;
    if (m != 0 && (m < 0) != (b < 0)) {
        m += b;
        q--;
    }
    *ret_mod = m;
    return q;
}

static int64_t power(struct jinja *j, int64_t base, int64_t exponent)
{
    int64_t r = 1;
    while (exponent > 0) {
        if ((exponent & 1) && __builtin_mul_overflow(r, base, &r)) {
            fail_big(j);
        }
        exponent >>= 1;
        if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) {
            fail_big(j);
        }
    }
    return r;
}

static struct jinja_value int_op(struct jinja *j, enum jinja_op op, int64_t a, int64_t b)
{
    int64_t r = 0, mod;
    bool over = false;
    switch (op) {
    case JINJA_ADD:
        over = __builtin_add_overflow(a, b, &r);
        break;
    case JINJA_SUB:
        over = __builtin_sub_overflow(a, b, &r);
        break;
    case JINJA_MUL:
        over = __builtin_mul_overflow(a, b, &r);
        break;
    case JINJA_FLOORDIV:
        r = floor_div(j, a, b, &mod);
        break;
    case JINJA_MOD:
        floor_div(j, a, b, &r);
        break;
    default:
        r = power(j, a, b);
    }
    if (over) {
        fail_big(j);
    }
    return jinja_value_int(r);
}

/* The sign of the divisor, and a quotient that fits the remainder. */
static double float_mod(double a, double b, double *ret_floor)
{
    double mod = fmod(a, b), div = (a - mod) / b;
    if (mod != 0) {
        if ((b < 0) != (mod < 0)) {
            mod += b;
            div -= 1;
        }
    } else {
        mod = copysign(0.0, b);
    }
    if (div != 0) {
        *ret_floor = floor(div);
        if (div - *ret_floor > 0.5) {
            *ret_floor += 1;
        }
    } else {
        *ret_floor = copysign(0.0, a / b);
    }
    return mod;
}

static double float_op(struct jinja *j, enum jinja_op op, double a, double b)
{
    double r, floored;
    switch (op) {
    case JINJA_ADD:
        return a + b;
    case JINJA_SUB:
        return a - b;
    case JINJA_MUL:
        return a * b;
    case JINJA_DIV:
    case JINJA_FLOORDIV:
    case JINJA_MOD:
        if (b == 0) {
            jinja_fail(j, op == JINJA_MOD ? "float modulo by zero" : "division by zero");
        }
        if (op == JINJA_DIV) {
            return a / b;
        }
        r = float_mod(a, b, &floored);
        return op == JINJA_MOD ? r : floored;
    case JINJA_POW:
        break;
    }
    if (a == 0 && b < 0) {
        jinja_fail(j, "0.0 cannot be raised to a negative power");
    }
    r = pow(a, b);
    if (isnan(r) && !isnan(a) && !isnan(b)) {
        jinja_fail(j, "a negative number cannot be raised to a fractional power");
    }
    if (isinf(r) && isfinite(a) && isfinite(b)) {
        jinja_fail(j, "the result of a power is too large");
    }
    return r;
}

struct jinja_value jinja_number_op(struct jinja *j, enum jinja_op op, struct jinja_value a,
                                   struct jinja_value b)
{
    int64_t x, y;
    if (jinja_value_as_int(a, &x) && jinja_value_as_int(b, &y) && op != JINJA_DIV &&
        (op != JINJA_POW || y >= 0)) {
        return int_op(j, op, x, y);
    }
    return jinja_value_float(float_op(j, op, jinja_value_as_float(a), jinja_value_as_float(b)));
}

struct jinja_value jinja_number_negate(struct jinja *j, struct jinja_value v)
{
    if (v.kind == JINJA_FLOAT) {
        return jinja_value_float(-v.f);
    }
    return int_op(j, JINJA_SUB, 0, v.kind == JINJA_INT ? v.i : v.b);
}

struct jinja_value jinja_number_truncate(struct jinja *j, double v)
{
    if (!isfinite(v)) {
        jinja_fail(j, "cannot convert float %s to integer", isnan(v) ? "NaN" : "infinity");
    }
    if (v < -0x1p63 || v >= 0x1p63) {
        fail_big(j);
    }
    return jinja_value_int((int64_t)v);
}

/* Rounds decimal digits to a multiple of 10^places, half to even; rest: something nonzero follows
 * the digits. */
static void round_digits(char *digits, size_t n, size_t places, bool rest)
{
    size_t keep = n - places; /* the last kept digit's place is keep - 1 */
    bool up = digits[keep] > '5';
    if (digits[keep] == '5') {
        bool more = rest;
        for (size_t i = keep + 1; i < n; i++) {
            more = more || digits[i] != '0';
        }
        up = more || (digits[keep - 1] - '0') % 2 == 1;
    }
    memset(digits + keep, '0', places);
    for (size_t i = keep; up && i > 0; i--) {
        up = digits[i - 1] == '9';
        digits[i - 1] = (char)(up ? '0' : digits[i - 1] + 1);
    }
}

struct jinja_value jinja_number_round(struct jinja *j, struct jinja_value v, int64_t digits)
{
    char text[800];
    if (v.kind == JINJA_FLOAT) {
        /* printf rounds the exact value half to even, as Python does. */
        if (!isfinite(v.f) || digits > 323) {
            return v;
        }
        if (digits >= 0) {
            snprintf(text, sizeof(text), "%.*f", (int)digits, v.f);
            return jinja_value_float(strtod(text, NULL));
        }
    } else if (digits >= 0) {
        return jinja_value_int(v.kind == JINJA_INT ? v.i : v.b);
    }
    bool negative, rest = false;
    int n;
    if (v.kind == JINJA_FLOAT) {
        double whole = trunc(fabs(v.f));
        negative = signbit(v.f) != 0;
        rest = whole != fabs(v.f);
        n = snprintf(text, sizeof(text), "0%.0f", whole);
    } else {
        int64_t i = v.kind == JINJA_INT ? v.i : v.b;
        negative = i < 0;
        n = snprintf(text, sizeof(text), "0%" PRIu64, negative ? 0 - (uint64_t)i : (uint64_t)i);
    }
    if (-digits >= n) {
        return v.kind == JINJA_FLOAT ? jinja_value_float(copysign(0.0, v.f)) : jinja_value_int(0);
    }
    round_digits(text, (size_t)n, (size_t)-digits, rest);
    if (v.kind == JINJA_FLOAT) {
        double r = strtod(text, NULL);
        return jinja_value_float(negative ? -r : r);
    }
    int64_t r;
    if (!jinja_number_parse_int(j, text, (size_t)n, 10, &r)) {
        fail_big(j);
    }
    return jinja_value_int(negative ? -r : r);
}

static int digit_of(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'z' ? c - 'a' + 10
           : c >= 'A' && c <= 'Z' ? c - 'A' + 10
                                  : 99;
}

bool jinja_number_parse_int(struct jinja *j, const char *s, size_t n, int64_t base, int64_t *ret)
{
    if (base != 0 && (base < 2 || base > 36)) {
        return false;
    }
    struct jinja_value t = jinja_unicode_trim(jinja_value_str(s, n), true, true);
    s = t.s;
    const char *end = t.s + t.n;
    jinja_step(j, t.n / 8);
    bool negative = s < end && *s == '-';
    if (s < end && (*s == '-' || *s == '+')) {
        s++;
    }
    int prefix = 10;
    if (end - s >= 2 && s[0] == '0') {
        int c = tolower((unsigned char)s[1]);
        prefix = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 10;
    }
    bool literal = base == 0;
    base = literal ? prefix : base;
    bool after_digit = false, big = false;
    if (prefix == base && prefix != 10) {
        s += 2;
        after_digit = s < end && *s == '_'; /* one underscore may follow the prefix */
    }
    int64_t value = 0;
    size_t n_digits = 0;
    bool zero_first = s < end && *s == '0';
    for (; s < end; s++) {
        if (*s == '_' && after_digit) {
            after_digit = false;
            continue;
        }
        int d = digit_of(*s);
        if (d >= base) {
            return false;
        }
        big = big || __builtin_mul_overflow(value, base, &value) ||
              __builtin_sub_overflow(value, d, &value); /* negative: its range is one larger */
        after_digit = true;
        n_digits++;
    }
    if (!after_digit || (literal && base == 10 && zero_first && (value != 0 || big))) {
        return false;
    }
    if (n_digits > 4300 && (base & (base - 1)) != 0) {
        return false; /* Python refuses to read so many */
    }
    if (big || (!negative && value == INT64_MIN)) {
        fail_big(j);
    }
    *ret = negative ? value : -value;
    return true;
}

bool jinja_number_parse_float(struct jinja *j, const char *s, size_t n, double *ret)
{
    struct jinja_value t = jinja_unicode_trim(jinja_value_str(s, n), true, true);
    jinja_step(j, t.n / 8);
    char *copy = jinja_alloc(j, (size_t)t.n + 1);
    size_t len = 0;
    bool word = false;
    for (size_t i = 0; i < t.n; i++) {
        char c = t.s[i];
        if (c == '_') { /* between digits only */
            if (i == 0 || i + 1 == t.n || digit_of(t.s[i - 1]) > 9 || digit_of(t.s[i + 1]) > 9) {
                return false;
            }
            continue;
        }
        if (!strchr("0123456789+-.eE", c)) {
            word = true;
        }
        if (c == 0) {
            return false;
        }
        copy[len++] = c;
    }
    if (len == 0) {
        return false;
    }
    if (word) { /* of words only these; strtod knows hexadecimal and payloads besides */
        const char *w = copy + (copy[0] == '-' || copy[0] == '+');
        if (strcasecmp(w, "inf") != 0 && strcasecmp(w, "infinity") != 0 &&
            strcasecmp(w, "nan") != 0) {
            return false;
        }
    }
    char *end;
    double v = strtod(copy, &end);
    if (*end) {
        return false;
    }
    *ret = v;
    return true;
}

int jinja_number_print(double v, char out[JINJA_NUMBER_BYTES])
{
    if (!isfinite(v)) {
        return snprintf(out, JINJA_NUMBER_BYTES, "%s", isnan(v) ? "nan" : v < 0 ? "-inf" : "inf");
    }
    /* 15 digits survive any normal double, so fewer need no trial; subnormals hold fewer. */
    char text[JINJA_NUMBER_BYTES];
    for (int digits = fabs(v) < DBL_MIN ? 0 : DBL_DIG - 1; digits < DBL_DECIMAL_DIG; digits++) {
        snprintf(text, sizeof(text), "%.*e", digits, v);
        if (strtod(text, NULL) == v) {
            break;
        }
    }
    char digits[24];
    int n = 0;
    const char *p = text + (text[0] == '-');
    for (; *p != 'e'; p++) {
        if (*p != '.') {
            digits[n++] = *p;
        }
    }
    int exponent = atoi(p + 1);
    while (n > 1 && digits[n - 1] == '0') {
        n--;
    }
    const char *sign = text[0] == '-' ? "-" : "";
    if (exponent < -4 || exponent >= 16) {
        return snprintf(out, JINJA_NUMBER_BYTES, "%s%c%s%.*se%c%02d", sign, digits[0],
                        n > 1 ? "." : "", n - 1, digits + 1, exponent < 0 ? '-' : '+',
                        abs(exponent));
    }
    if (exponent < 0) {
        return snprintf(out, JINJA_NUMBER_BYTES, "%s0.%.*s%.*s", sign, -exponent - 1, "000", n,
                        digits);
    }
    int whole = MIN(exponent + 1, n);
    return snprintf(out, JINJA_NUMBER_BYTES, "%s%.*s%.*s.%.*s", sign, whole, digits,
                    exponent + 1 - whole, "0000000000000000", MAX(n - whole, 1),
                    n > whole ? digits + whole : "0");
}
