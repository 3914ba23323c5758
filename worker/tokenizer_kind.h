/* What a kind of tokenizer is: text without special tokens to ids. The four kinds are behind this
 * table; everything else (special tokens, decoding) is common to them. */
#ifndef WORKER_TOKENIZER_KIND_H
#define WORKER_TOKENIZER_KIND_H

#include "shared/buf.h"
#include "worker/tokenizer.h"
#include "worker/tokenizer_merge.h"
#include "worker/tokenizer_pretokenize.h"
#include "worker/tokenizer_vocab.h"

enum { TOKENIZER_WARN_BYTES = 160 };

/* Memory of one encoding, used again from piece to piece. */
struct tokenizer_work {
    struct tokenizer_pieces pieces;
    struct tokenizer_room symbols, heap, path;
    struct buf text; /* the text in the form that the kind matches */
};

struct tokenizer_kind {
    const char *model; /* values of tokenizer.ggml.model, one space between */
    /* Reads the vocabulary and whatever the kind needs beside it. On failure *v is finished. */
    int (*create)(const struct gguf *g, struct tokenizer_tables tables, struct tokenizer_vocab *v,
                  void **ret_model, char *warn, struct err *e);
    struct tokenizer_tables (*tables)(const void *model); /* NULL: it has none */
    void (*destroy)(void *model); /* NULL-safe */
    /* Appends the ids of n bytes (below 2^30, at least 1). The text stands at the beginning or
     * behind a special token. w is zeroed before the first call. */
    int (*encode)(const void *model, const struct tokenizer_vocab *v, const char *text, size_t n,
                  struct tokenizer_work *w, struct buf *ret);
};

extern const struct tokenizer_kind tokenizer_bpe, tokenizer_spm, tokenizer_wordpiece,
    tokenizer_unigram;

/* Whether a list of names, one space between them, holds this one. */
bool tokenizer_kind_is_named(const char *names, const char *name, size_t n);

/* All tokens of the vocabulary in a packed trie: from tables that were kept, or made anew where
 * they do not fit. -ENOMEM. */
struct tokenizer_trie;
MUST_CHECK int tokenizer_kind_trie(const struct tokenizer_vocab *v, struct tokenizer_tables kept,
                                   struct tokenizer_trie *ret);

static inline void tokenizer_kind_put(struct buf *ret, int32_t id)
{
    buf_add(ret, &id, sizeof(id));
}

/* The tokens of a character that has none: those of its bytes where the vocabulary has them all,
 * else the unknown token, if any. Returns true when it was the unknown token. */
bool tokenizer_kind_put_unknown(const struct tokenizer_vocab *v, const char *s, size_t n,
                                struct buf *ret);

/* Writes text with each space as U+2581, one before it where the vocabulary wants that, and runs of
 * spaces merged where it wants that, to w->text. */
void tokenizer_kind_mark_spaces(const struct tokenizer_vocab *v, const char *text, size_t n,
                                struct buf *ret);

#endif
