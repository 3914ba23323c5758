/* Attributes of every kind of value, and the methods of dicts, lists and cyclers. */
#include "worker/jinja/jinja_attr.h"
#include "worker/jinja/jinja_dict.h"
#include "worker/jinja/jinja_eval.h"
#include "worker/jinja/jinja_iter.h"
#include "worker/jinja/jinja_loop.h"
#include "worker/jinja/jinja_macro.h"
#include "worker/jinja/jinja_op.h"
#include "worker/jinja/jinja_str.h"
#include "worker/jinja/jinja_strform.h"

#include <string.h>

/* ---- dict ---- */

static struct jinja_value dict_get(struct jinja *j, struct jinja_value self,
                                   const struct jinja_value *arg, const struct jinja_args *args)
{
    (void)args;
    struct jinja_value *found = jinja_dict_get(j, self.dict, arg[0]);
    return found ? *found : arg[1].kind == JINJA_MISSING ? jinja_value_none() : arg[1];
}

static struct jinja_value view(struct jinja_value self, enum jinja_view which)
{
    return (struct jinja_value){.kind = JINJA_VIEW, .aux = (uint16_t)which, .dict = self.dict};
}

static struct jinja_value dict_items(struct jinja *j, struct jinja_value self,
                                     const struct jinja_value *arg, const struct jinja_args *args)
{
    (void)j, (void)arg, (void)args;
    return view(self, JINJA_ITEMS);
}

static struct jinja_value dict_keys(struct jinja *j, struct jinja_value self,
                                    const struct jinja_value *arg, const struct jinja_args *args)
{
    (void)j, (void)arg, (void)args;
    return view(self, JINJA_KEYS);
}

static struct jinja_value dict_values(struct jinja *j, struct jinja_value self,
                                      const struct jinja_value *arg, const struct jinja_args *args)
{
    (void)j, (void)arg, (void)args;
    return view(self, JINJA_VALUES);
}

static struct jinja_value copy(struct jinja *j, struct jinja_value self,
                               const struct jinja_value *arg, const struct jinja_args *args)
{
    (void)j, (void)arg, (void)args;
    return self; /* nothing can change either */
}

static const struct jinja_builtin dict_methods[] = {
    {"get", "key default?", dict_get}, {"items", "", dict_items}, {"keys", "", dict_keys},
    {"values", "", dict_values},       {"copy", "", copy},
};
static const char *const dict_changes[] = {"clear", "pop", "popitem", "setdefault", "update"};

/* ---- list, tuple, range ---- */

static struct jinja_value seq_count(struct jinja *j, struct jinja_value self,
                                    const struct jinja_value *arg, const struct jinja_args *args)
{
    (void)args;
    int64_t n = 0;
    struct jinja_iter *it = jinja_iter_open(j, self);
    for (struct jinja_value v; jinja_iter_next(j, it, &v);) {
        n += jinja_value_equal(j, v, arg[0]);
    }
    return jinja_value_int(n);
}

static struct jinja_value seq_index(struct jinja *j, struct jinja_value self,
                                    const struct jinja_value *arg, const struct jinja_args *args)
{
    (void)args;
    int64_t start = jinja_call_int(j, arg[1], 0), stop = jinja_call_int(j, arg[2], self.n);
    jinja_op_clamp(self.n, &start, &stop);
    for (int64_t i = start; i < stop; i++) {
        struct jinja_value v = self.kind == JINJA_RANGE
                                   ? jinja_value_int(jinja_iter_range_at(self, (uint32_t)i))
                                   : self.items[i];
        if (jinja_value_equal(j, v, arg[0])) {
            return jinja_value_int(i);
        }
    }
    jinja_fail(j, "index(): the value is not in the %s", jinja_value_type(self));
}

static const struct jinja_builtin seq_methods[] = {
    {"count", "value", seq_count},
    {"index", "value start? stop?", seq_index},
    {"copy", "", copy}, /* of lists */
};
static const char *const list_changes[] = {"append", "clear", "pop",    "reverse",
                                           "insert", "sort",  "extend", "remove"};

/* ---- cycler ---- */

static struct jinja_value cycler_next(struct jinja *j, struct jinja_value self,
                                      const struct jinja_value *arg, const struct jinja_args *args)
{
    (void)j, (void)arg, (void)args;
    struct jinja_cycler *c = self.cycler;
    struct jinja_value v = c->items[c->at];
    c->at = (c->at + 1) % c->n;
    return v;
}

static struct jinja_value cycler_reset(struct jinja *j, struct jinja_value self,
                                       const struct jinja_value *arg, const struct jinja_args *args)
{
    (void)j, (void)arg, (void)args;
    self.cycler->at = 0;
    return jinja_value_none();
}

static const struct jinja_builtin cycler_methods[] = {
    {"next", "", cycler_next},
    {"reset", "", cycler_reset},
};

/* ---- lookup ---- */

