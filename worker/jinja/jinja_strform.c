/* Methods of texts: case, width, classes of characters. Pure but for the arena. */
#include "worker/jinja/jinja_strform.h"
#include "worker/jinja/jinja_str.h"
#include "worker/jinja/jinja_unicode.h"

#include <string.h>

#define METHOD(name)                                                                               \
    static struct jinja_value name(struct jinja *j, struct jinja_value self,                       \
                                   const struct jinja_value *arg, const struct jinja_args *args)

#define CASE_METHOD(name, to)                                                                      \
    METHOD(name)                                                                                   \
    {                                                                                              \
        (void)arg, (void)args;                                                                     \
        return jinja_str_like(self, jinja_unicode_map(j, self.s, self.n, to));                     \
    }
CASE_METHOD(str_upper, JINJA_TO_UPPER)
CASE_METHOD(str_lower, JINJA_TO_LOWER)
CASE_METHOD(str_title, JINJA_TO_TITLE)
CASE_METHOD(str_capitalize, JINJA_TO_CAPITAL)
CASE_METHOD(str_swapcase, JINJA_TO_SWAPPED)
CASE_METHOD(str_casefold, JINJA_TO_FOLDED)

/* ---- width ---- */

static int64_t missing_width(struct jinja *j, struct jinja_value s, int64_t width)
{
    jinja_step(j, s.n / 32);
    return MAX(width - (int64_t)jinja_unicode_count(s.s, s.n), 0);
}

static void put_times(struct jinja *j, struct jinja_value fill, int64_t n)
{
    if (fill.n == 1) {
        jinja_put_fill(j, fill.s[0], (size_t)n);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        jinja_step(j, 1);
        jinja_put(j, fill.s, fill.n);
    }
}

static struct jinja_value filled(struct jinja *j, struct jinja_value s, struct jinja_value fill,
                                 int64_t left, int64_t right)
{
    if (left == 0 && right == 0) {
        return s;
    }
    size_t mark = jinja_capture(j);
    put_times(j, fill, left);
    jinja_put(j, s.s, s.n);
    put_times(j, fill, right);
    return jinja_str_like(s, jinja_captured(j, mark));
}

static struct jinja_value fill_of(struct jinja *j, struct jinja_value arg)
{
    struct jinja_value fill = jinja_call_str(j, arg, " ");
    if (fill.n == 0 || jinja_unicode_step(fill.s, fill.n) != fill.n) {
        jinja_fail(j, "The fill character must be exactly one character long");
    }
    return fill;
}

struct jinja_value jinja_strform_center(struct jinja *j, struct jinja_value s, int64_t width,
                                        struct jinja_value fill)
{
    int64_t pad = missing_width(j, s, width);
    int64_t left = pad / 2 + (pad & width & 1); /* as Python has always done */
    return filled(j, s, fill, left, pad - left);
}

METHOD(str_center)
{
    (void)args;
    return jinja_strform_center(j, self, jinja_call_int(j, arg[0], 0), fill_of(j, arg[1]));
}

METHOD(str_ljust)
{
    (void)args;
    struct jinja_value fill = fill_of(j, arg[1]);
    return filled(j, self, fill, 0, missing_width(j, self, jinja_call_int(j, arg[0], 0)));
}

METHOD(str_rjust)
{
    (void)args;
    struct jinja_value fill = fill_of(j, arg[1]);
    return filled(j, self, fill, missing_width(j, self, jinja_call_int(j, arg[0], 0)), 0);
}

METHOD(str_zfill)
{
    (void)args;
    int64_t pad = missing_width(j, self, jinja_call_int(j, arg[0], 0));
    if (pad == 0) {
        return self;
    }
    bool sign = self.n && (self.s[0] == '-' || self.s[0] == '+');
    size_t mark = jinja_capture(j);
    jinja_put(j, self.s, sign);
    jinja_put_fill(j, '0', (size_t)pad);
    jinja_put(j, self.s + sign, self.n - sign);
    return jinja_str_like(self, jinja_captured(j, mark));
}

METHOD(str_expandtabs)
{
    (void)args;
    int64_t size = jinja_call_int(j, arg[0], 8), column = 0;
    size_t mark = jinja_capture(j);
    jinja_step(j, self.n / 8);
    for (size_t at = 0; at < self.n;) {
        size_t n = jinja_unicode_step(self.s + at, self.n - at);
        char c = self.s[at];
        if (c == '\t') {
            int64_t pad = size > 0 ? size - column % size : 0;
            jinja_put_fill(j, ' ', (size_t)pad);
            column += pad;
        } else {
            jinja_put(j, self.s + at, n);
            column = c == '\n' || c == '\r' ? 0 : column + 1;
        }
        at += n;
    }
    return jinja_str_like(self, jinja_captured(j, mark));
}

/* ---- classes ---- */

/* Whether all characters are of the class, and there is one. */
static struct jinja_value all(struct jinja *j, struct jinja_value s, enum jinja_class what)
{
    jinja_step(j, s.n / 4);
    for (size_t at = 0; at < s.n;) {
        uint32_t cp;
        at += jinja_unicode_get(s.s + at, s.n - at, &cp);
        if (!jinja_unicode_is(cp, what)) {
            return jinja_value_bool(false);
        }
    }
    return jinja_value_bool(s.n > 0);
}

