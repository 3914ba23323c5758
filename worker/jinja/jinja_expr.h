/* The parser's part for expressions. */
#ifndef WORKER_JINJA_JINJA_EXPR_H
#define WORKER_JINJA_JINJA_EXPR_H

#include "worker/jinja/jinja_parse.h"

/* An expression; with_if: "a if b else c" may stand here. */
struct jinja_expr *jinja_expr_parse(struct jinja_parser *p, bool with_if);
/* The same, but "a, b" is a tuple. stop: a word that ends it, or NULL. */
struct jinja_expr *jinja_expr_tuple(struct jinja_parser *p, bool with_if, const char *stop);
/* "f(x)|g|h" without a value before it; NULL where there is none. begun: the first stands without
 * its '|'. */
struct jinja_expr *jinja_expr_filters(struct jinja_parser *p, bool begun);

#endif
