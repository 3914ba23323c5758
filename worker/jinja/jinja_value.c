/* Values: made, compared, hashed, searched. Pure but for the arena. */
#include "worker/jinja/jinja_value.h"
#include "shared/hash.h"
#include "shared/limits.h"
#include "worker/jinja/jinja_dict.h"
#include "worker/jinja/jinja_iter.h"
#include "worker/jinja/jinja_loop.h"
#include "worker/jinja/jinja_unicode.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *jinja_value_kind_type(enum jinja_kind kind)
{
    static const char *const names[] = {
        [JINJA_MISSING] = "missing",
        [JINJA_UNDEFINED] = "Undefined",
        [JINJA_NONE] = "NoneType",
        [JINJA_BOOL] = "bool",
        [JINJA_INT] = "int",
        [JINJA_FLOAT] = "float",
        [JINJA_STR] = "str",
        [JINJA_LIST] = "list",
        [JINJA_TUPLE] = "tuple",
        [JINJA_DICT] = "dict",
        [JINJA_RANGE] = "range",
        [JINJA_VIEW] = "dict view",
        [JINJA_ITER] = "generator",
        [JINJA_NAMESPACE] = "Namespace",
        [JINJA_LOOP] = "LoopContext",
        [JINJA_MACRO] = "Macro",
        [JINJA_CYCLER] = "Cycler",
        [JINJA_JOINER] = "Joiner",
        [JINJA_METHOD] = "builtin_function_or_method",
        [JINJA_FUNCTION] = "function",
    };
    return names[kind];
}

const char *jinja_value_type(struct jinja_value v)
{
    static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
    if (v.kind == JINJA_VIEW) {
        return views[v.aux];
    }
    return jinja_value_is_markup(v) ? "Markup" : jinja_value_kind_type(v.kind);
}

struct jinja_value jinja_value_text(struct jinja *j, const char *s, size_t n)
{
    jinja_step_bytes(j, n);
    char *copy = jinja_alloc(j, n);
    if (n) {
        memcpy(copy, s, n);
    }
    return jinja_value_str(copy, n);
}

/* A loop that adds to a text piece by piece would copy it every time. The last few results keep
 * room behind them, and a text that ends where such a result ends grows in place: nobody else can
 * hold the bytes behind it. */
struct jinja_value jinja_value_concat(struct jinja *j, struct jinja_value a, struct jinja_value b)
{
    enum { WORTH_BYTES = 256 };
    jinja_step_bytes(j, b.n);
    if (b.n == 0) {
        return jinja_value_str(a.s, a.n);
    }
    for (unsigned i = 0; i < JINJA_TAILS; i++) {
        struct jinja_tail *t = &j->tails[i];
        if (a.n && t->end == a.s + a.n && (size_t)(t->limit - t->end) >= b.n) {
            memcpy(t->end, b.s, b.n);
            t->end += b.n;
            return jinja_value_str(a.s, (size_t)a.n + b.n);
        }
    }
    jinja_step_bytes(j, a.n);
    size_t n = (size_t)a.n + b.n;
    size_t room = n < WORTH_BYTES ? n : n + n / 2;
    char *s = jinja_alloc(j, room);
    if (a.n) {
        memcpy(s, a.s, a.n);
    }
    memcpy(s + a.n, b.s, b.n);
    if (room > n) {
        j->tails[j->next_tail++ % JINJA_TAILS] = (struct jinja_tail){s + n, s + room};
    }
    return jinja_value_str(s, n);
}

struct jinja_value *jinja_value_room(struct jinja *j, size_t n)
{
    jinja_step(j, n / 8);
    return jinja_array(j, n, sizeof(struct jinja_value));
}

struct jinja_value jinja_value_pair(struct jinja *j, struct jinja_value a, struct jinja_value b)
{
    struct jinja_value *items = jinja_value_room(j, 2);
    items[0] = a;
    items[1] = b;
    return jinja_value_items(JINJA_TUPLE, items, 2);
}

struct jinja_value jinja_value_unnamed(const char *name, size_t n)
{
    return (struct jinja_value){
        .kind = JINJA_UNDEFINED, .flag = JINJA_NO_NAME, .n = (uint32_t)n, .s = name};
}

