/* A kernel that uses every word of the vocabulary on waves and matrices, so that each
 * implementation can be compared element by element: one wave, one block. */
#ifndef TESTS_RIG_WORDS_H
#define TESTS_RIG_WORDS_H

#include <stdint.h>

enum { WORDS_THREADS = 32 };
struct words_args {
    const uint16_t *a16, *b16; /* 16 x 16 binary16 */
    const int8_t *a8, *b8;     /* 16 x 16 */
    float *d16;                /* 16 x 16 */
    int32_t *d8;               /* 16 x 16 */
    int32_t *d32;              /* 16 x 16: 7 + a8 b8^T + b8 a8^T */
    uint32_t *words;           /* 32 x 4: of each lane's piece of a8, ... */
    int32_t *places;           /* ... and which of a8's words each is; -1: none */
    int32_t *few;              /* 8 x 16: of each of eight rows, where it stands among 16 */
    float *lanes; /* 4 x 32: sum, maximum, shuffle from lane * 5 % 32, exchange with lane ^ 12 */
    int32_t *numbers; /* 3 x 32: sum of lane * lane, dot4, pick */
};

#endif
