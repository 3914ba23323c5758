/* Reads http_corpus.txt: see its head for the format. */
#ifndef TESTS_GATEWAY_CORPUS_H
#define TESTS_GATEWAY_CORPUS_H

#include "shared/buf.h"

struct corpus_case {
    char name[64];
    char expected[16];
    struct buf bytes;
};

/* Calls fn for every case; returns their number. */
int corpus_each(const char *path, void (*fn)(const struct corpus_case *c, void *arg), void *arg);

#endif
