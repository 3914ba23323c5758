/* Execution of statements. */
#ifndef WORKER_JINJA_JINJA_EXEC_H
#define WORKER_JINJA_JINJA_EXEC_H

#include "worker/jinja/jinja_ast.h"

struct jinja_macro;
struct jinja_loop;

/* Prints the template. */
void jinja_exec(struct jinja *j, const struct jinja_template *t);
/* What a macro prints. */
struct jinja_value jinja_exec_macro(struct jinja *j, const struct jinja_macro *m,
                                    const struct jinja_args *args);
/* loop(items): what the body of a recursive loop prints for these. */
struct jinja_value jinja_exec_recurse(struct jinja *j, const struct jinja_loop *l,
                                      const struct jinja_args *args);

#endif
