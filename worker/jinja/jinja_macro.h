/* Objects that a render makes and calls: macros, and the cyclers and joiners of templates. */
#ifndef WORKER_JINJA_JINJA_MACRO_H
#define WORKER_JINJA_JINJA_MACRO_H

#include "worker/jinja/jinja_value.h"

struct jinja_stmt;
struct jinja_frame;

struct jinja_macro {
    struct jinja_value name;       /* a text; its s is NULL for the body of a call block */
    const struct jinja_stmt *stmt; /* of kind MACRO or CALL */
    struct jinja_frame *frame;     /* the variables around its definition */
};

struct jinja_cycler {
    const struct jinja_value *items;
    uint32_t n, at;
};

struct jinja_joiner {
    struct jinja_value separator;
    bool used;
};

#endif
