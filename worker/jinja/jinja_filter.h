/* Filters. */
#ifndef WORKER_JINJA_JINJA_FILTER_H
#define WORKER_JINJA_JINJA_FILTER_H

#include "worker/jinja/jinja_call.h"

/* NULL when there is none of that name. */
const struct jinja_builtin *jinja_filter_find(const char *name, size_t n);

#endif
