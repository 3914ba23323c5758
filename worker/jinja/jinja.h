/* The interpreter behind worker/template.h: Jinja2 as chat templates use it, with the semantics of
 * the Python implementation (sandboxed and immutable, trim_blocks and lstrip_blocks on, autoescape
 * off), so that a template prints here what it prints where its author tried it.
 *
 *   source -> jinja_lex -> jinja_parse + jinja_expr -> tree (jinja_ast.h) -> jinja_scope ->
 * template template + context -> jinja_exec (statements) + jinja_eval (expressions) -> text values:
 * jinja_value, jinja_dict, jinja_iter; operators: jinja_op; numbers: jinja_number; text of values:
 * jinja_text; Unicode: jinja_unicode; attributes and methods: jinja_attr, jinja_str, jinja_strtest;
 * filters: jinja_filter, jinja_seq; tests: jinja_test; functions: jinja_global.
 *
 * struct jinja is one parse or one render. Whatever it makes lives in its arena and dies with it,
 * so the first error may leave from any depth with one jump to where the work began: a function
 * returns only when it succeeded. Steps, depth, memory and output are counted against limits. */
#ifndef WORKER_JINJA_JINJA_H
#define WORKER_JINJA_JINJA_H

#include "shared/arena.h"
#include "shared/buf.h"
#include "shared/err.h"

#include <setjmp.h>

enum { JINJA_TAILS = 4 };

struct jinja_value;
struct jinja_template;

/* A text that grew last and may grow in place: [start, end) is in use, up to limit is room. */
struct jinja_tail {
    char *end;
    char *limit;
};

struct jinja {
    struct arena arena;
    jmp_buf leave;   /* where an error goes */
    struct err *err; /* filled before the jump; may be NULL */
    int code;        /* what the error returns */
    uint32_t line;   /* of the template, for messages; 0: none */
    uint32_t depth;  /* nested evaluations */
    uint64_t steps;  /* left */
    struct buf out;  /* printed text; captures stand above each other in it */
    struct jinja_tail tails[JINJA_TAILS];
    unsigned next_tail;
    int64_t now_unix_s;
    struct jinja_value *names; /* of a render: by name id, what the context or the globals say */
};

/* The caller sets `leave` with setjmp before anything else is called. */
void jinja_init(struct jinja *j, uint64_t steps, struct err *e);
void jinja_finish(struct jinja *j);

/* Leaves with ERR_TEMPLATE and "line N: ..." . */
NORETURN void jinja_fail(struct jinja *j, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Leaves with ERR_TEMPLATE and exactly this text (cut to what struct err holds). */
NORETURN void jinja_fail_text(struct jinja *j, const char *s, size_t n);
NORETURN void jinja_fail_steps(struct jinja *j);

/* Zeroed memory that lives as long as j. */
void *jinja_alloc(struct jinja *j, size_t bytes);
void *jinja_array(struct jinja *j, size_t n, size_t bytes);

/* Takes n units of work; one is about what a small node of the tree costs. */
static inline void jinja_step(struct jinja *j, uint64_t n)
{
    if (n > j->steps) {
        jinja_fail_steps(j);
    }
    j->steps -= n;
}
/* The work of moving n bytes. */
static inline void jinja_step_bytes(struct jinja *j, size_t n)
{
    jinja_step(j, n / 64);
}

/* Nesting of the C stack. */
void jinja_enter(struct jinja *j);
static inline void jinja_exit(struct jinja *j)
{
    j->depth--;
}

/* Printing. */
void jinja_put(struct jinja *j, const char *s, size_t n);
void jinja_put_str(struct jinja *j, const char *s);
void jinja_put_fill(struct jinja *j, char c, size_t n);
/* What is printed between these two becomes a value instead; they nest. */
static inline size_t jinja_capture(const struct jinja *j)
{
    return j->out.len;
}
struct jinja_value jinja_captured(struct jinja *j, size_t mark);

#endif
