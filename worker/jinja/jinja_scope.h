/* Which variable a name means, decided when a template is parsed. */
#ifndef WORKER_JINJA_JINJA_SCOPE_H
#define WORKER_JINJA_JINJA_SCOPE_H

#include "worker/jinja/jinja_ast.h"

/* Gives every name of the tree its slot and every scope its inits. */
void jinja_scope_resolve(struct jinja *j, struct jinja_template *t);

#endif
