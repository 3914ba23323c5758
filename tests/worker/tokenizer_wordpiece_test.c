/* WordPiece: normalisation, words, longest match, the unknown word. */
#include "tests/worker/vocab_file.h"

#define SP "\u2581"

static const char *const tokens[] = {
    /* 0 */ "[PAD]",      "[UNK]",     "[CLS]", "[SEP]",      "[MASK]",
    /* 5 */ SP "un",      "aff",       "able",  SP "affable", SP "!",
    /* 10 */ SP "\u4E2D", SP "\u6587", SP "e",  "s",          SP "caf",
    /* 15 */ "e",         SP "[",      SP "]",  SP "mask",    SP "E"};

static struct tokenizer *make(bool lowercase)
{
    struct vocab_file f = {0};
    int32_t types[COUNT_OF(tokens)];
    for (size_t i = 0; i < COUNT_OF(tokens); i++) {
        types[i] = i < 5 ? 3 : 1;
    }
    vocab_put_str(&f, "tokenizer.ggml.model", "bert");
    vocab_put_strs(&f, "tokenizer.ggml.tokens", tokens, COUNT_OF(tokens));
    vocab_put_array(&f, "tokenizer.ggml.token_type", GGUF_I32, types, COUNT_OF(tokens), 4);
    vocab_put_u32(&f, "tokenizer.ggml.unknown_token_id", 1);
    vocab_put_u32(&f, "tokenizer.ggml.cls_token_id", 2);
    vocab_put_u32(&f, "tokenizer.ggml.seperator_token_id", 3);
    vocab_put_bool(&f, "tokenizer.ggml.normalizer.lowercase", lowercase);
    return vocab_make(&f);
}

int main(void)
{
    struct tokenizer *t = make(true);
    CHECK_IDS(t, "unaffable", 0, "5 6 7");
    CHECK_IDS(t, "UNaffable!  affable", 0, "5 6 7 9 8");
    CHECK_IDS(t, "unaffable", TOKENIZER_ADD_SPECIAL, "2 5 6 7 3");
    CHECK_IDS(t, "[CLS]unaffable[SEP]", 3, "2 5 6 7 3");
    CHECK_IDS(t, "", TOKENIZER_ADD_SPECIAL, "2 3");
    CHECK_IDS(t, "unxable affable", 0, "1 8");        /* a word is known or not */
    CHECK_IDS(t, "caf\u00E9", 0, "14 15");            /* é loses its accent */
    CHECK_IDS(t, "cafe\u0301", 0, "14 15");           /* written in two parts too */
    CHECK_IDS(t, "\u00C9s", 0, "12 13");              /* and its case */
    CHECK_IDS(t, "\u4E2D\u6587un", 0, "10 11 5");     /* CJK: each alone */
    CHECK_IDS(t, "un\u00A0\u3000\tun", 0, "5 5");     /* white space of all kinds */
    CHECK_IDS(t, "u\u200Bn\x01\xEF\xBF\xBD", 0, "5"); /* invisible ones vanish */
    CHECK_IDS(t, "u\xFFn", 0, "5");                   /* and what is no character */
    CHECK_IDS(t, "[MASK]", 0, "16 18 17");
    CHECK_IDS(t, "[MASK]", TOKENIZER_PARSE_SPECIAL, "4");
    CHECK_TEXT(t, false, "unaffable ! affable", 2, 5, 6, 7, 9, 8, 3);
    tokenizer_destroy(&t);
    t = make(false);
    CHECK_IDS(t, "E e", 0, "19 12");
    CHECK_IDS(t, "\u00E9", 0, "1"); /* accents stay where case does */
    tokenizer_destroy(&t);
    return 0;
}
