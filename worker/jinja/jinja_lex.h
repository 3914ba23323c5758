/* Tokens of a template, one at a time: text between the tags, and what stands within them. White
 * space control is done here: trim_blocks, lstrip_blocks, '-' and '+'. */
#ifndef WORKER_JINJA_JINJA_LEX_H
#define WORKER_JINJA_JINJA_LEX_H

#include "worker/jinja/jinja_value.h"

enum jinja_token_kind {
    JINJA_END, /* of the template */
    JINJA_TEXT,
    JINJA_PRINT_BEGIN,
    JINJA_PRINT_END,
    JINJA_BLOCK_BEGIN,
    JINJA_BLOCK_END,
    JINJA_WORD,  /* value: the name, a text */
    JINJA_CONST, /* value: text, int, float */
    JINJA_SIGN,  /* sign: '+', or two characters as JINJA_SIGN2 */
};
#define JINJA_SIGN2(a, b) ((a) << 8 | (b))

struct jinja_token {
    enum jinja_token_kind kind;
    int sign;
    uint32_t line;
    struct jinja_value value;
};

enum { JINJA_LEX_BRACKETS = 256 };

struct jinja_lex {
    struct jinja *j;
    const char *s; /* the source: UTF-8, newlines as '\n', one at the end removed */
    size_t n, at;
    uint32_t line;
    enum { JINJA_IN_TEXT, JINJA_IN_RAW, JINJA_IN_PRINT, JINJA_IN_BLOCK } in;
    bool has_tag;        /* the tag that `in` says was found behind a text and is next */
    bool line_starts;    /* the last tag ended with a newline */
    unsigned n_brackets; /* open within a tag */
    char brackets[JINJA_LEX_BRACKETS];
};

/* Takes a copy of the source. */
void jinja_lex_init(struct jinja_lex *l, struct jinja *j, const char *source, size_t n);
/* Leaves at what is no token. */
struct jinja_token jinja_lex_next(struct jinja_lex *l);

#endif
