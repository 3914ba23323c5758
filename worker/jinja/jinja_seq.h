/* Filters of sequences. map, select and their kind are lazy, as in Jinja. */
#ifndef WORKER_JINJA_JINJA_SEQ_H
#define WORKER_JINJA_JINJA_SEQ_H

#include "worker/jinja/jinja_call.h"

extern const struct jinja_builtin jinja_seq_filters[];
extern const size_t jinja_seq_n_filters;

#endif
