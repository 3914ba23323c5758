/* Methods of texts that search, split and join. Positions count characters. On a text that is
 * marked safe they escape their arguments and give a safe text, as Markup does. */
#ifndef WORKER_JINJA_JINJA_STR_H
#define WORKER_JINJA_JINJA_STR_H

#include "worker/jinja/jinja_call.h"

extern const struct jinja_builtin jinja_str_methods[];
extern const size_t jinja_str_n_methods;

/* str.splitlines() */
struct jinja_value jinja_str_lines(struct jinja *j, struct jinja_value s, bool keep_ends);
/* str.strip(chars), of white space where chars is none. */
struct jinja_value jinja_str_strip(struct jinja *j, struct jinja_value s, struct jinja_value chars,
                                   bool left, bool right);
/* str.replace(old, new, count); count < 0: all. */
struct jinja_value jinja_str_replace(struct jinja *j, struct jinja_value s, struct jinja_value old,
                                     struct jinja_value new, int64_t count);
/* An argument of a method of self: escaped where self is safe. */
struct jinja_value jinja_str_arg(struct jinja *j, struct jinja_value self, struct jinja_value arg);
/* v, marked like self. */
struct jinja_value jinja_str_like(struct jinja_value self, struct jinja_value v);

#endif