#define CLASS_METHOD(name, what)                                                                   \
    METHOD(name)                                                                                   \
    {                                                                                              \
        (void)arg, (void)args;                                                                     \
        return all(j, self, what);                                                                 \
    }
CLASS_METHOD(str_isalpha, JINJA_ALPHA)
CLASS_METHOD(str_isalnum, JINJA_ALNUM)
CLASS_METHOD(str_isdigit, JINJA_DIGIT)
CLASS_METHOD(str_isdecimal, JINJA_DECIMAL)
CLASS_METHOD(str_isnumeric, JINJA_NUMERIC)
CLASS_METHOD(str_isspace, JINJA_SPACE)

METHOD(str_isprintable)
{
    (void)arg, (void)args;
    return self.n ? all(j, self, JINJA_PRINTABLE) : jinja_value_bool(true);
}

METHOD(str_isascii)
{
    (void)arg, (void)args;
    jinja_step(j, self.n / 16);
    for (uint32_t i = 0; i < self.n; i++) {
        if ((unsigned char)self.s[i] >= 0x80) {
            return jinja_value_bool(false);
        }
    }
    return jinja_value_bool(true);
}

/* Some letter is of the class, and none of the other two cases. */
static bool is_cased_as(struct jinja *j, struct jinja_value s, enum jinja_class what)
{
    bool found = false;
    jinja_step(j, s.n / 4);
    for (size_t at = 0; at < s.n;) {
        uint32_t cp;
        at += jinja_unicode_get(s.s + at, s.n - at, &cp);
        if (jinja_unicode_is(cp, what)) {
            found = true;
        } else if (jinja_unicode_is(cp, JINJA_LOWER) || jinja_unicode_is(cp, JINJA_UPPER) ||
                   jinja_unicode_is(cp, JINJA_TITLE)) {
            return false;
        }
    }
    return found;
}

bool jinja_strform_is_lower(struct jinja *j, struct jinja_value s)
{
    return is_cased_as(j, s, JINJA_LOWER);
}

bool jinja_strform_is_upper(struct jinja *j, struct jinja_value s)
{
    return is_cased_as(j, s, JINJA_UPPER);
}

METHOD(str_islower)
{
    (void)arg, (void)args;
    return jinja_value_bool(jinja_strform_is_lower(j, self));
}

METHOD(str_isupper)
{
    (void)arg, (void)args;
    return jinja_value_bool(jinja_strform_is_upper(j, self));
}

METHOD(str_istitle)
{
    (void)arg, (void)args;
    bool found = false, in_word = false;
    jinja_step(j, self.n / 4);
    for (size_t at = 0; at < self.n;) {
        uint32_t cp;
        at += jinja_unicode_get(self.s + at, self.n - at, &cp);
        bool capital = jinja_unicode_is(cp, JINJA_UPPER) || jinja_unicode_is(cp, JINJA_TITLE);
        bool lower = jinja_unicode_is(cp, JINJA_LOWER);
        if ((capital && in_word) || (lower && !in_word)) {
            return jinja_value_bool(false);
        }
        in_word = capital || lower;
        found = found || in_word;
    }
    return jinja_value_bool(found);
}

METHOD(str_isidentifier)
{
    (void)arg, (void)args;
    jinja_step(j, self.n / 4);
    for (size_t at = 0; at < self.n;) {
        uint32_t cp;
        bool first = at == 0;
        at += jinja_unicode_get(self.s + at, self.n - at, &cp);
        if (cp != '_' && !jinja_unicode_is(cp, first ? JINJA_ALPHA : JINJA_ALNUM)) {
            return jinja_value_bool(false);
        }
    }
    return jinja_value_bool(self.n > 0);
}

const struct jinja_builtin jinja_strform_methods[] = {
    {"upper", "", str_upper},
    {"lower", "", str_lower},
    {"title", "", str_title},
    {"capitalize", "", str_capitalize},
    {"swapcase", "", str_swapcase},
    {"casefold", "", str_casefold},
    {"center", "width fillchar?", str_center},
    {"ljust", "width fillchar?", str_ljust},
    {"rjust", "width fillchar?", str_rjust},
    {"zfill", "width", str_zfill},
    {"expandtabs", "tabsize?", str_expandtabs},
    {"isalpha", "", str_isalpha},
    {"isalnum", "", str_isalnum},
    {"isdigit", "", str_isdigit},
    {"isdecimal", "", str_isdecimal},
    {"isnumeric", "", str_isnumeric},
    {"isspace", "", str_isspace},
    {"isprintable", "", str_isprintable},
    {"isascii", "", str_isascii},
    {"islower", "", str_islower},
    {"isupper", "", str_isupper},
    {"istitle", "", str_istitle},
    {"isidentifier", "", str_isidentifier},
};
const size_t jinja_strform_n_methods = COUNT_OF(jinja_strform_methods);
