/* Grammars in GBNF (llama.cpp's notation), compiled to rules over bytes: a character becomes its
 * UTF-8 bytes, a class of characters the sequences of byte ranges that spell it. Immutable after
 * creation.
 *
 *   root  ::= "yes" | "no" | list        a rule a line, longer inside brackets or before '|'
 *   list  ::= [0-9]{1,3} ("," [^\n]+)*   " [ ( as usual; . any character; * + ? {n} {n,} {n,m}
 * Escapes: \n \r \t \\ \" \[ \] \- \^ \xHH \uHHHH \UHHHHHHHH. # begins a comment. */
#ifndef WORKER_GRAMMAR_GRAMMAR_H
#define WORKER_GRAMMAR_GRAMMAR_H

#include "shared/base.h"
#include "shared/err.h"
#include "shared/limits.h"

enum {
    GRAMMAR_RULES = 64 * 1024,
    GRAMMAR_ELEMENTS = 256 * 1024,
    GRAMMAR_DEPTH = 64, /* brackets within each other */
};

enum grammar_kind { GRAMMAR_END, GRAMMAR_BYTES, GRAMMAR_RULE };

struct grammar_element {
    uint32_t rule;  /* RULE: which */
    uint8_t kind;   /* enum grammar_kind; END stands behind every alternative */
    uint8_t lo, hi; /* BYTES: one byte of this range */
};

struct grammar_alternative {
    uint32_t first; /* element */
    uint32_t next;  /* alternative of the same rule; GRAMMAR_NONE: the last one */
};

#define GRAMMAR_NONE UINT32_MAX

struct grammar {
    struct grammar_element *elements; /* owned */
    struct grammar_alternative *alternatives;
    uint32_t *rules; /* first alternative of each */
    uint32_t n_elements, n_alternatives, n_rules;
    uint32_t root; /* rule */
};

/* Errors: ERR_GRAMMAR with line and cause; -ENOMEM. */
MUST_CHECK int grammar_create(const char *text, size_t n, struct grammar **ret, struct err *e);
void grammar_destroy(struct grammar **g);

#endif
