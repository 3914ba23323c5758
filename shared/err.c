/* The error table. Pure. */
#include "shared/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct err_row {
    const char *code, *type, *text, *remedy;
    int http;
};

static const struct err_row rows[ERR_INDEX_COUNT] = {
#define ERR(name, code, http, type, text, remedy) {code, type, text, remedy, http},
#include "shared/err.def"
#undef ERR
};

static const struct err_row *row(int code)
{
    int i = -code - ERR_BASE;
    return i >= 0 && i < ERR_INDEX_COUNT ? &rows[i] : NULL;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    ASSERT(code < 0);
    if (e) {
        e->code = code;
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(e->detail, sizeof(e->detail), fmt, ap);
        va_end(ap);
    }
    return code;
}

const char *err_code(int code)
{
    const struct err_row *r = row(code);
    return r ? r->code : "system_error";
}

const char *err_type(int code)
{
    const struct err_row *r = row(code);
    return r ? r->type : "server_error";
}

const char *err_text(int code)
{
    const struct err_row *r = row(code);
    if (r) {
        return r->text;
    }
    const char *s = strerrordesc_np(-code);
    return s ? s : "unknown error";
}

const char *err_remedy(int code)
{
    const struct err_row *r = row(code);
    return r ? r->remedy : "";
}

int err_http(int code)
{
    const struct err_row *r = row(code);
    return r ? r->http : 500;
}

const char *err_format(const struct err *e, char *buf, size_t bytes)
{
    const char *remedy = err_remedy(e->code);
    snprintf(buf, bytes, "%s%s%s%s%s", err_text(e->code), *e->detail ? ": " : "", e->detail,
             *remedy ? "; " : "", remedy);
    return buf;
}

int err_exit_code(int code)
{
    switch (code) {
    case ERR_USAGE:
        return EXIT_USAGE;
    case ERR_LOCK_BUSY:
    case ERR_LOCK_PATH:
    case ERR_GPU_BUSY:
        return EXIT_GPU_LOCK;
    case ERR_CONFIG:
        return EXIT_CONFIG;
    case ERR_GPU_ACCESS:
        return EXIT_GPU_ACCESS;
    case ERR_NO_GPU:
    case ERR_GPU_STALLED:
    case ERR_GPU_WEDGED:
    case ERR_GPU_LEFTOVER:
        return EXIT_GPU_DEVICE;
    case ERR_GPU_COPY:
        return EXIT_GPU_MEMORY;
    case ERR_NO_VRAM:
        return EXIT_VRAM;
    case ERR_MODEL_IO:
    case ERR_MODEL_STALLED:
        return EXIT_MODEL_IO;
    case ERR_GPU_KERNEL:
        return EXIT_GPU_KERNEL;
    case ERR_SLOWER:
        return EXIT_SLOWER;
    case -EADDRINUSE:
        return EXIT_ALREADY_RUNNING;
    case ERR_GGUF_OPEN:
    case ERR_GGUF_MAGIC:
    case ERR_GGUF_VERSION:
    case ERR_GGUF_TRUNCATED:
    case ERR_GGUF_BAD:
    case ERR_GGUF_TYPE:
    case ERR_GGUF_KEY:
    case ERR_GGUF_SPLIT:
    case ERR_MODEL_ARCH:
    case ERR_MODEL_TENSOR:
    case ERR_MODEL_TOKENIZER:
    case ERR_MODEL_CHANGED:
        return EXIT_MODEL;
    case ERR_NO_MEMORY:
    case -ENOMEM:
        return EXIT_HOST_MEMORY;
    case ERR_NUMERIC:
        return EXIT_NUMERIC;
    case ERR_PROTOCOL:
    case ERR_VERSION:
        return EXIT_PROTOCOL;
    default:
        return EXIT_GENERAL;
    }
}
