/* Calls: arguments, functions of the interpreter with their parameters, and what can be called. */
#ifndef WORKER_JINJA_JINJA_CALL_H
#define WORKER_JINJA_JINJA_CALL_H

#include "worker/jinja/jinja_value.h"

struct jinja_keyword {
    struct jinja_value name; /* a text */
    struct jinja_value value;
};

struct jinja_args {
    uint32_t n_pos, n_kw;
    const struct jinja_value *pos;
    const struct jinja_keyword *kw;
};

enum { JINJA_PARAMS = 6 };

/* self: the filtered or tested value, or the object of a method. arg: one value per parameter,
 * JINJA_MISSING where none was given. args: everything as written. */
typedef struct jinja_value jinja_fn(struct jinja *j, struct jinja_value self,
                                    const struct jinja_value *arg, const struct jinja_args *args);

/* params: names separated by spaces, '?' behind those that may be left out; "*" takes any. */
struct jinja_builtin {
    const char *name;
    const char *params;
    jinja_fn *fn;
};

struct jinja_method {
    const struct jinja_builtin *builtin;
    struct jinja_value self;
};

/* NULL when no row has that name. */
const struct jinja_builtin *jinja_call_find(const struct jinja_builtin *table, size_t n,
                                            const char *name, size_t n_name);

struct jinja_value jinja_call_builtin(struct jinja *j, const struct jinja_builtin *b,
                                      struct jinja_value self, const struct jinja_args *args);
/* Leaves when callee cannot be called. */
struct jinja_value jinja_call_value(struct jinja *j, struct jinja_value callee,
                                    const struct jinja_args *args);

/* For the functions: an argument as an integer, a truth, or a text; def where it is missing. */
int64_t jinja_call_int(struct jinja *j, struct jinja_value arg, int64_t def);
bool jinja_call_bool(struct jinja_value arg, bool def);
struct jinja_value jinja_call_str(struct jinja *j, struct jinja_value arg, const char *def);

#endif
