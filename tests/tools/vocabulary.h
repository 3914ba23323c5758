/* A made-up byte-level BPE vocabulary of any size: the 256 bytes, then pronounceable words with all
 * their beginnings, a merge for each, then control tokens, then unused ones. */
#ifndef TESTS_TOOLS_VOCABULARY_H
#define TESTS_TOOLS_VOCABULARY_H

#include "shared/arena.h"
#include "shared/ggufw.h"

struct vocabulary {
    struct arena arena; /* owns the texts */
    size_t n_tokens, n_merges;
    struct gguf_str *tokens, *merges;
    int32_t *types;
};

/* n_base: bytes and words, at least 256; control: names of the n_control tokens after them;
 * n_tokens in all. The same seed gives the same vocabulary. */
void vocabulary_make(struct vocabulary *v, uint64_t seed, size_t n_base, const char *const *control,
                     size_t n_control, size_t n_tokens);
void vocabulary_finish(struct vocabulary *v);

#endif
