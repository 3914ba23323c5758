/* How one value is laid out in a field: what format(value, specification) does in Python, and the %
 * operator with it. */
#ifndef WORKER_JINJA_JINJA_SPEC_H
#define WORKER_JINJA_JINJA_SPEC_H

#include "worker/jinja/jinja_value.h"

enum { JINJA_SPEC_MAX_PRECISION = 4096 };

struct jinja_spec {
    struct jinja_value fill; /* one character */
    char align;              /* '<' '>' '^' '=' or 0: by the type */
    char sign;               /* '+' ' ' or 0 */
    bool alternate;          /* '#': a prefix, a decimal point at all events */
    char group;              /* ',' '_' or 0: between thousands */
    int64_t width;
    int64_t precision; /* -1: none */
    char type;         /* 0: none */
};

/* "[[fill]align][sign][#][0][width][,][.precision][type]"; leaves when it is none. */
struct jinja_spec jinja_spec_parse(struct jinja *j, struct jinja_value text);

void jinja_spec_put_str(struct jinja *j, const struct jinja_spec *spec, struct jinja_value s);
void jinja_spec_put_int(struct jinja *j, const struct jinja_spec *spec, int64_t i);
void jinja_spec_put_float(struct jinja *j, const struct jinja_spec *spec, double f);
/* By the kind of v. */
void jinja_spec_put(struct jinja *j, const struct jinja_spec *spec, struct jinja_value v);

#endif
