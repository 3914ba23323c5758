/* Small things every file needs: promises, result checking, sizes. Includes nothing of ours. */
#ifndef SHARED_BASE_H
#define SHARED_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ROCMFORGE_VERSION "0.1.0"

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define NORETURN __attribute__((noreturn))

#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* A promise of our own code. Kept in release builds: prints the place to stderr and aborts.
 * Never used on bytes that came from HTTP, GGUF, messages or ring indices: those return errors. */
#define ASSERT(cond) ((cond) ? (void)0 : base_assert_failed(#cond, __FILE__, __LINE__))
NORETURN void base_assert_failed(const char *cond, const char *file, int line);

/* Aborts with a clear message when memory is exhausted; for small fixed allocations only.
 * Anything whose size comes from outside uses calloc and returns -ENOMEM. */
void *base_alloc(size_t bytes);

#endif
