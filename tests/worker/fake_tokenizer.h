/* A tokenizer for tests, in place of worker/tokenizer*.c at link time: a token for every byte, and
 * as many more as a test names, so that text can be cut anywhere. */
#ifndef TESTS_WORKER_FAKE_TOKENIZER_H
#define TESTS_WORKER_FAKE_TOKENIZER_H

#include "worker/tokenizer.h"

enum {
    FAKE_BOS = 0,  /* "<s>" */
    FAKE_END = 1,  /* "</s>" */
    FAKE_COPY = 2, /* "<copy>": see fake_engine.h */
    FAKE_BYTE = 3, /* + byte */
    FAKE_NAMED = FAKE_BYTE + 256,
    FAKE_VOCAB = FAKE_NAMED + 253, /* 512 */
    FAKE_NEVER = FAKE_VOCAB - 1, /* has no probability */
};

/* Gives the next free id these bytes; fake_tokenizer_reset forgets them all. */
int32_t fake_tokenizer_name(const char *bytes, size_t n);
void fake_tokenizer_reset(void);

const struct tokenizer *fake_tokenizer(void);

#endif
