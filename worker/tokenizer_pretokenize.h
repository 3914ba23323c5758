/* Pre-tokenizers: how each model family cuts text into pieces before byte-pair encoding. One named
 * table of split patterns, compiled once; immutable after that, so any thread may split. */
#ifndef WORKER_TOKENIZER_PRETOKENIZE_H
#define WORKER_TOKENIZER_PRETOKENIZE_H

#include "shared/err.h"
#include "worker/tokenizer_merge.h"

enum { TOKENIZER_PRETOKENIZE_MAX_STEPS = 6 };

enum {                                          /* what else goes with a family */
       TOKENIZER_PRETOKENIZE_IGNORE_MERGES = 1, /* a piece that is a token is that token */
       TOKENIZER_PRETOKENIZE_ADD_BOS = 2,       /* unless the file says otherwise */
       TOKENIZER_PRETOKENIZE_RAW = 4,           /* merges characters, not bytes; space is U+2581 */
};

struct tokenizer_pretokenize_rule {
    const char *names; /* values of tokenizer.ggml.pre, one space between */
    unsigned flags;
    /* Each step splits every piece of the one before; what no match covers is a piece too. */
    const char *steps[TOKENIZER_PRETOKENIZE_MAX_STEPS];
};

/* Steps that no linear pattern can say: runs of decimal digits are cut in threes counted from their
 * end. The first takes all runs; the second those that end a word, "\d{1,3}(?=(?:\d{3})*\b)". */
extern const char tokenizer_pretokenize_threes[];
extern const char tokenizer_pretokenize_threes_at_word_end[];

/* The rule of a name; NULL: unknown. "default" is always there. */
const struct tokenizer_pretokenize_rule *tokenizer_pretokenize_find(const char *name, size_t n);

struct tokenizer_pretokenize;

MUST_CHECK int tokenizer_pretokenize_create(const struct tokenizer_pretokenize_rule *rule,
                                            struct tokenizer_pretokenize **ret);
void tokenizer_pretokenize_destroy(struct tokenizer_pretokenize **p);

/* The ends of pieces, ascending, the last one n; in memory that is used again. */
struct tokenizer_pieces {
    uint32_t *end; /* points into one of room */
    size_t n;
    struct tokenizer_room room[2];
};
void tokenizer_pieces_finish(struct tokenizer_pieces *p);

/* Splits n bytes (below 2^31). Bytes that are not UTF-8 make pieces of their own, and the text
 * before and after them is split as if it stood alone. Time is linear in n for every rule. -ENOMEM.
 */
MUST_CHECK int tokenizer_pretokenize_split(const struct tokenizer_pretokenize *p, const char *text,
                                           size_t n, struct tokenizer_pieces *ret);

#endif
