/* range, namespace, dict, cycler, joiner; raise_exception and strftime_now, which the transformers
 * library adds. */
#include "worker/jinja/jinja_global.h"
#include "worker/jinja/jinja_dict.h"
#include "worker/jinja/jinja_iter.h"
#include "worker/jinja/jinja_macro.h"
#include "worker/jinja/jinja_text.h"
#include "worker/jinja/jinja_time.h"

#include <string.h>

#define FUNCTION(name)                                                                             \
    static struct jinja_value name(struct jinja *j, struct jinja_value self,                       \
                                   const struct jinja_value *arg, const struct jinja_args *args)

FUNCTION(global_range)
{
    enum { MAX_ITEMS = 100000 }; /* of Jinja's sandbox */
    (void)self, (void)args;
    bool only_stop = arg[1].kind == JINJA_MISSING;
    struct jinja_range *r = jinja_alloc(j, sizeof(*r));
    r->start = only_stop ? 0 : jinja_call_int(j, arg[0], 0);
    r->stop = jinja_call_int(j, only_stop ? arg[0] : arg[1], 0);
    r->step = jinja_call_int(j, arg[2], 1);
    const int64_t far = INT64_MAX / 4;
    if (r->start > far || r->start < -far || r->stop > far || r->stop < -far || r->step > far ||
        r->step < -far) {
        jinja_fail(j, "range() arguments of that size");
    }
    if (r->step == 0) {
        jinja_fail(j, "range() arg 3 must not be zero");
    }
    int64_t n = r->step > 0 ? (r->stop - r->start + r->step - 1) / r->step
                            : (r->start - r->stop - r->step - 1) / -r->step;
    n = MAX(n, 0);
    if (n > MAX_ITEMS) {
        jinja_fail(j, "Range too big. The sandbox blocks ranges larger than %d.", MAX_ITEMS);
    }
    return (struct jinja_value){.kind = JINJA_RANGE, .n = (uint32_t)n, .range = r};
}

/* What dict(...) and namespace(...) take: a dict or pairs, and named values. */
static struct jinja_dict *collect(struct jinja *j, const struct jinja_args *args)
{
    struct jinja_dict *d = jinja_dict_create(j, args->n_kw);
    if (args->n_pos > 1) {
        jinja_fail(j, "at most 1 positional argument (%u given)", args->n_pos);
    }
    if (args->n_pos && args->pos[0].kind == JINJA_DICT) {
        const struct jinja_dict *from = args->pos[0].dict;
        for (uint32_t i = 0; i < from->n; i++) {
            jinja_dict_set(j, d, from->entries[i].key, from->entries[i].value);
        }
    } else if (args->n_pos) {
        struct jinja_iter *it = jinja_iter_open(j, args->pos[0]);
        for (struct jinja_value v; jinja_iter_next(j, it, &v);) {
            struct jinja_value pair = jinja_iter_list(j, v);
            if (pair.n != 2) {
                jinja_fail(j, "an element has length %u; 2 is required", pair.n);
            }
            jinja_dict_set(j, d, pair.items[0], pair.items[1]);
        }
    }
    for (uint32_t i = 0; i < args->n_kw; i++) {
        jinja_dict_set(j, d, args->kw[i].name, args->kw[i].value);
    }
    return d;
}

FUNCTION(global_dict)
{
    (void)self, (void)arg;
    return jinja_dict_value(collect(j, args));
}

FUNCTION(global_namespace)
{
    (void)self, (void)arg;
    return (struct jinja_value){.kind = JINJA_NAMESPACE, .dict = collect(j, args)};
}

FUNCTION(global_cycler)
{
    (void)self, (void)arg;
    if (args->n_pos == 0 || args->n_kw) {
        jinja_fail(j, "at least one item has to be provided");
    }
    struct jinja_cycler *c = jinja_alloc(j, sizeof(*c));
    *c = (struct jinja_cycler){.items = args->pos, .n = args->n_pos};
    return (struct jinja_value){.kind = JINJA_CYCLER, .cycler = c};
}

FUNCTION(global_joiner)
{
    (void)self, (void)args;
    struct jinja_joiner *joiner = jinja_alloc(j, sizeof(*joiner));
    joiner->separator = arg[0].kind == JINJA_MISSING ? JINJA_LITERAL(", ") : arg[0];
    return (struct jinja_value){.kind = JINJA_JOINER, .joiner = joiner};
}

FUNCTION(global_raise_exception)
{
    (void)self, (void)args;
    struct jinja_value text = jinja_text_str(j, arg[0]);
    jinja_fail_text(j, text.s, text.n);
}

FUNCTION(global_strftime_now)
{
    (void)self, (void)args;
    struct jinja_value format = jinja_call_str(j, arg[0], NULL);
    size_t mark = jinja_capture(j);
    jinja_time_put(j, format);
    return jinja_captured(j, mark);
}

static const struct jinja_builtin globals[] = {
    {"range", "start stop? step?", global_range},
    {"dict", "*", global_dict},
    {"namespace", "*", global_namespace},
    {"cycler", "*", global_cycler},
    {"joiner", "sep?", global_joiner},
    {"raise_exception", "message", global_raise_exception},
    {"strftime_now", "format", global_strftime_now},
};

struct jinja_value jinja_global_find(const char *name, size_t n)
{
    const struct jinja_builtin *b = jinja_call_find(globals, COUNT_OF(globals), name, n);
    return b ? (struct jinja_value){.kind = JINJA_FUNCTION, .function = b}
             : (struct jinja_value){.kind = JINJA_MISSING};
}
