/* What every part of the interpreter stands on: memory, limits, errors, printed text. Runs in the
 * worker, on the thread that parses or renders; nothing blocks. Invariant: a struct jinja owns
 * nothing but its arena and its output, so leaving at any point leaks nothing. */
#include "worker/jinja/jinja.h"
#include "shared/limits.h"
#include "shared/num.h"
#include "shared/utf8.h"
#include "worker/jinja/jinja_value.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void jinja_init(struct jinja *j, uint64_t steps, struct err *e)
{
    *j = (struct jinja){.err = e, .steps = steps};
    arena_init(&j->arena, LIMIT_TEMPLATE_MEMORY_BYTES);
    buf_init(&j->out, LIMIT_TEMPLATE_OUTPUT_BYTES);
}

void jinja_finish(struct jinja *j)
{
    arena_finish(&j->arena);
    buf_finish(&j->out);
}

NORETURN static void leave(struct jinja *j, int code)
{
    j->code = code;
    longjmp(j->leave, 1);
}

void jinja_fail_text(struct jinja *j, const char *s, size_t n)
{
    /* A long text is cut between characters, not within one. */
    n = MIN(n, (size_t)ERR_DETAIL_BYTES - 1);
    err_set(j->err, ERR_TEMPLATE, "%.*s", (int)utf8_complete_prefix(s, n), s);
    leave(j, ERR_TEMPLATE);
}

void jinja_fail(struct jinja *j, const char *fmt, ...)
{
    char text[ERR_DETAIL_BYTES];
    int at = j->line ? snprintf(text, sizeof(text), "line %u: ", j->line) : 0;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text + at, sizeof(text) - (size_t)at, fmt, ap);
    va_end(ap);
    jinja_fail_text(j, text, MIN((size_t)at + (size_t)MAX(n, 0), sizeof(text) - 1));
}

void jinja_fail_steps(struct jinja *j)
{
    jinja_fail(j, "the template does too much (%d steps)", LIMIT_TEMPLATE_STEPS);
}

void *jinja_alloc(struct jinja *j, size_t bytes)
{
    void *p = arena_alloc(&j->arena, bytes);
    if (p) {
        return p;
    }
    uint64_t total;
    if (!num_add(j->arena.used_bytes, bytes, &total) || total + 16 > j->arena.limit_bytes) {
        jinja_fail(j, "the template needs more than %d MiB",
                   LIMIT_TEMPLATE_MEMORY_BYTES / (1024 * 1024));
    }
    err_set(j->err, -ENOMEM, "while rendering the chat template");
    leave(j, -ENOMEM);
}

void *jinja_array(struct jinja *j, size_t n, size_t bytes)
{
    uint64_t total;
    if (!num_mul(n, bytes, &total)) {
        jinja_fail(j, "a list of %zu items is too long", n);
    }
    return jinja_alloc(j, total);
}

void jinja_enter(struct jinja *j)
{
    if (++j->depth > LIMIT_TEMPLATE_NESTED) {
        jinja_fail(j, "nested deeper than %d", LIMIT_TEMPLATE_NESTED);
    }
}

static void check_out(struct jinja *j, size_t n)
{
    if (!j->out.failed) {
        return;
    }
    if (n > LIMIT_TEMPLATE_OUTPUT_BYTES - MIN(j->out.len, (size_t)LIMIT_TEMPLATE_OUTPUT_BYTES)) {
        jinja_fail(j, "the text is longer than %d MiB",
                   LIMIT_TEMPLATE_OUTPUT_BYTES / (1024 * 1024));
    }
    err_set(j->err, -ENOMEM, "while rendering the chat template");
    leave(j, -ENOMEM);
}

void jinja_put(struct jinja *j, const char *s, size_t n)
{
    jinja_step_bytes(j, n);
    buf_add(&j->out, s, n);
    check_out(j, n);
}

void jinja_put_str(struct jinja *j, const char *s)
{
    jinja_put(j, s, strlen(s));
}

void jinja_put_fill(struct jinja *j, char c, size_t n)
{
    char block[256];
    memset(block, c, MIN(n, sizeof(block)));
    if (n > LIMIT_TEMPLATE_OUTPUT_BYTES) {
        j->out.failed = true;
        check_out(j, n);
    }
    for (size_t done = 0; done < n; done += sizeof(block)) {
        jinja_put(j, block, MIN(n - done, sizeof(block)));
    }
}

struct jinja_value jinja_captured(struct jinja *j, size_t mark)
{
    size_t n = j->out.len - mark;
    struct jinja_value v = jinja_value_text(j, j->out.len ? j->out.data + mark : "", n);
    j->out.len = mark;
    return v;
}
