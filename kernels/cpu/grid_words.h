/* The codebooks of kernels/grid.h in the forms that vector kernels look them up in. */
#ifndef KERNELS_CPU_GRID_WORDS_H
#define KERNELS_CPU_GRID_WORDS_H

#include <stdint.h>

/* A codebook of n entries: as words, and as planes (byte b of every word) for look-ups in
 * registers. */
#define GRID_BOOK(n)                                                                               \
    struct {                                                                                       \
        uint32_t words[n];                                                                         \
        uint8_t planes[4][n];                                                                      \
    }

struct grid_words {
    /* Octets: byte i holds the digit of weight i low, of weight i + 4 high. */
    GRID_BOOK(256) iq2_xxs;
    GRID_BOOK(512) iq2_xs;
    GRID_BOOK(1024) iq2_s;
    GRID_BOOK(2048) iq1;
    /* Quads: byte i holds the value of weight i. */
    GRID_BOOK(256) iq3_xxs;
    GRID_BOOK(512) iq3_s;
};

/* Filled by the first call of grid_words_make, which any thread may make; constant after it. */
extern struct grid_words grid_words_made;
void grid_words_make(void);

#endif