struct jinja_value jinja_value_no_attr(enum jinja_kind kind, const char *name, size_t n)
{
    return (struct jinja_value){.kind = JINJA_UNDEFINED,
                                .flag = JINJA_NO_ATTR,
                                .aux = (uint16_t)kind,
                                .n = (uint32_t)n,
                                .s = name};
}

struct jinja_value jinja_value_hint(struct jinja *j, const char *fmt, ...)
{
    char text[ERR_DETAIL_BYTES];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    struct jinja_value v = jinja_value_text(j, text, MIN((size_t)MAX(n, 0), sizeof(text) - 1));
    v.kind = JINJA_UNDEFINED;
    v.flag = JINJA_HINT;
    return v;
}

void jinja_value_use_undefined(struct jinja *j, struct jinja_value v)
{
    int n = (int)MIN(v.n, (uint32_t)ERR_DETAIL_BYTES);
    switch ((enum jinja_undefined)v.flag) {
    case JINJA_NO_NAME:
        jinja_fail(j, "'%.*s' is undefined", n, v.s);
    case JINJA_NO_ATTR:
        if (v.aux == JINJA_NONE) {
            jinja_fail(j, "'None' has no attribute '%.*s'", n, v.s);
        }
        jinja_fail(j, "'%s object' has no attribute '%.*s'", jinja_value_kind_type(v.aux), n, v.s);
    case JINJA_HINT:
        jinja_fail(j, "%.*s", n, v.s);
    case JINJA_UNSAFE:
        jinja_fail(j, "access to attribute '%.*s' of '%s' object is unsafe.", n, v.s,
                   jinja_value_kind_type(v.aux));
    }
    jinja_fail(j, "undefined value");
}

/* Recursion is bounded by jinja_enter. */
struct jinja_value jinja_value_from_json(struct jinja *j, const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: {
        jinja_enter(j);
        json_t *object = (json_t *)(uintptr_t)v; /* jansson's iterators know no const */
        struct jinja_dict *d = jinja_dict_create(j, json_object_size(v));
        for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
            const char *key = json_object_iter_key(it);
            jinja_dict_add(j, d, jinja_value_str(key, strlen(key)),
                           jinja_value_from_json(j, json_object_iter_value(it)));
        }
        jinja_exit(j);
        return jinja_dict_value(d);
    }
    case JSON_ARRAY: {
        jinja_enter(j);
        size_t n = json_array_size(v);
        struct jinja_value *items = jinja_value_room(j, n);
        for (size_t i = 0; i < n; i++) {
            items[i] = jinja_value_from_json(j, json_array_get(v, i));
        }
        jinja_exit(j);
        return jinja_value_items(JINJA_LIST, items, n);
    }
    case JSON_STRING: {
        size_t n = json_string_length(v);
        if (n > LIMIT_BULK_BYTES) {
            jinja_fail(j, "a text of %zu bytes in the request, allowed %d", n, LIMIT_BULK_BYTES);
        }
        return jinja_value_str(json_string_value(v), n);
    }
    case JSON_INTEGER:
        return jinja_value_int(json_integer_value(v));
    case JSON_REAL:
        return jinja_value_float(json_real_value(v));
    case JSON_TRUE:
    case JSON_FALSE:
        return jinja_value_bool(json_is_true(v));
    case JSON_NULL:
        break;
    }
    return jinja_value_none();
}

bool jinja_value_is_true(struct jinja_value v)
{
    switch ((enum jinja_kind)v.kind) {
    case JINJA_MISSING:
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        return false;
    case JINJA_BOOL:
        return v.b;
    case JINJA_INT:
        return v.i != 0;
    case JINJA_FLOAT:
        return v.f != 0;
    case JINJA_STR:
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE:
        return v.n != 0;
    case JINJA_DICT:
    case JINJA_VIEW:
        return v.dict->n != 0;
    default:
        return true;
    }
}

bool jinja_value_is_number(struct jinja_value v)
{
    return v.kind == JINJA_BOOL || v.kind == JINJA_INT || v.kind == JINJA_FLOAT;
}

double jinja_value_as_float(struct jinja_value v)
{
    return v.kind == JINJA_FLOAT ? v.f : v.kind == JINJA_INT ? (double)v.i : (double)v.b;
}

