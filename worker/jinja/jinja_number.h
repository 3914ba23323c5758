/* Numbers as Python has them, but for integers: those have 64 bits and leave with an error where
 * they do not suffice. */
#ifndef WORKER_JINJA_JINJA_NUMBER_H
#define WORKER_JINJA_JINJA_NUMBER_H

#include "worker/jinja/jinja_value.h"

enum jinja_op {
    JINJA_ADD,
    JINJA_SUB,
    JINJA_MUL,
    JINJA_DIV,
    JINJA_FLOORDIV,
    JINJA_MOD,
    JINJA_POW,
};

/* Of two numbers. */
struct jinja_value jinja_number_op(struct jinja *j, enum jinja_op op, struct jinja_value a,
                                   struct jinja_value b);
struct jinja_value jinja_number_negate(struct jinja *j, struct jinja_value v);
/* round(v, digits). */
struct jinja_value jinja_number_round(struct jinja *j, struct jinja_value v, int64_t digits);
/* int(v): towards zero. */
struct jinja_value jinja_number_truncate(struct jinja *j, double v);

/* int(s, base) and float(s) of Python; false where those raise ValueError. */
bool jinja_number_parse_int(struct jinja *j, const char *s, size_t n, int64_t base, int64_t *ret);
bool jinja_number_parse_float(struct jinja *j, const char *s, size_t n, double *ret);

/* repr(v): the shortest text that reads back as v. */
enum { JINJA_NUMBER_BYTES = 40 };
int jinja_number_print(double v, char out[JINJA_NUMBER_BYTES]);

#endif
