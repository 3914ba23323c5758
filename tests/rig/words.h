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
    float *lanes; /* 4 x 32: sum, maximum, shuffle from lane * 5 % 32, exchange with lane ^ 12 */
    int32_t *numbers; /* 3 x 32: sum of lane * lane, dot4, pick */
};

#endif
