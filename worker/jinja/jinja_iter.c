/* Iteration over every kind of value that has items. */
#include "worker/jinja/jinja_iter.h"
#include "worker/jinja/jinja_dict.h"
#include "worker/jinja/jinja_unicode.h"

#include <string.h>

int64_t jinja_iter_range_at(struct jinja_value range, uint32_t i)
{
    return range.range->start + (int64_t)i * range.range->step;
}

static bool next_item(struct jinja *j, struct jinja_iter *it, struct jinja_value *ret)
{
    (void)j;
    if (it->at >= it->over.n) {
        return false;
    }
    *ret = it->over.items[it->at++];
    return true;
}

static bool next_char(struct jinja *j, struct jinja_iter *it, struct jinja_value *ret)
{
    (void)j;
    if (it->at >= it->over.n) {
        return false;
    }
    const char *s = it->over.s + it->at;
    size_t n = jinja_unicode_step(s, it->over.n - it->at);
    *ret = jinja_value_str(s, n);
    it->at += (uint32_t)n;
    return true;
}

static bool next_range(struct jinja *j, struct jinja_iter *it, struct jinja_value *ret)
{
    (void)j;
    if (it->at >= it->over.n) {
        return false;
    }
    *ret = jinja_value_int(jinja_iter_range_at(it->over, it->at++));
    return true;
}

static bool next_entry(struct jinja *j, struct jinja_iter *it, struct jinja_value *ret)
{
    const struct jinja_dict *d = it->over.dict;
    if (it->at >= d->n) {
        return false;
    }
    const struct jinja_entry *e = &d->entries[it->at++];
    if (it->over.kind == JINJA_DICT || it->over.aux == JINJA_KEYS) {
        *ret = e->key;
    } else {
        *ret = it->over.aux == JINJA_VALUES ? e->value : jinja_value_pair(j, e->key, e->value);
    }
    return true;
}

static bool next_none(struct jinja *j, struct jinja_iter *it, struct jinja_value *ret)
{
    (void)j, (void)it, (void)ret;
    return false;
}

struct jinja_iter *jinja_iter_try(struct jinja *j, struct jinja_value v)
{
    jinja_next_fn *next;
    switch ((enum jinja_kind)v.kind) {
    case JINJA_ITER:
        return v.iter;
    case JINJA_LIST:
    case JINJA_TUPLE:
        next = next_item;
        break;
    case JINJA_STR:
        next = next_char;
        break;
    case JINJA_RANGE:
        next = next_range;
        break;
    case JINJA_DICT:
    case JINJA_VIEW:
        next = next_entry;
        break;
    case JINJA_UNDEFINED:
        next = next_none;
        break;
    default:
        return NULL;
    }
    struct jinja_iter *it = jinja_alloc(j, sizeof(*it));
    *it = (struct jinja_iter){.next = next, .over = v};
    return it;
}

struct jinja_iter *jinja_iter_open(struct jinja *j, struct jinja_value v)
{
    struct jinja_iter *it = jinja_iter_try(j, v);
    if (!it) {
        jinja_fail(j, "'%s' object is not iterable", jinja_value_type(v));
    }
    return it;
}

struct jinja_value jinja_iter_lazy(struct jinja *j, jinja_next_fn *next, struct jinja_value over,
                                   void *state)
{
    struct jinja_iter *it = jinja_alloc(j, sizeof(*it));
    *it = (struct jinja_iter){.next = next, .over = over, .state = state};
    return (struct jinja_value){.kind = JINJA_ITER, .iter = it};
}

struct jinja_value jinja_iter_rest(struct jinja *j, struct jinja_iter *it)
{
    size_t n = 0, cap = 0;
    struct jinja_value *items = NULL;
    for (struct jinja_value v; jinja_iter_next(j, it, &v);) {
        if (n == cap) {
            cap = cap ? cap * 2 : 8;
            struct jinja_value *more = jinja_value_room(j, cap);
            if (n) {
                memcpy(more, items, n * sizeof(*items));
            }
            items = more;
        }
        items[n++] = v;
    }
    return jinja_value_items(JINJA_LIST, items, n);
}

struct jinja_value jinja_iter_list(struct jinja *j, struct jinja_value v)
{
    if (v.kind == JINJA_LIST || v.kind == JINJA_TUPLE) {
        return jinja_value_items(JINJA_LIST, v.items, v.n); /* items never change: shared */
    }
    return jinja_iter_rest(j, jinja_iter_open(j, v));
}
