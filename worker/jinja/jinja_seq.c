/* Filters of sequences: what picks, maps, orders and groups items. */
#include "worker/jinja/jinja_seq.h"
#include "worker/jinja/jinja_dict.h"
#include "worker/jinja/jinja_filter.h"
#include "worker/jinja/jinja_iter.h"
#include "worker/jinja/jinja_number.h"
#include "worker/jinja/jinja_op.h"
#include "worker/jinja/jinja_sort.h"
#include "worker/jinja/jinja_str.h"
#include "worker/jinja/jinja_test.h"
#include "worker/jinja/jinja_text.h"
#include "worker/jinja/jinja_unicode.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#define FILTER(name)                                                                               \
    static struct jinja_value name(struct jinja *j, struct jinja_value self,                       \
                                   const struct jinja_value *arg, const struct jinja_args *args)

/* ---- attributes of items ---- */

/* "a.b.0" as the keys 'a', 'b', 0, each tried as item and attribute; none means the item itself. */
struct getter {
    const struct jinja_value *keys;
    uint32_t n;
    struct jinja_value def; /* for what is undefined; NONE: no default */
    bool fold;              /* texts are compared in lower case */
};

static struct getter make_getter(struct jinja *j, struct jinja_value attribute, bool fold)
{
    struct getter g = {.fold = fold, .def = jinja_value_none()};
    if (attribute.kind == JINJA_MISSING || attribute.kind == JINJA_NONE) {
        return g;
    }
    if (attribute.kind != JINJA_STR) {
        struct jinja_value *key = jinja_value_room(j, 1);
        *key = attribute;
        g.keys = key;
        g.n = 1;
        return g;
    }
    size_t n = 1;
    for (uint32_t i = 0; i < attribute.n; i++) {
        n += attribute.s[i] == '.';
    }
    struct jinja_value *keys = jinja_value_room(j, n);
    for (uint32_t from = 0, at = 0; at <= attribute.n; at++) {
        if (at < attribute.n && attribute.s[at] != '.') {
            continue;
        }
        bool digits = at > from;
        for (uint32_t i = from; i < at; i++) {
            digits = digits && isdigit((unsigned char)attribute.s[i]);
        }
        int64_t index = 0;
        keys[g.n] = jinja_value_str(attribute.s + from, at - from);
        if (digits && jinja_number_parse_int(j, attribute.s + from, at - from, 10, &index)) {
            keys[g.n] = jinja_value_int(index);
        }
        g.n++;
        from = at + 1;
    }
    g.keys = keys;
    return g;
}

static struct jinja_value get(struct jinja *j, const struct getter *g, struct jinja_value item)
{
    for (uint32_t i = 0; i < g->n; i++) {
        jinja_step(j, 1);
        item = jinja_op_item(j, item, g->keys[i]);
        if (g->def.kind != JINJA_NONE && item.kind == JINJA_UNDEFINED) {
            item = g->def;
        }
    }
    if (g->fold && item.kind == JINJA_STR) {
        item = jinja_unicode_map(j, item.s, item.n, JINJA_TO_LOWER);
    }
    return item;
}

/* ---- lazy filters ---- */

struct lazy {
    struct jinja_args args; /* those behind what has been taken */
    enum { MAP, SELECT, REJECT, UNIQUE } what;
    bool has_attribute; /* selectattr, rejectattr */
    struct getter getter;
    const struct jinja_builtin *call; /* filter or test; NULL: none */
    struct jinja_dict *seen;
};

static struct jinja_value take_pos(struct jinja *j, struct lazy *l, const char *what)
{
    if (l->args.n_pos == 0) {
        jinja_fail(j, "%s is missing", what);
    }
    l->args.n_pos--;
    return *l->args.pos++;
}

static void prepare_map(struct jinja *j, struct lazy *l)
{
    struct jinja_value attribute = {.kind = JINJA_MISSING}, def = jinja_value_none();
    for (uint32_t i = 0; i < l->args.n_kw && l->args.n_pos == 0; i++) {
        struct jinja_value name = l->args.kw[i].name;
        if (jinja_value_is_str(name, "attribute", 9)) {
            attribute = l->args.kw[i].value;
        } else if (jinja_value_is_str(name, "default", 7)) {
            def = l->args.kw[i].value;
        } else {
            jinja_fail(j, "Unexpected keyword argument '%.*s'", (int)MIN(name.n, 100u), name.s);
        }
    }
    if (attribute.kind != JINJA_MISSING) {
        l->getter = make_getter(j, attribute, false);
        l->getter.def = def;
        return;
    }
    struct jinja_value name = jinja_call_str(j, take_pos(j, l, "map: a filter"), NULL);
    l->call = jinja_filter_find(name.s, name.n);
    if (!l->call) {
        jinja_fail(j, "there is no filter named '%.*s'", (int)MIN(name.n, 100u), name.s);
    }
}

