/* Methods of texts: search, split, strip, replace, join. Pure but for the arena. */
#include "worker/jinja/jinja_str.h"
#include "worker/jinja/jinja_format.h"
#include "worker/jinja/jinja_iter.h"
#include "worker/jinja/jinja_op.h"
#include "worker/jinja/jinja_text.h"
#include "worker/jinja/jinja_unicode.h"

#include <inttypes.h>
#include <string.h>

#define METHOD(name)                                                                               \
    static struct jinja_value name(struct jinja *j, struct jinja_value self,                       \
                                   const struct jinja_value *arg, const struct jinja_args *args)

struct jinja_value jinja_str_like(struct jinja_value self, struct jinja_value v)
{
    if (v.kind == JINJA_STR) {
        v.flag = self.flag;
    }
    return v;
}

struct jinja_value jinja_str_arg(struct jinja *j, struct jinja_value self, struct jinja_value arg)
{
    arg = jinja_call_str(j, arg, NULL);
    return jinja_value_is_markup(self) ? jinja_text_escape(j, arg) : arg;
}

static struct jinja_value part(struct jinja_value s, size_t from, size_t to)
{
    s.s += from;
    s.n = (uint32_t)(to - from);
    return s;
}

/* ---- search ---- */

static const char *search(struct jinja *j, const char *s, size_t n, struct jinja_value sub)
{
    const char *p = sub.n == 0   ? s
                    : sub.n == 1 ? memchr(s, sub.s[0], n)
                                 : memmem(s, n, sub.s, sub.n);
    jinja_step(j, ((p ? (size_t)(p - s) : n) + sub.n) / 32 + 1);
    return p;
}

static const char *search_last(struct jinja *j, const char *s, size_t n, struct jinja_value sub)
{
    if (sub.n == 0) {
        return s + n;
    }
    size_t left = n >= sub.n ? n - sub.n + 1 : 0; /* places where sub may begin */
    while (left > 0) {
        const char *p = memrchr(s, sub.s[0], left);
        jinja_step(j, (left - (p ? (size_t)(p - s) : 0) + sub.n) / 64 + 1);
        if (!p || memcmp(p, sub.s, sub.n) == 0) {
            return p;
        }
        left = (size_t)(p - s);
    }
    return NULL;
}

/* The part of self that start and end select; false when start is behind the end. */
static bool window(struct jinja *j, struct jinja_value self, struct jinja_value start,
                   struct jinja_value end, struct jinja_value *ret, int64_t *ret_start)
{
    *ret = self;
    *ret_start = 0;
    bool has_start = start.kind != JINJA_MISSING && start.kind != JINJA_NONE;
    bool has_end = end.kind != JINJA_MISSING && end.kind != JINJA_NONE;
    if (!has_start && !has_end) {
        return true;
    }
    jinja_step(j, self.n / 16);
    int64_t n = (int64_t)jinja_unicode_count(self.s, self.n);
    int64_t from = has_start ? jinja_call_int(j, start, 0) : 0;
    int64_t to = has_end ? jinja_call_int(j, end, n) : n;
    jinja_op_clamp(n, &from, &to);
    *ret_start = from;
    if (from > to) {
        return false;
    }
    size_t a = jinja_unicode_offset(self.s, self.n, (size_t)from);
    size_t b = a + jinja_unicode_offset(self.s + a, self.n - a, (size_t)(to - from));
    *ret = part(self, a, b);
    return true;
}

static int64_t find(struct jinja *j, struct jinja_value self, const struct jinja_value *arg,
                    bool last)
{
    struct jinja_value sub = jinja_call_str(j, arg[0], NULL), in;
    int64_t start;
    if (!window(j, self, arg[1], arg[2], &in, &start)) {
        return -1;
    }
    const char *p = last ? search_last(j, in.s, in.n, sub) : search(j, in.s, in.n, sub);
    if (!p) {
        return -1;
    }
    jinja_step(j, (uint64_t)(p - in.s) / 32);
    return start + (int64_t)jinja_unicode_count(in.s, (size_t)(p - in.s));
}

METHOD(str_find)
{
    (void)args;
    return jinja_value_int(find(j, self, arg, false));
}

METHOD(str_rfind)
{
    (void)args;
    return jinja_value_int(find(j, self, arg, true));
}

static struct jinja_value index_found(struct jinja *j, int64_t at)
{
    if (at < 0) {
        jinja_fail(j, "substring not found");
    }
    return jinja_value_int(at);
}