bool jinja_value_as_int(struct jinja_value v, int64_t *ret)
{
    if (v.kind != JINJA_INT && v.kind != JINJA_BOOL) {
        return false;
    }
    *ret = v.kind == JINJA_INT ? v.i : v.b;
    return true;
}

/* long double holds every int64 and every double exactly, on x86 and on ARM. */
static long double exact(struct jinja_value v)
{
    return v.kind == JINJA_FLOAT ? (long double)v.f
           : v.kind == JINJA_INT ? (long double)v.i
                                 : (long double)v.b;
}

static bool equal_items(struct jinja *j, struct jinja_value a, struct jinja_value b)
{
    if (a.n != b.n) {
        return false;
    }
    for (uint32_t i = 0; i < a.n; i++) {
        if (!jinja_value_equal(j, a.items[i], b.items[i])) {
            return false;
        }
    }
    return true;
}

static bool equal_dicts(struct jinja *j, struct jinja_value a, struct jinja_value b)
{
    if (a.dict->n != b.dict->n) {
        return false;
    }
    for (uint32_t i = 0; i < a.dict->n; i++) {
        struct jinja_value *other = jinja_dict_get(j, b.dict, a.dict->entries[i].key);
        if (!other || !jinja_value_equal(j, a.dict->entries[i].value, *other)) {
            return false;
        }
    }
    return true;
}

static bool equal_ranges(struct jinja_value a, struct jinja_value b)
{
    return a.n == b.n && (a.n == 0 || (a.range->start == b.range->start &&
                                       (a.n == 1 || a.range->step == b.range->step)));
}

bool jinja_value_equal(struct jinja *j, struct jinja_value a, struct jinja_value b)
{
    jinja_step(j, 1);
    if (jinja_value_is_number(a) && jinja_value_is_number(b)) {
        return exact(a) == exact(b);
    }
    if (a.kind != b.kind) {
        return false;
    }
    bool same = a.p == b.p && a.n == b.n;
    switch ((enum jinja_kind)a.kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        return true;
    case JINJA_STR:
        if (a.n != b.n) {
            return false;
        }
        jinja_step_bytes(j, a.n);
        return same || a.n == 0 || memcmp(a.s, b.s, a.n) == 0;
    case JINJA_RANGE:
        return equal_ranges(a, b);
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_DICT:
        break;
    case JINJA_VIEW:
        same = same && a.aux == b.aux;
        if (a.aux != b.aux || a.aux == JINJA_VALUES || same) {
            return same;
        }
        break;
    default:
        return same;
    }
    jinja_enter(j);
    bool equal;
    if (a.kind == JINJA_LIST || a.kind == JINJA_TUPLE) {
        equal = equal_items(j, a, b);
    } else if (a.kind == JINJA_VIEW && a.aux == JINJA_KEYS) {
        equal = a.dict->n == b.dict->n;
        for (uint32_t i = 0; equal && i < a.dict->n; i++) {
            equal = jinja_dict_get(j, b.dict, a.dict->entries[i].key) != NULL;
        }
    } else {
        equal = equal_dicts(j, a, b);
    }
    jinja_exit(j);
    return equal;
}

int jinja_value_compare(struct jinja *j, struct jinja_value a, struct jinja_value b, const char *op)
{
    jinja_step(j, 1);
    if (jinja_value_is_number(a) && jinja_value_is_number(b)) {
        long double x = exact(a), y = exact(b);
        return x < y ? -1 : x > y ? 1 : x == y ? 0 : JINJA_UNORDERED;
    }
    if (a.kind == JINJA_STR && b.kind == JINJA_STR) {
        /* The order of UTF-8 bytes is the order of code points. */
        size_t n = MIN(a.n, b.n);
        jinja_step_bytes(j, n);
        int order = n ? memcmp(a.s, b.s, n) : 0;
        return order ? (order < 0 ? -1 : 1) : (a.n > b.n) - (a.n < b.n);
    }
    if (a.kind == b.kind && (a.kind == JINJA_LIST || a.kind == JINJA_TUPLE)) {
        for (uint32_t i = 0; i < MIN(a.n, b.n); i++) {
            if (!jinja_value_equal(j, a.items[i], b.items[i])) {
                jinja_enter(j);
                int order = jinja_value_compare(j, a.items[i], b.items[i], op);
                jinja_exit(j);
                return order;
            }
        }
        return (a.n > b.n) - (a.n < b.n);
    }
    if (a.kind == JINJA_UNDEFINED || b.kind == JINJA_UNDEFINED) {
        jinja_value_use_undefined(j, a.kind == JINJA_UNDEFINED ? a : b);
    }
    jinja_fail(j, "'%s' not supported between instances of '%s' and '%s'", op, jinja_value_type(a),
               jinja_value_type(b));
}