static void prepare_select(struct jinja *j, struct lazy *l)
{
    if (l->has_attribute) {
        l->getter = make_getter(j, take_pos(j, l, "the name of an attribute"), false);
    }
    if (l->args.n_pos) {
        struct jinja_value name = jinja_call_str(j, take_pos(j, l, "a test"), NULL);
        l->call = jinja_test_find(name.s, name.n);
        if (!l->call) {
            jinja_fail(j, "there is no test named '%.*s'", (int)MIN(name.n, 100u), name.s);
        }
    }
}

/* Arguments are looked at when the first item is asked for. */
static struct jinja_iter *begin(struct jinja *j, struct jinja_iter *it)
{
    struct lazy *l = it->state;
    if (!it->source) {
        if (l->what != UNIQUE && !jinja_value_is_true(it->over)) {
            it->over = jinja_value_items(JINJA_LIST, NULL, 0);
        } else if (l->what == MAP) {
            prepare_map(j, l);
        } else if (l->what != UNIQUE) {
            prepare_select(j, l);
        }
        it->source = jinja_iter_open(j, it->over);
    }
    return it->source;
}

static bool next_mapped(struct jinja *j, struct jinja_iter *it, struct jinja_value *ret)
{
    struct lazy *l = it->state;
    struct jinja_value item;
    if (!jinja_iter_next(j, begin(j, it), &item)) {
        return false;
    }
    jinja_enter(j);
    *ret = l->call ? jinja_call_builtin(j, l->call, item, &l->args) : get(j, &l->getter, item);
    jinja_exit(j);
    return true;
}

static bool next_selected(struct jinja *j, struct jinja_iter *it, struct jinja_value *ret)
{
    struct lazy *l = it->state;
    struct jinja_value item;
    while (jinja_iter_next(j, begin(j, it), &item)) {
        jinja_enter(j);
        struct jinja_value v = l->has_attribute ? get(j, &l->getter, item) : item;
        bool passes =
            jinja_value_is_true(l->call ? jinja_call_builtin(j, l->call, v, &l->args) : v);
        jinja_exit(j);
        if (passes == (l->what == SELECT)) {
            *ret = item;
            return true;
        }
    }
    return false;
}

static bool next_unique(struct jinja *j, struct jinja_iter *it, struct jinja_value *ret)
{
    struct lazy *l = it->state;
    while (jinja_iter_next(j, begin(j, it), ret)) {
        struct jinja_value key = get(j, &l->getter, *ret);
        if (!jinja_dict_get(j, l->seen, key)) {
            jinja_dict_add(j, l->seen, key, jinja_value_none());
            return true;
        }
    }
    return false;
}

FILTER(filter_map)
{
    (void)arg;
    struct lazy *l = jinja_alloc(j, sizeof(*l));
    *l = (struct lazy){.what = MAP, .args = *args};
    return jinja_iter_lazy(j, next_mapped, self, l);
}

static struct jinja_value selecting(struct jinja *j, struct jinja_value self,
                                    const struct jinja_args *args, bool reject, bool has_attribute)
{
    struct lazy *l = jinja_alloc(j, sizeof(*l));
    *l = (struct lazy){
        .what = reject ? REJECT : SELECT, .has_attribute = has_attribute, .args = *args};
    return jinja_iter_lazy(j, next_selected, self, l);
}

FILTER(filter_select)
{
    (void)arg;
    return selecting(j, self, args, false, false);
}

FILTER(filter_reject)
{
    (void)arg;
    return selecting(j, self, args, true, false);
}

FILTER(filter_selectattr)
{
    (void)arg;
    return selecting(j, self, args, false, true);
}

FILTER(filter_rejectattr)
{
    (void)arg;
    return selecting(j, self, args, true, true);
}

FILTER(filter_unique)
{
    (void)args;
    struct lazy *l = jinja_alloc(j, sizeof(*l));
    *l = (struct lazy){.what = UNIQUE,
                       .getter = make_getter(j, arg[1], !jinja_call_bool(arg[0], false)),
                       .seen = jinja_dict_create(j, 0)};
    return jinja_iter_lazy(j, next_unique, self, l);
}