METHOD(str_index)
{
    (void)args;
    return index_found(j, find(j, self, arg, false));
}

METHOD(str_rindex)
{
    (void)args;
    return index_found(j, find(j, self, arg, true));
}

METHOD(str_count)
{
    (void)args;
    struct jinja_value sub = jinja_call_str(j, arg[0], NULL), in;
    int64_t start, n = 0;
    if (!window(j, self, arg[1], arg[2], &in, &start)) {
        return jinja_value_int(0);
    }
    if (sub.n == 0) {
        return jinja_value_int((int64_t)jinja_unicode_count(in.s, in.n) + 1);
    }
    const char *end = in.s + in.n;
    for (const char *p = in.s; (p = search(j, p, (size_t)(end - p), sub)); p += sub.n) {
        n++;
    }
    return jinja_value_int(n);
}

static bool has_affix(struct jinja *j, struct jinja_value in, struct jinja_value affix, bool end)
{
    if (affix.kind == JINJA_TUPLE) {
        for (uint32_t i = 0; i < affix.n; i++) {
            jinja_step(j, 1);
            if (has_affix(j, in, jinja_call_str(j, affix.items[i], NULL), end)) {
                return true;
            }
        }
        return false;
    }
    affix = jinja_call_str(j, affix, NULL);
    return affix.n <= in.n && memcmp(end ? in.s + in.n - affix.n : in.s, affix.s, affix.n) == 0;
}

static struct jinja_value affixed(struct jinja *j, struct jinja_value self,
                                  const struct jinja_value *arg, bool end)
{
    struct jinja_value in;
    int64_t start;
    return jinja_value_bool(window(j, self, arg[1], arg[2], &in, &start) &&
                            has_affix(j, in, arg[0], end));
}

METHOD(str_startswith)
{
    (void)args;
    return affixed(j, self, arg, false);
}

METHOD(str_endswith)
{
    (void)args;
    return affixed(j, self, arg, true);
}

METHOD(str_removeprefix)
{
    (void)args;
    struct jinja_value affix = jinja_call_str(j, arg[0], NULL);
    return has_affix(j, self, affix, false) ? part(self, affix.n, self.n) : self;
}

METHOD(str_removesuffix)
{
    (void)args;
    struct jinja_value affix = jinja_call_str(j, arg[0], NULL);
    return has_affix(j, self, affix, true) ? part(self, 0, self.n - affix.n) : self;
}

/* ---- split ---- */

struct parts {
    size_t n, cap;
    struct jinja_value *items;
};

static void add_part(struct jinja *j, struct parts *p, struct jinja_value v)
{
    if (p->n == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 8;
        struct jinja_value *more = jinja_value_room(j, p->cap);
        if (p->n) {
            memcpy(more, p->items, p->n * sizeof(*more));
        }
        p->items = more;
    }
    jinja_step(j, 2);
    p->items[p->n++] = v;
}

static struct jinja_value as_list(struct parts *p, bool reversed)
{
    for (size_t i = 0; reversed && i < p->n / 2; i++) {
        struct jinja_value swap = p->items[i];
        p->items[i] = p->items[p->n - 1 - i];
        p->items[p->n - 1 - i] = swap;
    }
    return jinja_value_items(JINJA_LIST, p->items, p->n);
}

static bool is_space_at(struct jinja_value s, size_t at, size_t *ret_len)
{
    uint32_t cp;
    *ret_len = jinja_unicode_get(s.s + at, s.n - at, &cp);
    return jinja_unicode_is(cp, JINJA_SPACE);
}

static struct jinja_value split_words(struct jinja *j, struct jinja_value s, int64_t max)
{
    struct parts p = {0};
    size_t len;
    jinja_step(j, s.n / 8);
    for (;;) {
        s = jinja_unicode_trim(s, true, false);
        if (s.n == 0) {
            break;
        }
        if (max >= 0 && p.n == (size_t)max) {
            add_part(j, &p, s);
            break;
        }
        size_t at = 0;
        while (at < s.n && !is_space_at(s, at, &len)) {
            at += len;
        }
        add_part(j, &p, part(s, 0, at));
        s = part(s, at, s.n);
    }
    return as_list(&p, false);
}