uint64_t jinja_value_hash(struct jinja *j, struct jinja_value v)
{
    /* Fixed, so that a template's run is the same every time; probes are what is bounded. */
    enum { SEED = 0x6a696e };
    switch ((enum jinja_kind)v.kind) {
    case JINJA_STR:
        jinja_step(j, v.n / 32);
        return hash64(v.s, v.n, SEED);
    case JINJA_FLOAT:
        if (v.f >= -0x1p62 && v.f <= 0x1p62 && v.f == floor(v.f)) {
            int64_t i = (int64_t)v.f; /* equal numbers hash the same */
            return hash64(&i, sizeof(i), SEED);
        }
        return hash64(&v.f, sizeof(v.f), SEED);
    case JINJA_BOOL:
    case JINJA_INT: {
        int64_t i = v.kind == JINJA_INT ? v.i : v.b;
        return hash64(&i, sizeof(i), SEED);
    }
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        return v.kind;
    case JINJA_TUPLE: {
        jinja_enter(j);
        uint64_t h = SEED;
        for (uint32_t i = 0; i < v.n; i++) {
            uint64_t parts[2] = {h, jinja_value_hash(j, v.items[i])};
            jinja_step(j, 1);
            h = hash64(parts, sizeof(parts), SEED);
        }
        jinja_exit(j);
        return h;
    }
    case JINJA_RANGE:
        return hash64(&v.n, sizeof(v.n), SEED);
    case JINJA_LIST:
    case JINJA_DICT:
    case JINJA_VIEW:
        jinja_fail(j, "unhashable type: '%s'", jinja_value_type(v));
    default:
        return hash64(&v.p, sizeof(v.p), SEED);
    }
}

static bool range_contains(struct jinja_value in, struct jinja_value v)
{
    if (!jinja_value_is_number(v) || in.n == 0) {
        return false;
    }
    long double x = exact(v) - (long double)in.range->start;
    long double at = x / (long double)in.range->step;
    return at >= 0 && at < in.n && at * (long double)in.range->step == x && at == floorl(at);
}

bool jinja_value_contains(struct jinja *j, struct jinja_value in, struct jinja_value v)
{
    switch ((enum jinja_kind)in.kind) {
    case JINJA_STR:
        if (v.kind != JINJA_STR) {
            jinja_fail(j, "'in <string>' requires string as left operand, not %s",
                       jinja_value_type(v));
        }
        jinja_step(j, in.n / 16);
        return v.n == 0 || (in.n && memmem(in.s, in.n, v.s, v.n) != NULL);
    case JINJA_DICT:
        return jinja_dict_get(j, in.dict, v) != NULL;
    case JINJA_VIEW:
        if (in.aux == JINJA_KEYS) {
            return jinja_dict_get(j, in.dict, v) != NULL;
        }
        break;
    case JINJA_RANGE:
        return range_contains(in, v);
    default:
        break;
    }
    struct jinja_iter *it = jinja_iter_try(j, in);
    if (!it) {
        jinja_fail(j, "argument of type '%s' is not iterable", jinja_value_type(in));
    }
    for (struct jinja_value item; jinja_iter_next(j, it, &item);) {
        if (jinja_value_equal(j, item, v)) {
            return true;
        }
    }
    return false;
}

bool jinja_value_length(struct jinja *j, struct jinja_value v, int64_t *ret)
{
    switch ((enum jinja_kind)v.kind) {
    case JINJA_UNDEFINED:
        *ret = 0;
        return true;
    case JINJA_STR:
        jinja_step(j, v.n / 32);
        *ret = (int64_t)jinja_unicode_count(v.s, v.n);
        return true;
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE:
        *ret = v.n;
        return true;
    case JINJA_DICT:
    case JINJA_VIEW:
        *ret = v.dict->n;
        return true;
    case JINJA_LOOP:
        *ret = jinja_loop_length(j, v.loop);
        return true;
    default:
        return false;
    }
}
