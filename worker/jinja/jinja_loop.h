/* The `loop` of a for statement. Items are read one by one, so that `loop.last` looks one ahead and
 * `loop.length` of a generator reads the rest. */
#ifndef WORKER_JINJA_JINJA_LOOP_H
#define WORKER_JINJA_JINJA_LOOP_H

#include "worker/jinja/jinja_call.h"
#include "worker/jinja/jinja_iter.h"

struct jinja_stmt;
struct jinja_frame;

struct jinja_loop {
    struct jinja_value over;
    struct jinja_iter *it;
    struct jinja_value current, before;
    struct jinja_value after;   /* read ahead; MISSING when nothing was */
    struct jinja_value changed; /* the last arguments of loop.changed(), a tuple; or MISSING */
    int64_t index0;             /* -1 before the first item */
    int64_t length;             /* -1 unknown */
    int64_t depth0;
    const struct jinja_stmt *stmt; /* of a recursive loop, else NULL */
    struct jinja_frame *frame;     /* the variables around that */
};

struct jinja_loop *jinja_loop_create(struct jinja *j, struct jinja_value over, int64_t depth0);
bool jinja_loop_next(struct jinja *j, struct jinja_loop *l, struct jinja_value *ret);
int64_t jinja_loop_length(struct jinja *j, struct jinja_loop *l);
/* An attribute that is not a method; false when there is no such. */
bool jinja_loop_attr(struct jinja *j, struct jinja_loop *l, const char *name, size_t n,
                     struct jinja_value *ret);

extern const struct jinja_builtin jinja_loop_methods[];
extern const size_t jinja_loop_n_methods;

#endif
