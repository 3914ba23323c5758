/* The vocabulary of a GGUF file: the tokens' bytes, kinds and scores, which ids are special, and a
 * table from bytes to id. Everything the file says is checked here; the algorithms trust it. */
#ifndef WORKER_TOKENIZER_VOCAB_H
#define WORKER_TOKENIZER_VOCAB_H

#include "shared/err.h"
#include "shared/gguf.h"

enum tokenizer_type { /* values of tokenizer.ggml.token_type */
                      TOKENIZER_UNDEFINED = 0,
                      TOKENIZER_NORMAL = 1,
                      TOKENIZER_UNKNOWN = 2, /* stands for text that has no token */
                      TOKENIZER_CONTROL = 3, /* never text: only by id, or parsed where asked */
                      TOKENIZER_USER = 4,    /* matched literally before anything else */
                      TOKENIZER_UNUSED = 5,
                      TOKENIZER_BYTE = 6, /* "<0x0A>": that byte */
};

enum { /* attributes of a token */
       TOKENIZER_END = 1,
       TOKENIZER_LSTRIP = 2, /* eats white space before it in the text */
       TOKENIZER_RSTRIP = 4,
};

struct tokenizer_vocab {
    int32_t n;
    char *bytes;    /* owned; of all tokens, one after the other */
    uint32_t *at;   /* owned; n + 1 offsets into bytes */
    uint8_t *type;  /* owned; enum tokenizer_type */
    uint8_t *attr;  /* owned */
    float *score;   /* owned, finite; NULL when the file has none */
    uint64_t *slot; /* owned; tag << 32 | id, ~0: free */
    uint32_t slot_mask;
    uint32_t max_bytes;         /* of a token in the table */
    int32_t byte_id[256];       /* token of one byte, -1: none */
    int32_t bos, eos, unk, sep; /* -1: none */
    bool add_bos, add_eos, add_sep;
    bool has_escaped_space; /* U+2581 in a token means a space */
    bool add_space_prefix;  /* a space is put before the text and taken away again */
    bool merge_spaces;      /* runs of spaces count as one, outer ones as none */
    bool words_are_apart;   /* no token has a U+2581 after another character */
};

/* What a kind of tokenizer presumes where the file does not say. */
struct tokenizer_vocab_defaults {
    int32_t bos, eos, unk, sep; /* used if in range and not text; -1: none */
    bool add_bos, add_eos, add_sep;
    bool has_escaped_space, add_space_prefix;
    bool is_byte_level; /* token texts are in GPT-2's visible alphabet of bytes */
    bool needs_scores;
};

/* Reads and checks. Errors: ERR_MODEL_TOKENIZER (e names key and token), ERR_GGUF_KEY, -ENOMEM. */
MUST_CHECK int tokenizer_vocab_init(struct tokenizer_vocab *v, const struct gguf *g,
                                    const struct tokenizer_vocab_defaults *d, struct err *e);
void tokenizer_vocab_finish(struct tokenizer_vocab *v);

/* The token of exactly these bytes, -1: none. Control, unknown and byte tokens are not found, so
 * that text can never become one; nor, at byte level, are user-defined ones. */
int32_t tokenizer_vocab_find(const struct tokenizer_vocab *v, const char *s, size_t n);

static inline struct gguf_str tokenizer_vocab_bytes(const struct tokenizer_vocab *v, int32_t id)
{
    return (struct gguf_str){v->bytes + v->at[id], v->at[id + 1] - v->at[id]};
}

/* Undoes GPT-2's byte alphabet; a character outside of it stays as it is. out needs n bytes.
 * Returns the length. */
size_t tokenizer_vocab_unalphabet(const char *s, size_t n, char *out);

/* End of the word that begins at pos: of a run of U+2581 and what follows up to the next one. The
 * whole rest where words are not apart. */
size_t tokenizer_vocab_word(const struct tokenizer_vocab *v, const char *s, size_t n, size_t pos);

#define TOKENIZER_SPACE "\u2581" /* U+2581 */

#endif