static bool next_pair(struct jinja *j, struct jinja_iter *it, struct jinja_value *ret)
{
    if (!it->source) {
        if (it->over.kind != JINJA_DICT && it->over.kind != JINJA_UNDEFINED) {
            jinja_fail(j, "Can only get item pairs from a mapping.");
        }
        if (it->over.kind == JINJA_DICT) {
            it->over.kind = JINJA_VIEW;
            it->over.aux = JINJA_ITEMS;
        }
        it->source = jinja_iter_open(j, it->over);
    }
    return jinja_iter_next(j, it->source, ret);
}

FILTER(filter_items)
{
    (void)arg, (void)args;
    return jinja_iter_lazy(j, next_pair, self, NULL);
}

/* ---- groups of a fixed size ---- */

struct chunks {
    int64_t n;
    struct jinja_value fill; /* or NONE */
    bool is_batch;
};

static struct jinja_value chunk(struct jinja *j, struct jinja_value all, size_t from, size_t to,
                                size_t fill_to, struct jinja_value fill)
{
    size_t n = to - from, total = fill.kind == JINJA_NONE ? n : MAX(n, fill_to);
    struct jinja_value *items = jinja_value_room(j, total);
    if (n) {
        memcpy(items, all.items + from, n * sizeof(*items));
    }
    for (size_t i = n; i < total; i++) {
        items[i] = fill;
    }
    return jinja_value_items(JINJA_LIST, items, total);
}

static struct jinja_value batches(struct jinja *j, struct jinja_value all, const struct chunks *c)
{
    size_t size = c->n > 0 ? (size_t)c->n : all.n + (size_t)1; /* no length is ever reached then */
    size_t n = all.n / size + (all.n % size != 0), at = 0;
    if (c->n == 0 && all.n) {
        n = 2; /* an empty batch, then everything */
    }
    struct jinja_value *rows = jinja_value_room(j, n);
    for (size_t i = 0; i < n; i++) {
        size_t to = c->n == 0 && i == 0 ? 0 : MIN(at + size, (size_t)all.n);
        rows[i] = chunk(j, all, at, to, i + 1 == n && c->n > 0 ? size : 0, c->fill);
        at = to;
    }
    return jinja_value_items(JINJA_LIST, rows, n);
}

static struct jinja_value slices(struct jinja *j, struct jinja_value all, const struct chunks *c)
{
    if (c->n == 0) {
        jinja_fail(j, "integer division or modulo by zero");
    }
    size_t n = c->n > 0 ? (size_t)c->n : 0, at = 0;
    struct jinja_value *rows = jinja_value_room(j, n);
    for (size_t i = 0; i < n; i++) {
        jinja_step(j, 1);
        bool is_short = i >= all.n % n;
        size_t to = at + all.n / n + !is_short;
        rows[i] = chunk(j, all, at, to, is_short ? to - at + 1 : 0, c->fill);
        at = to;
    }
    return jinja_value_items(JINJA_LIST, rows, n);
}

static bool next_chunk(struct jinja *j, struct jinja_iter *it, struct jinja_value *ret)
{
    if (!it->source) {
        const struct chunks *c = it->state;
        struct jinja_value all = jinja_iter_list(j, it->over);
        it->source = jinja_iter_open(j, c->is_batch ? batches(j, all, c) : slices(j, all, c));
    }
    return jinja_iter_next(j, it->source, ret);
}

static struct jinja_value chunked(struct jinja *j, struct jinja_value self,
                                  const struct jinja_value *arg, bool is_batch)
{
    struct chunks *c = jinja_alloc(j, sizeof(*c));
    *c = (struct chunks){.n = jinja_call_int(j, arg[0], 0),
                         .fill = arg[1].kind == JINJA_MISSING ? jinja_value_none() : arg[1],
                         .is_batch = is_batch};
    return jinja_iter_lazy(j, next_chunk, self, c);
}

FILTER(filter_batch)
{
    (void)args;
    return chunked(j, self, arg, true);
}

FILTER(filter_slice)
{
    (void)args;
    return chunked(j, self, arg, false);
}

/* ---- order ---- */

FILTER(filter_reverse)
{
    (void)arg, (void)args;
    if (self.kind == JINJA_STR) {
        return jinja_op_slice(j, self, jinja_value_none(), jinja_value_none(), jinja_value_int(-1));
    }
    struct jinja_value list = jinja_iter_list(j, self);
    list = jinja_op_slice(j, list, jinja_value_none(), jinja_value_none(), jinja_value_int(-1));
    if (self.kind == JINJA_ITER) {
        return list;
    }
    return (struct jinja_value){.kind = JINJA_ITER, .iter = jinja_iter_open(j, list)};
}

