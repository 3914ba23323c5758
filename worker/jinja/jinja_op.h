/* Operators and subscripts. */
#ifndef WORKER_JINJA_JINJA_OP_H
#define WORKER_JINJA_JINJA_OP_H

#include "worker/jinja/jinja_number.h"

struct jinja_value jinja_op_binary(struct jinja *j, enum jinja_op op, struct jinja_value a,
                                   struct jinja_value b);
/* -v or +v. */
struct jinja_value jinja_op_sign(struct jinja *j, bool negate, struct jinja_value v);

/* of[key]: an item, else (for a text key) an attribute, else undefined. */
struct jinja_value jinja_op_item(struct jinja *j, struct jinja_value of, struct jinja_value key);
/* of[start:stop:step]; none where left out. */
struct jinja_value jinja_op_slice(struct jinja *j, struct jinja_value of, struct jinja_value start,
                                  struct jinja_value stop, struct jinja_value step);
/* [start, stop) of a text of n characters, as slices and the search methods count. */
void jinja_op_clamp(int64_t n, int64_t *start, int64_t *stop);

#endif
