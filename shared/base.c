/* Promises and small allocations; any process, any thread. */
#include "shared/base.h"

#include <stdio.h>
#include <stdlib.h>

void base_assert_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "rocmforge: assertion failed: %s (%s:%d)\n", cond, file, line);
    abort();
}

void *base_alloc(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p) {
        fprintf(stderr, "rocmforge: out of memory (%zu bytes)\n", bytes);
        abort();
    }
    return p;
}