FILTER(filter_sort)
{
    (void)args;
    bool fold = !jinja_call_bool(arg[1], false);
    /* Several attributes stand in one text, separated by commas. */
    struct jinja_value names = jinja_value_items(JINJA_LIST, &arg[2], 1);
    if (arg[2].kind == JINJA_STR) {
        struct jinja_value comma = JINJA_LITERAL(",");
        const struct jinja_args sep = {.n_pos = 1, .pos = &comma};
        names = jinja_call_builtin(
            j, jinja_call_find(jinja_str_methods, jinja_str_n_methods, "split", 5), arg[2], &sep);
    }
    struct getter *getters = jinja_array(j, names.n, sizeof(*getters));
    for (uint32_t i = 0; i < names.n; i++) {
        getters[i] = make_getter(j, names.items[i], fold);
    }
    struct jinja_value list = jinja_iter_list(j, self);
    struct jinja_sorted *sorted = jinja_array(j, list.n, sizeof(*sorted));
    for (uint32_t i = 0; i < list.n; i++) {
        struct jinja_value *keys = jinja_value_room(j, names.n);
        for (uint32_t k = 0; k < names.n; k++) {
            keys[k] = get(j, &getters[k], list.items[i]);
        }
        sorted[i] =
            (struct jinja_sorted){jinja_value_items(JINJA_LIST, keys, names.n), list.items[i]};
    }
    jinja_sort(j, sorted, list.n, jinja_call_bool(arg[0], false));
    struct jinja_value *items = jinja_value_room(j, list.n);
    for (uint32_t i = 0; i < list.n; i++) {
        items[i] = sorted[i].value;
    }
    return jinja_value_items(JINJA_LIST, items, list.n);
}

FILTER(filter_dictsort)
{
    (void)args;
    bool fold = !jinja_call_bool(arg[0], false);
    struct jinja_value by = jinja_call_str(j, arg[1], "key");
    bool by_value = jinja_value_is_str(by, "value", 5);
    if (!by_value && !jinja_value_is_str(by, "key", 3)) {
        jinja_fail(j, "You can only sort by either \"key\" or \"value\"");
    }
    if (self.kind == JINJA_UNDEFINED) {
        jinja_value_use_undefined(j, self);
    }
    if (self.kind != JINJA_DICT) {
        jinja_fail(j, "dictsort: a dict, not a %s", jinja_value_type(self));
    }
    uint32_t n = self.dict->n;
    struct getter whole = make_getter(j, jinja_value_none(), fold);
    struct jinja_sorted *sorted = jinja_array(j, n, sizeof(*sorted));
    for (uint32_t i = 0; i < n; i++) {
        const struct jinja_entry *e = &self.dict->entries[i];
        sorted[i].key = get(j, &whole, by_value ? e->value : e->key);
        sorted[i].value = jinja_value_pair(j, e->key, e->value);
    }
    jinja_sort(j, sorted, n, jinja_call_bool(arg[2], false));
    struct jinja_value *items = jinja_value_room(j, n);
    for (uint32_t i = 0; i < n; i++) {
        items[i] = sorted[i].value;
    }
    return jinja_value_items(JINJA_LIST, items, n);
}

FILTER(filter_groupby)
{
    (void)args;
    bool fold = !jinja_call_bool(arg[2], false);
    struct getter g = make_getter(j, arg[0], fold);
    g.def = arg[1].kind == JINJA_MISSING ? jinja_value_none() : arg[1];
    struct getter plain = g;
    plain.fold = false;
    struct jinja_value list = jinja_iter_list(j, self);
    struct jinja_sorted *sorted = jinja_array(j, list.n, sizeof(*sorted));
    for (uint32_t i = 0; i < list.n; i++) {
        sorted[i] = (struct jinja_sorted){get(j, &g, list.items[i]), list.items[i]};
    }
    jinja_sort(j, sorted, list.n, false);
    struct jinja_value *groups = jinja_value_room(j, list.n);
    uint32_t n = 0;
    for (uint32_t from = 0, to; from < list.n; from = to) {
        for (to = from + 1; to < list.n && jinja_value_equal(j, sorted[to].key, sorted[from].key);
             to++) {
        }
        struct jinja_value *items = jinja_value_room(j, to - from);
        for (uint32_t i = from; i < to; i++) {
            items[i - from] = sorted[i].value;
        }
        struct jinja_value name = get(j, &plain, items[0]);
        groups[n] = jinja_value_pair(j, name, jinja_value_items(JINJA_LIST, items, to - from));
        groups[n++].flag = JINJA_GROUP;
    }
    return jinja_value_items(JINJA_LIST, groups, n);
}

