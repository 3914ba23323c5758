/* Attributes: methods of texts, lists and dicts, and what loops, namespaces and the like have. What
 * would change a list or a dict exists and is refused, as in Jinja's immutable sandbox. */
#ifndef WORKER_JINJA_JINJA_ATTR_H
#define WORKER_JINJA_JINJA_ATTR_H

#include "worker/jinja/jinja_call.h"

/* The method that values of a kind have by that name, or NULL. */
const struct jinja_builtin *jinja_attr_method(enum jinja_kind kind, const char *name, size_t n);
/* An attribute proper, no item; false when there is none. */
bool jinja_attr_find(struct jinja *j, struct jinja_value of, const char *name, size_t n,
                     struct jinja_value *ret);
/* of.name: an attribute, else an item, else undefined. */
struct jinja_value jinja_attr_get(struct jinja *j, struct jinja_value of, const char *name,
                                  size_t n);

#endif
