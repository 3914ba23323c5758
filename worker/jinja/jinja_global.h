/* The functions that every template has. */
#ifndef WORKER_JINJA_JINJA_GLOBAL_H
#define WORKER_JINJA_JINJA_GLOBAL_H

#include "worker/jinja/jinja_call.h"

/* JINJA_MISSING when there is none of that name. */
struct jinja_value jinja_global_find(const char *name, size_t n);

#endif
