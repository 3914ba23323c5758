/* Methods of texts that change case, fill up, and ask what a text consists of. */
#ifndef WORKER_JINJA_JINJA_STRFORM_H
#define WORKER_JINJA_JINJA_STRFORM_H

#include "worker/jinja/jinja_call.h"

extern const struct jinja_builtin jinja_strform_methods[];
extern const size_t jinja_strform_n_methods;

/* str.center(width) */
struct jinja_value jinja_strform_center(struct jinja *j, struct jinja_value s, int64_t width,
                                        struct jinja_value fill);
bool jinja_strform_is_lower(struct jinja *j, struct jinja_value s);
bool jinja_strform_is_upper(struct jinja *j, struct jinja_value s);

#endif
