/* A library that may or may not be installed, by dlopen: the functions of a declared-once table. */
#ifndef SAFETY_DYNAMIC_H
#define SAFETY_DYNAMIC_H

#include "shared/err.h"

#include <stddef.h>

enum dynamic_need { DYNAMIC_MUST, DYNAMIC_MAY };

struct dynamic_symbol {
    const char *name;
    size_t offset; /* of the function's pointer */
    enum dynamic_need need;
};

/* Opens the first of the names that is there; *ret_handle (never closed) is NULL if none is,
 * *ret_name the one opened or the last one tried. Writes the symbols' pointers into `functions`,
 * NULL where one that may lack does. Blocks as long as the library's constructors like. ERR_NO_GPU:
 * none is there (e is not set), or it lacks a function (e names both). */
MUST_CHECK int dynamic_load(const char *const *names, size_t n_names,
                            const struct dynamic_symbol *symbols, size_t n_symbols, void *functions,
                            void **ret_handle, const char **ret_name, struct err *e);

#endif
