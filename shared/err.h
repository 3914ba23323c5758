/* Errors: one negative int everywhere, with its words in err.def; a struct err carries the place.
 *
 * A fallible function returns 0 (or a count) or a negative value: -errno, or -(ERR_BASE + n) for
 * the n-th line of err.def. Where the caller needs to know *what exactly* was wrong, the function
 * takes a struct err * last (may be NULL) and fills it on failure only. */
#ifndef SHARED_ERR_H
#define SHARED_ERR_H

#include "shared/base.h"
#include <stdarg.h>

enum { ERR_BASE = 10000 };

enum err_index {
#define ERR(name, code, http, type, text, remedy) ERR_INDEX_##name,
#include "shared/err.def"
#undef ERR
    ERR_INDEX_COUNT
};

enum {
#define ERR(name, code, http, type, text, remedy) ERR_##name = -(ERR_BASE + ERR_INDEX_##name),
#include "shared/err.def"
#undef ERR
};

#define ERR_DETAIL_BYTES 320

struct err {
    int code;                      /* the negative value returned */
    char detail[ERR_DETAIL_BYTES]; /* what and where: "field 'temperature' is 9, allowed 0 to 2" */
};

/* Fills *e (when not NULL) and returns code, so that `return err_set(...)` reads naturally. */
int err_set(struct err *e, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The words of an error. For -errno values: code "system_error", HTTP 500, strerror text. */
const char *err_code(int code);
const char *err_type(int code);
const char *err_text(int code);
const char *err_remedy(int code);
int err_http(int code);

/* "text: detail; remedy" into buf, always terminated; returns buf. */
const char *err_format(const struct err *e, char *buf, size_t bytes);

/* Process exit codes, documented in --help and deploy/doc/cli.md. */
enum {
    EXIT_OK = 0,
    EXIT_GENERAL = 1,
    EXIT_USAGE = 2,
    EXIT_GPU_LOCK = 10,
    EXIT_CONFIG = 11,
    EXIT_GPU_ACCESS = 12,
    EXIT_GPU_DEVICE = 13,
    EXIT_GPU_MEMORY = 14,
    EXIT_GPU_KERNEL = 15,
    EXIT_MODEL = 16,
    EXIT_HOST_MEMORY = 17,
    EXIT_VRAM = 18,
    EXIT_MODEL_IO = 19,
    EXIT_GPU_FAULT = 20,
    EXIT_NUMERIC = 24,
    EXIT_SLOWER = 25,
    EXIT_PROTOCOL = 30,
    EXIT_PARENT_DIED = 31,
    EXIT_ALREADY_RUNNING = 75,
};
/* The exit code that a failure with this error gives a command. */
int err_exit_code(int code);

#endif
