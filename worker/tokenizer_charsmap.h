/* SentencePiece's precompiled character map (tokenizer.ggml.precompiled_charsmap): which byte
 * sequences are replaced by which. A size, a double array of that many bytes (darts-clone), and the
 * replacements, each ended by a zero byte. */
#ifndef WORKER_TOKENIZER_CHARSMAP_H
#define WORKER_TOKENIZER_CHARSMAP_H

#include "shared/err.h"
#include "shared/gguf.h"

struct tokenizer_charsmap {
    uint32_t *unit; /* owned; NULL: nothing is replaced */
    size_t n_units;
    char *replacement; /* owned; the last byte is zero */
    size_t n_replacement;
};

/* Copies it from the file, if it is there. Errors: ERR_MODEL_TOKENIZER, -ENOMEM. */
MUST_CHECK int tokenizer_charsmap_init(struct tokenizer_charsmap *m, const struct gguf *g,
                                       struct err *e);
void tokenizer_charsmap_finish(struct tokenizer_charsmap *m);

/* Bytes of s that the longest replaced sequence at its beginning has, 0: none; *ret: what stands
 * for them, terminated and borrowed from the map. */
size_t tokenizer_charsmap_match(const struct tokenizer_charsmap *m, const char *s, size_t n,
                                const char **ret);

#endif
