/* Evaluation of expressions. */
#ifndef WORKER_JINJA_JINJA_EVAL_H
#define WORKER_JINJA_JINJA_EVAL_H

#include "worker/jinja/jinja_ast.h"

/* The variables of one call of a function of the tree. */
struct jinja_frame {
    struct jinja_frame *outer; /* of the function around it, as of its definition */
    struct jinja_value slots[];
};

struct jinja_frame *jinja_eval_frame(struct jinja *j, const struct jinja_function *fn,
                                     struct jinja_frame *outer);
struct jinja_value *jinja_eval_slot(struct jinja_frame *f, uint32_t hops, uint32_t slot);

struct jinja_value jinja_eval(struct jinja *j, struct jinja_frame *f, const struct jinja_expr *e);
/* A chain whose last link is a call, with one more argument, caller=. */
struct jinja_value jinja_eval_call(struct jinja *j, struct jinja_frame *f,
                                   const struct jinja_expr *e, struct jinja_value caller);
/* A chain of filters that begins with v. */
struct jinja_value jinja_eval_filters(struct jinja *j, struct jinja_frame *f,
                                      const struct jinja_expr *e, struct jinja_value v);

#endif