/* ---- one value of many ---- */

FILTER(filter_first)
{
    (void)arg, (void)args;
    struct jinja_value v;
    return jinja_iter_next(j, jinja_iter_open(j, self), &v)
               ? v
               : jinja_value_hint(j, "No first item, sequence was empty.");
}

FILTER(filter_last)
{
    (void)arg, (void)args;
    if (self.kind == JINJA_STR && self.n) {
        size_t n = jinja_unicode_last(self.s, self.n);
        return jinja_value_str(self.s + self.n - n, n);
    }
    if (self.kind == JINJA_ITER) {
        jinja_fail(j, "'generator' object is not reversible");
    }
    struct jinja_value list = jinja_iter_list(j, self);
    return list.n ? list.items[list.n - 1]
                  : jinja_value_hint(j, "No last item, sequence was empty.");
}

static struct jinja_value extreme(struct jinja *j, struct jinja_value self,
                                  const struct jinja_value *arg, bool max)
{
    struct getter g = make_getter(j, arg[1], !jinja_call_bool(arg[0], false));
    struct jinja_iter *it = jinja_iter_open(j, self);
    struct jinja_value best, item;
    if (!jinja_iter_next(j, it, &best)) {
        return jinja_value_hint(j, "No aggregated item, sequence was empty.");
    }
    struct jinja_value best_key = get(j, &g, best);
    while (jinja_iter_next(j, it, &item)) {
        struct jinja_value key = get(j, &g, item);
        if (jinja_value_compare(j, key, best_key, max ? ">" : "<") == (max ? 1 : -1)) {
            best = item;
            best_key = key;
        }
    }
    return best;
}

FILTER(filter_min)
{
    (void)args;
    return extreme(j, self, arg, false);
}

FILTER(filter_max)
{
    (void)args;
    return extreme(j, self, arg, true);
}

FILTER(filter_sum)
{
    (void)args;
    struct getter g = make_getter(j, arg[0], false);
    struct jinja_value sum = arg[1].kind == JINJA_MISSING ? jinja_value_int(0) : arg[1], item;
    if (sum.kind == JINJA_STR) {
        jinja_fail(j, "sum() can't sum strings [use ''.join(seq) instead]");
    }
    struct jinja_iter *it = jinja_iter_open(j, self);
    while (jinja_iter_next(j, it, &item)) {
        sum = jinja_op_binary(j, JINJA_ADD, sum, get(j, &g, item));
    }
    return sum;
}

FILTER(filter_join)
{
    (void)args;
    struct getter g = make_getter(j, arg[1], false);
    struct jinja_value between =
        arg[0].kind == JINJA_MISSING ? JINJA_LITERAL("") : jinja_text_str(j, arg[0]);
    struct jinja_iter *it = jinja_iter_open(j, self);
    struct jinja_value item;
    size_t mark = jinja_capture(j);
    for (bool more = false; jinja_iter_next(j, it, &item); more = true) {
        item = get(j, &g, item);
        jinja_put(j, between.s, more ? between.n : 0);
        jinja_text_put(j, item);
    }
    return jinja_captured(j, mark);
}

FILTER(filter_list)
{
    (void)arg, (void)args;
    return jinja_iter_list(j, self);
}

const struct jinja_builtin jinja_seq_filters[] = {
    {"join", "d? attribute?", filter_join},
    {"map", "*", filter_map},
    {"select", "*", filter_select},
    {"reject", "*", filter_reject},
    {"selectattr", "*", filter_selectattr},
    {"rejectattr", "*", filter_rejectattr},
    {"first", "", filter_first},
    {"last", "", filter_last},
    {"list", "", filter_list},
    {"items", "", filter_items},
    {"sort", "reverse? case_sensitive? attribute?", filter_sort},
    {"dictsort", "case_sensitive? by? reverse?", filter_dictsort},
    {"groupby", "attribute default? case_sensitive?", filter_groupby},
    {"reverse", "", filter_reverse},
    {"unique", "case_sensitive? attribute?", filter_unique},
    {"min", "case_sensitive? attribute?", filter_min},
    {"max", "case_sensitive? attribute?", filter_max},
    {"sum", "attribute? start?", filter_sum},
    {"batch", "linecount fill_with?", filter_batch},
    {"slice", "slices fill_with?", filter_slice},
};
const size_t jinja_seq_n_filters = COUNT_OF(jinja_seq_filters);
