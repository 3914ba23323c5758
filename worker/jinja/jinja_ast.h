/* The tree of a parsed template. Made by the parser, completed by jinja_scope (which slot a name
 * means), immutable afterwards; it lives in the template's arena.
 *
 * What could nest to the left without end (a + b + c, x.a.b.c, x|f|g) is a list here, so depth of
 * the tree is depth of brackets and blocks, which the parser bounds. */
#ifndef WORKER_JINJA_JINJA_AST_H
#define WORKER_JINJA_JINJA_AST_H

#include "worker/jinja/jinja_call.h"
#include "worker/jinja/jinja_number.h"

struct jinja_expr;
struct jinja_stmt;

/* A variable. Each function of the tree (the template, a macro, ...) has one array of slots; `hops`
 * functions outwards is the one that holds this name. */
struct jinja_name {
    const char *s;
    uint32_t n;
    uint32_t id; /* among all names of the template */
    uint32_t slot;
    uint32_t hops;
};

/* What happens to a slot when its scope is entered. */
enum jinja_init_kind {
    JINJA_INIT_MISSING, /* it has no value yet */
    JINJA_INIT_CONTEXT, /* it is what the context says of name id `from` */
    JINJA_INIT_OUTER,   /* it is the variable (hops, from) of an outer scope */
    JINJA_INIT_PARAM,   /* whoever enters sets it */
};
struct jinja_init {
    uint32_t slot, from, hops;
    enum jinja_init_kind kind;
};
struct jinja_scope {
    uint32_t n;
    struct jinja_init *inits;
};

/* A piece of the tree with slots of its own. */
struct jinja_function {
    uint32_t n_slots;
};

struct jinja_argument {
    struct jinja_value name;
    struct jinja_expr *value;
};
struct jinja_arguments { /* f(pos..., name=kw..., *star, **star_star) */
    uint32_t n_pos, n_kw;
    struct jinja_expr **pos;
    struct jinja_argument *kw;
    struct jinja_expr *star, *star_star; /* or NULL */
    const struct jinja_args *constant;   /* when all are constants: the values */
};

enum jinja_link_kind {
    JINJA_LINK_ATTR,   /* .name */
    JINJA_LINK_ITEM,   /* [part[0]] */
    JINJA_LINK_SLICE,  /* [part[0]:part[1]:part[2]], each may be NULL */
    JINJA_LINK_CALL,   /* (arguments) */
    JINJA_LINK_FILTER, /* |name(arguments) */
    JINJA_LINK_TEST,   /* is [not] name(arguments) */
};
struct jinja_link {
    enum jinja_link_kind kind;
    bool is_negated;
    uint32_t line;
    struct jinja_value name;
    const struct jinja_builtin *builtin; /* of a filter or test; NULL: there is none of that name */
    const struct jinja_builtin *method[3]; /* of an attribute: for text, list, dict; or NULL */
    struct jinja_expr *part[3];
    struct jinja_arguments *arguments;
};

enum jinja_expr_kind {
    JINJA_EXPR_CONSTANT,
    JINJA_EXPR_NAME,
    JINJA_EXPR_LIST,
    JINJA_EXPR_TUPLE,
    JINJA_EXPR_DICT, /* items: key, value, key, value, ... */
    JINJA_EXPR_IF,   /* items: then, test, else or NULL */
    JINJA_EXPR_OR,
    JINJA_EXPR_AND,
    JINJA_EXPR_NOT,
    JINJA_EXPR_COMPARE, /* ops: enum jinja_compare between the items */
    JINJA_EXPR_MATH,    /* ops: enum jinja_op between the items, from left to right */
    JINJA_EXPR_CONCAT,  /* a ~ b */
    JINJA_EXPR_SIGN,    /* ops[0]: 1 for minus */
    JINJA_EXPR_CHAIN,   /* items[0] (NULL in a filter block) followed by links */
};
enum jinja_compare {
    JINJA_EQ,
    JINJA_NE,
    JINJA_LT,
    JINJA_LE,
    JINJA_GT,
    JINJA_GE,
    JINJA_IN,
    JINJA_NOT_IN,
};
struct jinja_expr {
    enum jinja_expr_kind kind;
    uint32_t line;
    uint32_t n; /* items */
    uint32_t n_links;
    union {
        struct jinja_value constant;
        struct jinja_name name;
        struct {
            struct jinja_expr **items;
            uint8_t *ops;
            struct jinja_link *links;
        };
    };
};

/* Where a value is stored: a name, an attribute of a namespace, or several of these. */
struct jinja_target {
    uint32_t line;
    uint32_t n;                 /* items of a tuple */
    struct jinja_target *items; /* NULL: one variable */
    struct jinja_name name;
    struct jinja_value attr; /* of the namespace `name`; MISSING for a plain name */
};

struct jinja_body {
    uint32_t n;
    struct jinja_stmt **stmts;
};

struct jinja_branch {
    struct jinja_expr *test; /* NULL: else */
    struct jinja_body body;
};

struct jinja_parameter {
    struct jinja_name name;
    struct jinja_expr *def; /* or NULL */
};

enum jinja_stmt_kind {
    JINJA_STMT_TEXT,
    JINJA_STMT_PRINT,
    JINJA_STMT_IF,
    JINJA_STMT_FOR,
    JINJA_STMT_SET,
    JINJA_STMT_SET_BLOCK,
    JINJA_STMT_MACRO,
    JINJA_STMT_CALL, /* {% call %}, and {% generation %}, whose expr is NULL */
    JINJA_STMT_FILTER,
    JINJA_STMT_WITH,
    JINJA_STMT_BREAK,
    JINJA_STMT_CONTINUE,
};
struct jinja_stmt {
    enum jinja_stmt_kind kind;
    uint32_t line;
    struct jinja_expr *expr;  /* printed, iterated, set, called, filtered by (may be NULL) */
    struct jinja_body body;   /* of everything that has one */
    struct jinja_scope scope; /* of the body */
    union {
        struct jinja_value text;
        struct {
            uint32_t n_branches;
            struct jinja_branch *branches;
        };
        struct jinja_for *loop;     /* FOR */
        struct jinja_target target; /* SET, SET_BLOCK */
        struct jinja_def *macro;    /* MACRO, CALL */
        struct jinja_with *with;    /* WITH */
    };
};

struct jinja_for {
    struct jinja_target target;
    struct jinja_name name;         /* of the variable `loop` */
    struct jinja_function function; /* of a recursive loop */
    bool is_recursive;
    struct jinja_body otherwise;
    struct jinja_scope otherwise_scope;
    struct jinja_expr *test;         /* or NULL; it is a function of its own, */
    struct jinja_target test_target; /* with its own copy of the target */
    struct jinja_scope test_scope;
    struct jinja_function test_function;
};

struct jinja_def {
    struct jinja_name name; /* of a macro */
    uint32_t n_params;
    struct jinja_parameter *params;
    struct jinja_name caller, kwargs, varargs; /* their s is NULL where not used */
    bool has_caller_param;                     /* `caller` is among params */
    struct jinja_function function;
};

struct jinja_with {
    uint32_t n;
    struct jinja_target *targets;
    struct jinja_expr **values;
};

struct jinja_template {
    struct jinja_body body;
    struct jinja_scope scope;
    struct jinja_function function;
    uint32_t n_names;
    const struct jinja_value *names; /* by id */
};

#endif