static struct jinja_value rsplit_words(struct jinja *j, struct jinja_value s, int64_t max)
{
    struct parts p = {0};
    size_t len;
    jinja_step(j, s.n / 8);
    for (;;) {
        s = jinja_unicode_trim(s, false, true);
        if (s.n == 0) {
            break;
        }
        if (max >= 0 && p.n == (size_t)max) {
            add_part(j, &p, s);
            break;
        }
        size_t at = s.n;
        while (at > 0) {
            size_t last = jinja_unicode_last(s.s, at);
            if (is_space_at(s, at - last, &len)) {
                break;
            }
            at -= last;
        }
        add_part(j, &p, part(s, at, s.n));
        s = part(s, 0, at);
    }
    return as_list(&p, true);
}

static struct jinja_value split(struct jinja *j, struct jinja_value self,
                                const struct jinja_value *arg, bool from_right)
{
    int64_t max = jinja_call_int(j, arg[1], -1);
    if (arg[0].kind == JINJA_MISSING || arg[0].kind == JINJA_NONE) {
        return from_right ? rsplit_words(j, self, max) : split_words(j, self, max);
    }
    struct jinja_value sep = jinja_call_str(j, arg[0], NULL);
    if (sep.n == 0) {
        jinja_fail(j, "empty separator");
    }
    struct parts p = {0};
    while (max < 0 || p.n < (size_t)max) {
        const char *at =
            from_right ? search_last(j, self.s, self.n, sep) : search(j, self.s, self.n, sep);
        if (!at) {
            break;
        }
        size_t from = (size_t)(at - self.s), to = from + sep.n;
        add_part(j, &p, from_right ? part(self, to, self.n) : part(self, 0, from));
        self = from_right ? part(self, 0, from) : part(self, to, self.n);
    }
    add_part(j, &p, self);
    return as_list(&p, from_right);
}

METHOD(str_split)
{
    (void)args;
    return split(j, self, arg, false);
}

METHOD(str_rsplit)
{
    (void)args;
    /* Without a limit both give the same, and from the left is linear. */
    bool all = arg[0].kind != JINJA_MISSING && arg[0].kind != JINJA_NONE &&
               jinja_call_int(j, arg[1], -1) < 0 && jinja_call_str(j, arg[0], NULL).n == 1;
    return split(j, self, arg, !all);
}

struct jinja_value jinja_str_lines(struct jinja *j, struct jinja_value s, bool keep_ends)
{
    struct parts p = {0};
    jinja_step(j, s.n / 8);
    for (size_t from = 0, at = 0; at < s.n; from = at) {
        uint32_t cp = 0;
        size_t len = 0;
        for (; at < s.n; at += len) {
            len = jinja_unicode_get(s.s + at, s.n - at, &cp);
            if ((cp >= '\n' && cp <= '\r') || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 ||
                cp == 0x2028 || cp == 0x2029) {
                break;
            }
        }
        size_t end = at;
        if (at < s.n) {
            at += len;
            at += cp == '\r' && at < s.n && s.s[at] == '\n';
        }
        add_part(j, &p, part(s, from, keep_ends ? at : end));
    }
    return as_list(&p, false);
}

METHOD(str_splitlines)
{
    (void)args;
    return jinja_str_lines(j, self, jinja_call_bool(arg[0], false));
}

static struct jinja_value three(struct jinja *j, struct jinja_value a, struct jinja_value b,
                                struct jinja_value c)
{
    struct jinja_value *items = jinja_value_room(j, 3);
    items[0] = a;
    items[1] = b;
    items[2] = c;
    return jinja_value_items(JINJA_TUPLE, items, 3);
}

static struct jinja_value partition(struct jinja *j, struct jinja_value self,
                                    struct jinja_value sep, bool last)
{
    sep = jinja_str_arg(j, self, sep);
    if (sep.n == 0) {
        jinja_fail(j, "empty separator");
    }
    const char *at = last ? search_last(j, self.s, self.n, sep) : search(j, self.s, self.n, sep);
    struct jinja_value none = part(self, 0, 0);
    if (!at) {
        return last ? three(j, none, none, self) : three(j, self, none, none);
    }
    size_t from = (size_t)(at - self.s), to = from + sep.n;
    return three(j, part(self, 0, from), part(self, from, to), part(self, to, self.n));
}

METHOD(str_partition)
{
    (void)args;
    return partition(j, self, arg[0], false);
}

METHOD(str_rpartition)
{
    (void)args;
    return partition(j, self, arg[0], true);
}

/* ---- strip, replace, join ---- */

/* Whether a character is one of chars: UTF-8 characters are found as bytes. */
static bool is_in(struct jinja *j, struct jinja_value chars, const char *c, size_t n)
{
    jinja_step(j, chars.n / 64 + 1);
    return chars.n && memmem(chars.s, chars.n, c, n) != NULL;
}

