/* Formatting of texts: the % operator and str.format(). */
#ifndef WORKER_JINJA_JINJA_FORMAT_H
#define WORKER_JINJA_JINJA_FORMAT_H

#include "worker/jinja/jinja_call.h"

/* format % values: a tuple, a dict for %(name)s, or one value. */
struct jinja_value jinja_format_percent(struct jinja *j, struct jinja_value format,
                                        struct jinja_value values);
/* format.format(...): {}, {0}, {name}, {a.b[c]}, with conversions and format specifications. */
struct jinja_value jinja_format_braces(struct jinja *j, struct jinja_value format,
                                       const struct jinja_args *args);

#endif
