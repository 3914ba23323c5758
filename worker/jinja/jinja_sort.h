/* Sorting as Python sorts: stable, also when reversed; a comparison may leave. */
#ifndef WORKER_JINJA_JINJA_SORT_H
#define WORKER_JINJA_JINJA_SORT_H

#include "worker/jinja/jinja_value.h"

struct jinja_sorted {
    struct jinja_value key; /* what is compared */
    struct jinja_value value;
};

void jinja_sort(struct jinja *j, struct jinja_sorted *items, size_t n, bool reverse);

#endif
