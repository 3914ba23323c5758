/* Operators and subscripts over all kinds of values. Pure but for the arena. */
#include "worker/jinja/jinja_op.h"
#include "worker/jinja/jinja_attr.h"
#include "worker/jinja/jinja_dict.h"
#include "worker/jinja/jinja_format.h"
#include "worker/jinja/jinja_iter.h"
#include "worker/jinja/jinja_text.h"
#include "worker/jinja/jinja_unicode.h"

#include <inttypes.h>
#include <string.h>

static bool is_sequence(struct jinja_value v)
{
    return v.kind == JINJA_STR || v.kind == JINJA_LIST || v.kind == JINJA_TUPLE;
}

static struct jinja_value add_texts(struct jinja *j, struct jinja_value a, struct jinja_value b)
{
    /* A text declared safe makes the sum safe by escaping the other. */
    bool markup = jinja_value_is_markup(a) || jinja_value_is_markup(b);
    if (markup) {
        a = jinja_text_escape(j, a);
        b = jinja_text_escape(j, b);
    }
    struct jinja_value v = jinja_value_concat(j, a, b);
    v.flag = markup ? JINJA_MARKUP : 0;
    return v;
}

static struct jinja_value add_items(struct jinja *j, struct jinja_value a, struct jinja_value b)
{
    struct jinja_value *items = jinja_value_room(j, (size_t)a.n + b.n);
    if (a.n) {
        memcpy(items, a.items, a.n * sizeof(*items));
    }
    if (b.n) {
        memcpy(items + a.n, b.items, b.n * sizeof(*items));
    }
    return jinja_value_items(a.kind, items, (size_t)a.n + b.n);
}

static struct jinja_value repeat(struct jinja *j, struct jinja_value v, int64_t times)
{
    size_t unit = v.kind == JINJA_STR ? 1 : sizeof(struct jinja_value);
    size_t n = times > 0 ? v.n : 0;
    if (n && (uint64_t)times > j->arena.limit_bytes / (n * unit)) {
        jinja_fail(j, "a %s repeated %" PRId64 " times is too long", jinja_value_type(v), times);
    }
    n *= n ? (size_t)times : 0;
    jinja_step_bytes(j, n * unit);
    char *to = jinja_alloc(j, n * unit);
    const char *from = v.kind == JINJA_STR ? v.s : (const char *)v.items;
    size_t done = MIN(v.n * unit, n * unit);
    if (done) {
        memcpy(to, from, done);
    }
    while (done < n * unit) { /* what is there is doubled */
        size_t more = MIN(done, n * unit - done);
        memcpy(to + done, to, more);
        done += more;
    }
    struct jinja_value r = v;
    r.n = (uint32_t)n;
    if (v.kind == JINJA_STR) {
        r.s = to;
    } else {
        r.flag = 0;
        r.items = (const struct jinja_value *)(const void *)to;
    }
    return r;
}

