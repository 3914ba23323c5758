/* Tokenizers, built from a GGUF file's metadata: byte-level BPE with its pre-tokenizers,
 * SentencePiece ("llama"), WordPiece ("bert"), unigram ("t5"). Immutable after creation, so any
 * thread may use it. Time is linear (n log n in a word) whatever the input. */
#ifndef WORKER_TOKENIZER_H
#define WORKER_TOKENIZER_H

#include "shared/buf.h"
#include "shared/err.h"
#include "shared/gguf.h"

struct tokenizer;

enum { TOKENIZER_MAX_TEXT_BYTES = 256 * 1024 * 1024 };

/* ERR_NO_TOKENIZER when the file has no vocabulary ("no_vocab"), ERR_MODEL_TOKENIZER when it is
 * damaged or of another kind (e names key and token), ERR_GGUF_KEY when a key has the wrong type,
 * -ENOMEM. Nothing of g is kept. warn: a sentence for the log, such as an unknown pre-tokenizer's
 * name; empty when there is nothing to say. */
MUST_CHECK int tokenizer_create(const struct gguf *g, struct tokenizer **ret, char warn[160],
                                struct err *e);
/* The same with tables that a tokenizer of the same file gave before (tokenizer_tables): borrowed
 * until the end, and made anew where they do not fit. */
struct tokenizer_tables {
    const void *data; /* NULL: none */
    size_t bytes;
};
enum { TOKENIZER_TABLES_LAYOUT = 1 }; /* counts the forms that tables had */
MUST_CHECK int tokenizer_create_from(const struct gguf *g, struct tokenizer_tables tables,
                                     struct tokenizer **ret, char warn[160], struct err *e);
/* What took long to make, as bytes without pointers; none where nothing does. Borrowed. */
struct tokenizer_tables tokenizer_tables(const struct tokenizer *t);
void tokenizer_destroy(struct tokenizer **t);

enum { /* flags */
       /* BOS, EOS, SEP as the model wants; never one that is there already. */
       TOKENIZER_ADD_SPECIAL = 1,
       TOKENIZER_PARSE_SPECIAL = 2, /* control tokens written as text become their ids */
};
/* Appends int32 ids to *ret (a buf of int32), which is as before on failure. Text need not be valid
 * UTF-8. User-defined tokens are taken literally with and without PARSE_SPECIAL; control tokens
 * never come from text without it. Errors: -ENOMEM, -EFBIG (more than TOKENIZER_MAX_TEXT_BYTES). */
MUST_CHECK int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n,
                                unsigned flags, struct buf *ret);

/* Appends the bytes of one token, which may be part of a character. show_special: control, unknown
 * and unused tokens give their text, else nothing. is_first: the token begins the text
 * (SentencePiece drops the space it put there). Errors: ERR_BAD_TOKEN, -ENOMEM. */
MUST_CHECK int tokenizer_piece(const struct tokenizer *t, int32_t id, bool is_first,
                               bool show_special, struct buf *ret);
/* The whole text of ids, without the spaces that SentencePiece puts at its beginning and behind
 * special tokens: what tokenizer_encode made comes back as it was. Same errors. */
MUST_CHECK int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n,
                                bool show_special, struct buf *ret);

int32_t tokenizer_size(const struct tokenizer *t);
int32_t tokenizer_bos(const struct tokenizer *t); /* -1: none */
int32_t tokenizer_eos(const struct tokenizer *t);
/* eos, eot, eom and the end tokens known by text (<|im_end|>, <|eot_id|>, <end_of_turn>, ...). */
bool tokenizer_is_end(const struct tokenizer *t, int32_t id);
bool tokenizer_is_control(const struct tokenizer *t, int32_t id);

#endif