const struct jinja_builtin *jinja_attr_method(enum jinja_kind kind, const char *name, size_t n)
{
    const struct jinja_builtin *b;
    switch (kind) {
    case JINJA_STR:
        b = jinja_call_find(jinja_str_methods, jinja_str_n_methods, name, n);
        return b ? b : jinja_call_find(jinja_strform_methods, jinja_strform_n_methods, name, n);
    case JINJA_LIST:
        return jinja_call_find(seq_methods, COUNT_OF(seq_methods), name, n);
    case JINJA_TUPLE:
    case JINJA_RANGE:
        return jinja_call_find(seq_methods, COUNT_OF(seq_methods) - 1, name, n);
    case JINJA_DICT:
        return jinja_call_find(dict_methods, COUNT_OF(dict_methods), name, n);
    case JINJA_CYCLER:
        return jinja_call_find(cycler_methods, COUNT_OF(cycler_methods), name, n);
    case JINJA_LOOP:
        return jinja_call_find(jinja_loop_methods, jinja_loop_n_methods, name, n);
    default:
        return NULL;
    }
}

static bool is_one_of(const char *const *names, size_t n_names, const char *name, size_t n)
{
    for (size_t i = 0; i < n_names; i++) {
        if (strlen(names[i]) == n && memcmp(names[i], name, n) == 0) {
            return true;
        }
    }
    return false;
}

static bool changes(enum jinja_kind kind, const char *name, size_t n)
{
    return (kind == JINJA_DICT && is_one_of(dict_changes, COUNT_OF(dict_changes), name, n)) ||
           (kind == JINJA_LIST && is_one_of(list_changes, COUNT_OF(list_changes), name, n));
}

static bool macro_attr(struct jinja *j, const struct jinja_macro *m, struct jinja_value is,
                       struct jinja_value *ret)
{
    const struct jinja_def *def = m->stmt->macro;
    if (jinja_value_is_str(is, "name", 4)) {
        *ret = m->name.s ? m->name : jinja_value_none();
    } else if (jinja_value_is_str(is, "arguments", 9)) {
        struct jinja_value *items = jinja_value_room(j, def->n_params);
        for (uint32_t i = 0; i < def->n_params; i++) {
            items[i] = jinja_value_str(def->params[i].name.s, def->params[i].name.n);
        }
        *ret = jinja_value_items(JINJA_LIST, items, def->n_params);
    } else if (jinja_value_is_str(is, "catch_kwargs", 12)) {
        *ret = jinja_value_bool(def->kwargs.s != NULL);
    } else if (jinja_value_is_str(is, "catch_varargs", 13)) {
        *ret = jinja_value_bool(def->varargs.s != NULL);
    } else if (jinja_value_is_str(is, "caller", 6)) {
        *ret = jinja_value_bool(def->caller.s != NULL);
    } else {
        return false;
    }
    return true;
}

static bool data_attr(struct jinja *j, struct jinja_value of, const char *name, size_t n,
                      struct jinja_value *ret)
{
    struct jinja_value is = jinja_value_str(name, n), *found;
    switch ((enum jinja_kind)of.kind) {
    case JINJA_NAMESPACE:
        found = jinja_dict_get_str(j, of.dict, name, n);
        if (found) {
            *ret = *found;
        }
        return found != NULL;
    case JINJA_LOOP:
        return jinja_loop_attr(j, of.loop, name, n, ret);
    case JINJA_MACRO:
        return macro_attr(j, of.macro, is, ret);
    case JINJA_TUPLE:
        if (of.flag == JINJA_GROUP && of.n == 2) {
            bool first = jinja_value_is_str(is, "grouper", 7);
            *ret = of.items[first ? 0 : 1];
            return first || jinja_value_is_str(is, "list", 4);
        }
        return false;
    case JINJA_CYCLER:
        *ret = of.cycler->items[of.cycler->at];
        return jinja_value_is_str(is, "current", 7);
    case JINJA_RANGE:
        *ret = jinja_value_int(jinja_value_is_str(is, "start", 5)  ? of.range->start
                               : jinja_value_is_str(is, "stop", 4) ? of.range->stop
                                                                   : of.range->step);
        return jinja_value_is_str(is, "start", 5) || jinja_value_is_str(is, "stop", 4) ||
               jinja_value_is_str(is, "step", 4);
    default:
        return false;
    }
}

bool jinja_attr_find(struct jinja *j, struct jinja_value of, const char *name, size_t n,
                     struct jinja_value *ret)
{
    jinja_step(j, 1);
    const struct jinja_builtin *b = jinja_attr_method(of.kind, name, n);
    if (b) {
        struct jinja_method *m = jinja_alloc(j, sizeof(*m));
        *m = (struct jinja_method){b, of};
        *ret = (struct jinja_value){.kind = JINJA_METHOD, .method = m};
        return true;
    }
    if (changes(of.kind, name, n)) {
        *ret = jinja_value_no_attr(of.kind, name, n);
        ret->flag = JINJA_UNSAFE;
        return true;
    }
    return data_attr(j, of, name, n, ret);
}

struct jinja_value jinja_attr_get(struct jinja *j, struct jinja_value of, const char *name,
                                  size_t n)
{
    struct jinja_value v;
    if (of.kind == JINJA_UNDEFINED) {
        jinja_value_use_undefined(j, of);
    }
    if (jinja_attr_find(j, of, name, n, &v)) {
        return v;
    }
    if (of.kind == JINJA_DICT) {
        struct jinja_value *found = jinja_dict_get_str(j, of.dict, name, n);
        if (found) {
            return *found;
        }
    }
    return jinja_value_no_attr(of.kind, name, n);
}