struct jinja_value jinja_op_binary(struct jinja *j, enum jinja_op op, struct jinja_value a,
                                   struct jinja_value b)
{
    static const char *const signs[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
    int64_t times;
    if (jinja_value_is_number(a) && jinja_value_is_number(b)) {
        return jinja_number_op(j, op, a, b);
    }
    if (op == JINJA_MOD && a.kind == JINJA_STR) {
        return jinja_format_percent(j, a, b);
    }
    if (a.kind == JINJA_UNDEFINED || b.kind == JINJA_UNDEFINED) {
        jinja_value_use_undefined(j, a.kind == JINJA_UNDEFINED ? a : b);
    }
    if (op == JINJA_ADD && a.kind == b.kind && is_sequence(a)) {
        return a.kind == JINJA_STR ? add_texts(j, a, b) : add_items(j, a, b);
    }
    if (op == JINJA_MUL && is_sequence(a) && jinja_value_as_int(b, &times)) {
        return repeat(j, a, times);
    }
    if (op == JINJA_MUL && is_sequence(b) && jinja_value_as_int(a, &times)) {
        return repeat(j, b, times);
    }
    if (op == JINJA_ADD && is_sequence(a)) {
        const char *type = jinja_value_type(a);
        jinja_fail(j, "can only concatenate %s (not \"%s\") to %s", type, jinja_value_type(b),
                   type);
    }
    jinja_fail(j, "unsupported operand type(s) for %s: '%s' and '%s'", signs[op],
               jinja_value_type(a), jinja_value_type(b));
}

struct jinja_value jinja_op_sign(struct jinja *j, bool negate, struct jinja_value v)
{
    if (v.kind == JINJA_UNDEFINED) {
        jinja_value_use_undefined(j, v);
    }
    if (!jinja_value_is_number(v)) {
        jinja_fail(j, "bad operand type for unary %c: '%s'", negate ? '-' : '+',
                   jinja_value_type(v));
    }
    if (negate) {
        return jinja_number_negate(j, v);
    }
    return v.kind == JINJA_BOOL ? jinja_value_int(v.b) : v;
}

static bool is_hashable(struct jinja_value v)
{
    if (v.kind == JINJA_TUPLE) {
        for (uint32_t i = 0; i < v.n; i++) {
            if (v.items[i].kind == JINJA_TUPLE || !is_hashable(v.items[i])) {
                return false; /* tuples within tuples are no keys of anything here */
            }
        }
        return true;
    }
    return v.kind != JINJA_LIST && v.kind != JINJA_DICT && v.kind != JINJA_VIEW;
}

static bool index_of(struct jinja *j, struct jinja_value of, int64_t i, struct jinja_value *ret)
{
    int64_t n = of.n;
    if (of.kind == JINJA_STR) {
        jinja_step(j, of.n / 32);
        n = (int64_t)jinja_unicode_count(of.s, of.n);
    }
    i += i < 0 ? n : 0;
    if (i < 0 || i >= n) {
        return false;
    }
    if (of.kind == JINJA_STR) {
        size_t at = n == of.n ? (size_t)i : jinja_unicode_offset(of.s, of.n, (size_t)i);
        if (at >= of.n) {
            return false;
        }
        *ret = of;
        ret->s = of.s + at;
        ret->n = (uint32_t)jinja_unicode_step(ret->s, of.n - at);
    } else if (of.kind == JINJA_RANGE) {
        *ret = jinja_value_int(jinja_iter_range_at(of, (uint32_t)i));
    } else {
        *ret = of.items[i];
    }
    return true;
}

struct jinja_value jinja_op_item(struct jinja *j, struct jinja_value of, struct jinja_value key)
{
    struct jinja_value v;
    int64_t i = 0;
    if (of.kind == JINJA_UNDEFINED) {
        jinja_value_use_undefined(j, of);
    }
    if (of.kind == JINJA_DICT) {
        struct jinja_value *found = is_hashable(key) ? jinja_dict_get(j, of.dict, key) : NULL;
        if (found) {
            return *found;
        }
    } else if ((is_sequence(of) || of.kind == JINJA_RANGE) && jinja_value_as_int(key, &i) &&
               index_of(j, of, i, &v)) {
        return v;
    }
    if (key.kind == JINJA_STR) {
        return jinja_attr_find(j, of, key.s, key.n, &v)
                   ? v
                   : jinja_value_no_attr(of.kind, key.s, key.n);
    }
    if (jinja_value_as_int(key, &i)) {
        return jinja_value_hint(j, "%s object has no element %" PRId64, jinja_value_type(of), i);
    }
    return jinja_value_hint(j, "%s object has no such element (a %s)", jinja_value_type(of),
                            jinja_value_type(key));
}

void jinja_op_clamp(int64_t n, int64_t *start, int64_t *stop)
{
    *start = MAX(*start < 0 ? *start + n : *start, 0);
    *stop = MIN(MAX(*stop < 0 ? *stop + n : *stop, 0), n);
}

static int64_t bound(struct jinja *j, struct jinja_value v, int64_t def, int64_t n, int64_t low,
                     int64_t high)
{
    int64_t i;
    if (v.kind == JINJA_NONE) {
        return def;
    }
    if (!jinja_value_as_int(v, &i)) {
        jinja_fail(j, "slice indices must be integers or None, not %s", jinja_value_type(v));
    }
    if (i < 0) {
        i = i < -n ? -1 : i + n;
    }
    return MIN(MAX(i, low), high);
}

/* A text's characters start, start + step, ...: n of them. */
static struct jinja_value pick_chars(struct jinja *j, struct jinja_value of, int64_t n_chars,
                                     int64_t start, int64_t step, size_t n)
{
    if (step == 1) {
        size_t at = jinja_unicode_offset(of.s, of.n, (size_t)start);
        size_t len = jinja_unicode_offset(of.s + at, of.n - at, n);
        struct jinja_value v = of;
        v.s = of.s + at;
        v.n = (uint32_t)len;
        return v;
    }
    jinja_step(j, of.n / 8);
    uint32_t *offsets = jinja_array(j, (size_t)n_chars + 1, sizeof(*offsets));
    for (int64_t i = 0; i < n_chars; i++) {
        offsets[i + 1] =
            offsets[i] + (uint32_t)jinja_unicode_step(of.s + offsets[i], of.n - offsets[i]);
    }
    char *to = jinja_alloc(j, of.n);
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        int64_t c = start + (int64_t)i * step;
        memcpy(to + len, of.s + offsets[c], offsets[c + 1] - offsets[c]);
        len += offsets[c + 1] - offsets[c];
    }
    struct jinja_value v = of;
    v.s = to;
    v.n = (uint32_t)len;
    return v;
}

