/* The codebooks of kernels/grid.h as 32-bit words for vector gathers. */
#ifndef KERNELS_CPU_GRID_WORDS_H
#define KERNELS_CPU_GRID_WORDS_H

#include <stdint.h>

struct grid_words {
    /* Octets: byte i holds the digit of weight i low, of weight i + 4 high. */
    uint32_t iq1[2048], iq2_xxs[256], iq2_xs[512], iq2_s[1024];
    /* Quads: byte i holds the value of weight i. */
    uint32_t iq3_xxs[256], iq3_s[512];
};

/* Filled by the first call of grid_words_make, which any thread may make; constant after it. */
extern struct grid_words grid_words_made;
void grid_words_make(void);

#endif
