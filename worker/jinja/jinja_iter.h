/* Iteration. An iterator is read once, item by item; filters such as map and select make lazy ones
 * by giving their own `next`. */
#ifndef WORKER_JINJA_JINJA_ITER_H
#define WORKER_JINJA_JINJA_ITER_H

#include "worker/jinja/jinja_value.h"

struct jinja_iter;
/* Writes the next item and returns true, or returns false at the end, then and ever after. */
typedef bool jinja_next_fn(struct jinja *j, struct jinja_iter *it, struct jinja_value *ret);

struct jinja_iter {
    jinja_next_fn *next;
    struct jinja_value over;   /* the collection, or what a lazy iterator reads from */
    struct jinja_iter *source; /* of a lazy one that has begun */
    uint32_t at;               /* position in `over` */
    void *state;               /* of the lazy one that set `next` */
};

/* NULL when v cannot be iterated. */
struct jinja_iter *jinja_iter_try(struct jinja *j, struct jinja_value v);
/* Leaves when v cannot be iterated. */
struct jinja_iter *jinja_iter_open(struct jinja *j, struct jinja_value v);

static inline bool jinja_iter_next(struct jinja *j, struct jinja_iter *it, struct jinja_value *ret)
{
    jinja_step(j, 1);
    return it->next(j, it, ret);
}

/* A lazy iterator as a value. */
struct jinja_value jinja_iter_lazy(struct jinja *j, jinja_next_fn *next, struct jinja_value over,
                                   void *state);
/* All items that are left, as a list. */
struct jinja_value jinja_iter_list(struct jinja *j, struct jinja_value v);
struct jinja_value jinja_iter_rest(struct jinja *j, struct jinja_iter *it);
/* The i-th value of a range. */
int64_t jinja_iter_range_at(struct jinja_value range, uint32_t i);

#endif
