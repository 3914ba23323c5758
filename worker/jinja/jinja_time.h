/* Dates of templates. */
#ifndef WORKER_JINJA_JINJA_TIME_H
#define WORKER_JINJA_JINJA_TIME_H

#include "worker/jinja/jinja_value.h"

/* Prints j->now_unix_s, in local time, by a format as of strftime(3), in English whatever the
 * locale. The fields of seconds' fractions are zero, those of the time zone empty: Python's
 * datetime.now() knows no zone. */
void jinja_time_put(struct jinja *j, struct jinja_value format);

#endif