struct jinja_value jinja_op_slice(struct jinja *j, struct jinja_value of, struct jinja_value start,
                                  struct jinja_value stop, struct jinja_value step)
{
    if (of.kind == JINJA_UNDEFINED) {
        jinja_value_use_undefined(j, of);
    }
    if (!is_sequence(of) && of.kind != JINJA_RANGE) {
        jinja_fail(j, "a '%s' object cannot be sliced", jinja_value_type(of));
    }
    int64_t by = 1, n = of.n;
    if (step.kind != JINJA_NONE && (!jinja_value_as_int(step, &by) || by == 0)) {
        jinja_fail(j, "a slice step must be an integer other than zero");
    }
    by = MAX(by, -INT64_MAX);
    if (of.kind == JINJA_STR) {
        jinja_step(j, of.n / 16);
        n = (int64_t)jinja_unicode_count(of.s, of.n);
    }
    int64_t low = by < 0 ? -1 : 0, high = by < 0 ? n - 1 : n;
    int64_t from = bound(j, start, by < 0 ? high : low, n, low, high);
    int64_t to = bound(j, stop, by < 0 ? low : high, n, low, high);
    int64_t count = 0;
    if (by > 0 ? from < to : from > to) {
        count = by > 0 ? (to - from - 1) / by + 1 : (from - to - 1) / -by + 1;
    }
    if (of.kind == JINJA_STR) {
        return pick_chars(j, of, n, MAX(from, 0), by, (size_t)count);
    }
    if (of.kind == JINJA_RANGE) {
        struct jinja_range *r = jinja_alloc(j, sizeof(*r));
        r->start = of.range->start + (count ? from : 0) * of.range->step;
        r->step = count > 1 ? of.range->step * by : 1;
        r->stop = r->start + count * r->step;
        struct jinja_value v = of;
        v.range = r;
        v.n = (uint32_t)count;
        return v;
    }
    if (by == 1) { /* items never change: a part of a list is a view of it */
        return jinja_value_items(of.kind, count ? of.items + from : of.items, (size_t)count);
    }
    struct jinja_value *items = jinja_value_room(j, (size_t)count);
    for (int64_t i = 0; i < count; i++) {
        items[i] = of.items[from + i * by];
    }
    return jinja_value_items(of.kind, items, (size_t)count);
}
