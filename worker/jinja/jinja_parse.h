/* The parser: statements here, expressions in jinja_expr.c. Grammar and precedence are those of
 * jinja2/parser.py. Recursion is bounded by LIMIT_TEMPLATE_DEPTH. */
#ifndef WORKER_JINJA_JINJA_PARSE_H
#define WORKER_JINJA_JINJA_PARSE_H

#include "worker/jinja/jinja_ast.h"
#include "worker/jinja/jinja_dict.h"
#include "worker/jinja/jinja_lex.h"

/* What the body of a macro being parsed uses. */
struct jinja_uses {
    struct jinja_uses *outer;
    bool caller, kwargs, varargs;
};

struct jinja_parser {
    struct jinja *j;
    struct jinja_lex lex;
    struct jinja_token now, next;
    unsigned depth;
    unsigned n_loops;         /* around this place within its function: what break may leave */
    unsigned n_fors;          /* around this place at all */
    struct jinja_uses *uses;  /* of the macros around this place */
    struct jinja_dict *names; /* name -> id */
};

/* The tree of a template, with slots. Leaves at the first error. */
struct jinja_template *jinja_parse(struct jinja *j, const char *source, size_t n);

/* For both files. */
NORETURN void jinja_parse_fail(struct jinja_parser *p, const char *what);
void jinja_parse_deeper(struct jinja_parser *p);
struct jinja_token jinja_parse_take(struct jinja_parser *p); /* the token at hand; moves on */
bool jinja_parse_is_sign(const struct jinja_parser *p, int sign);
bool jinja_parse_is_word(const struct jinja_parser *p, const char *word);
bool jinja_parse_skip_sign(struct jinja_parser *p, int sign);
bool jinja_parse_skip_word(struct jinja_parser *p, const char *word);
void jinja_parse_expect_sign(struct jinja_parser *p, int sign);
struct jinja_value jinja_parse_expect_name(struct jinja_parser *p);
struct jinja_name jinja_parse_name(struct jinja_parser *p, struct jinja_value name);

/* A list that grows; the items move. */
struct jinja_list {
    uint32_t n;
    void **items;
};
void jinja_parse_push(struct jinja_parser *p, struct jinja_list *l, void *item);

#endif
