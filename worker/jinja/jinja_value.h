/* Values of templates: 16 bytes, copied freely, immutable but for namespaces, cyclers, joiners and
 * iterators. Texts and items are borrowed: from the arena of the template, the arena of the render,
 * or the JSON of the context, all of which outlive the value. */
#ifndef WORKER_JINJA_JINJA_VALUE_H
#define WORKER_JINJA_JINJA_VALUE_H

#include "worker/jinja/jinja.h"

#include <jansson.h>

enum jinja_kind {
    JINJA_MISSING, /* a name or parameter that got no value; templates never see it */
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT, /* 64 bits; what does not fit is an error */
    JINJA_FLOAT,
    JINJA_STR, /* UTF-8 */
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_DICT,
    JINJA_RANGE,
    JINJA_VIEW, /* keys(), values(), items() of a dict */
    JINJA_ITER, /* a generator: read once */
    JINJA_NAMESPACE,
    JINJA_LOOP,
    JINJA_MACRO,
    JINJA_CYCLER,
    JINJA_JOINER,
    JINJA_METHOD,
    JINJA_FUNCTION,
};

enum jinja_flag {
    JINJA_MARKUP = 1, /* of a text: escaped, or declared safe */
    JINJA_GROUP = 1,  /* of a tuple: made by groupby, with .grouper and .list */
};

/* What an undefined value is, for the message when it is used. */
enum jinja_undefined {
    JINJA_NO_NAME, /* 's' is undefined */
    JINJA_NO_ATTR, /* an object of kind aux has no attribute 's' */
    JINJA_HINT,    /* s says it */
    JINJA_UNSAFE,  /* the attribute s of kind aux exists but may not be used */
};

enum jinja_view { JINJA_KEYS, JINJA_VALUES, JINJA_ITEMS };

struct jinja_range {
    int64_t start, stop, step;
};

struct jinja_value {
    uint8_t kind; /* enum jinja_kind */
    uint8_t flag; /* enum jinja_flag; of UNDEFINED: enum jinja_undefined */
    uint16_t aux; /* of UNDEFINED: enum jinja_kind of the object; of VIEW: enum jinja_view */
    uint32_t n;   /* bytes of a text, items of a list, tuple or range */
    union {
        bool b;
        int64_t i;
        double f;
        const char *s; /* not terminated */
        const struct jinja_value *items;
        const struct jinja_range *range;
        struct jinja_dict *dict; /* DICT, VIEW, NAMESPACE */
        struct jinja_iter *iter;
        struct jinja_loop *loop;
        struct jinja_macro *macro;
        struct jinja_cycler *cycler;
        struct jinja_joiner *joiner;
        const struct jinja_method *method;
        const struct jinja_builtin *function;
        const void *p;
    };
};

static inline struct jinja_value jinja_value_none(void)
{
    return (struct jinja_value){.kind = JINJA_NONE};
}
static inline struct jinja_value jinja_value_bool(bool b)
{
    return (struct jinja_value){.kind = JINJA_BOOL, .b = b};
}
static inline struct jinja_value jinja_value_int(int64_t i)
{
    return (struct jinja_value){.kind = JINJA_INT, .i = i};
}
static inline struct jinja_value jinja_value_float(double f)
{
    return (struct jinja_value){.kind = JINJA_FLOAT, .f = f};
}
/* A borrowed text of at most UINT32_MAX bytes. */
static inline struct jinja_value jinja_value_str(const char *s, size_t n)
{
    return (struct jinja_value){.kind = JINJA_STR, .n = (uint32_t)n, .s = s};
}
#define JINJA_LITERAL(s) jinja_value_str("" s, sizeof(s) - 1)
static inline struct jinja_value jinja_value_items(enum jinja_kind kind,
                                                   const struct jinja_value *items, size_t n)
{
    return (struct jinja_value){.kind = (uint8_t)kind, .n = (uint32_t)n, .items = items};
}
static inline bool jinja_value_is_str(struct jinja_value v, const char *s, size_t n)
{
    return v.kind == JINJA_STR && v.n == n && __builtin_memcmp(v.s, s, n) == 0;
}
static inline bool jinja_value_is_markup(struct jinja_value v)
{
    return v.kind == JINJA_STR && v.flag == JINJA_MARKUP;
}

/* Makes: a copy of a text; a text of two; a tuple of two. */
struct jinja_value jinja_value_text(struct jinja *j, const char *s, size_t n);
struct jinja_value jinja_value_concat(struct jinja *j, struct jinja_value a, struct jinja_value b);
struct jinja_value jinja_value_pair(struct jinja *j, struct jinja_value a, struct jinja_value b);
/* Room for n items, to be filled and wrapped by jinja_value_items. */
struct jinja_value *jinja_value_room(struct jinja *j, size_t n);

struct jinja_value jinja_value_unnamed(const char *name, size_t n);
struct jinja_value jinja_value_no_attr(enum jinja_kind kind, const char *name, size_t n);
struct jinja_value jinja_value_hint(struct jinja *j, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Leaves with what an undefined value's message is. */
NORETURN void jinja_value_use_undefined(struct jinja *j, struct jinja_value v);

/* Context: texts are borrowed from the JSON. */
struct jinja_value jinja_value_from_json(struct jinja *j, const json_t *v);

bool jinja_value_is_true(struct jinja_value v);
bool jinja_value_is_number(struct jinja_value v);  /* bool, int, float */
double jinja_value_as_float(struct jinja_value v); /* of a number */
/* Whether v counts as an integer (int or bool), and which. */
bool jinja_value_as_int(struct jinja_value v, int64_t *ret);

bool jinja_value_equal(struct jinja *j, struct jinja_value a, struct jinja_value b);
/* <0, 0, >0; leaves when the two have no order. op is for the message: "<". NaN gives 2. */
int jinja_value_compare(struct jinja *j, struct jinja_value a, struct jinja_value b,
                        const char *op);
enum { JINJA_UNORDERED = 2 };
/* Leaves when v cannot be a key. */
uint64_t jinja_value_hash(struct jinja *j, struct jinja_value v);
bool jinja_value_contains(struct jinja *j, struct jinja_value in, struct jinja_value v);
/* False when v has no length. */
bool jinja_value_length(struct jinja *j, struct jinja_value v, int64_t *ret);

const char *jinja_value_type(struct jinja_value v);      /* "int", "str", "dict", ... */
const char *jinja_value_kind_type(enum jinja_kind kind); /* the same of a kind */

#endif