struct jinja_value jinja_str_strip(struct jinja *j, struct jinja_value s, struct jinja_value chars,
                                   bool left, bool right)
{
    if (chars.kind == JINJA_MISSING || chars.kind == JINJA_NONE) {
        jinja_step(j, 1);
        return jinja_unicode_trim(s, left, right);
    }
    chars = jinja_str_arg(j, s, chars);
    while (left && s.n) {
        size_t n = jinja_unicode_step(s.s, s.n);
        if (!is_in(j, chars, s.s, n)) {
            break;
        }
        s = part(s, n, s.n);
    }
    while (right && s.n) {
        size_t n = jinja_unicode_last(s.s, s.n);
        if (!is_in(j, chars, s.s + s.n - n, n)) {
            break;
        }
        s = part(s, 0, s.n - n);
    }
    return s;
}

METHOD(str_strip)
{
    (void)args;
    return jinja_str_strip(j, self, arg[0], true, true);
}

METHOD(str_lstrip)
{
    (void)args;
    return jinja_str_strip(j, self, arg[0], true, false);
}

METHOD(str_rstrip)
{
    (void)args;
    return jinja_str_strip(j, self, arg[0], false, true);
}

struct jinja_value jinja_str_replace(struct jinja *j, struct jinja_value s, struct jinja_value old,
                                     struct jinja_value new, int64_t count)
{
    size_t mark = jinja_capture(j), at = 0;
    bool changed = false;
    while (count != 0) {
        const char *p = search(j, s.s + at, s.n - at, old);
        if (!p) {
            break;
        }
        size_t found = (size_t)(p - s.s);
        if (old.n == 0 && changed) { /* an empty text is found before every character */
            if (at >= s.n) {
                break;
            }
            found = at + jinja_unicode_step(s.s + at, s.n - at);
        }
        jinja_put(j, s.s + at, found - at);
        jinja_put(j, new.s, new.n);
        at = found + old.n;
        changed = true;
        count -= count > 0;
    }
    if (!changed) {
        return s;
    }
    jinja_put(j, s.s + at, s.n - at);
    return jinja_str_like(s, jinja_captured(j, mark));
}

METHOD(str_replace)
{
    (void)args;
    return jinja_str_replace(j, self, jinja_str_arg(j, self, arg[0]),
                             jinja_str_arg(j, self, arg[1]), jinja_call_int(j, arg[2], -1));
}

METHOD(str_join)
{
    (void)args;
    struct jinja_iter *it = jinja_iter_open(j, arg[0]);
    size_t mark = jinja_capture(j);
    int64_t i = 0;
    for (struct jinja_value v; jinja_iter_next(j, it, &v); i++) {
        if (v.kind != JINJA_STR && !jinja_value_is_markup(self)) {
            jinja_fail(j, "sequence item %" PRId64 ": expected str instance, %s found", i,
                       jinja_value_type(v));
        }
        v = jinja_value_is_markup(self) ? jinja_text_escape(j, v) : v;
        if (i) {
            jinja_put(j, self.s, self.n);
        }
        jinja_put(j, v.s, v.n);
    }
    return jinja_str_like(self, jinja_captured(j, mark));
}

METHOD(str_format)
{
    (void)arg;
    return jinja_format_braces(j, self, args);
}

const struct jinja_builtin jinja_str_methods[] = {
    {"split", "sep? maxsplit?", str_split},
    {"strip", "chars?", str_strip},
    {"lstrip", "chars?", str_lstrip},
    {"rstrip", "chars?", str_rstrip},
    {"startswith", "prefix start? end?", str_startswith},
    {"endswith", "suffix start? end?", str_endswith},
    {"replace", "old new count?", str_replace},
    {"join", "iterable", str_join},
    {"format", "*", str_format},
    {"find", "sub start? end?", str_find},
    {"rfind", "sub start? end?", str_rfind},
    {"index", "sub start? end?", str_index},
    {"rindex", "sub start? end?", str_rindex},
    {"count", "sub start? end?", str_count},
    {"rsplit", "sep? maxsplit?", str_rsplit},
    {"splitlines", "keepends?", str_splitlines},
    {"partition", "sep", str_partition},
    {"rpartition", "sep", str_rpartition},
    {"removeprefix", "prefix", str_removeprefix},
    {"removesuffix", "suffix", str_removesuffix},
};
const size_t jinja_str_n_methods = COUNT_OF(jinja_str_methods);
