/* Expands the codebooks once per process. */
#include "kernels/cpu/grid_words.h"

#include "kernels/grid.h"

#include <pthread.h>

struct grid_words grid_words_made;

static void expand_octets(const uint16_t *grid, int n, uint32_t *ret)
{
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < 8; j++) {
            uint32_t digit = grid[i] >> 2 * j & 3;
            ret[i] |= digit << (j % 4 * 8 + j / 4 * 4);
        }
    }
}

static void expand_quads(const uint16_t *grid, int n, const uint8_t values[8], uint32_t *ret)
{
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < 4; j++) {
            ret[i] |= (uint32_t)values[grid[i] >> 3 * j & 7] << 8 * j;
        }
    }
}

static void expand_planes(const uint32_t *from, int n, uint8_t *ret)
{
    for (int b = 0; b < 4; b++) {
        for (int i = 0; i < n; i++) {
            ret[b * n + i] = (uint8_t)(from[i] >> 8 * b);
        }
    }
}

#define N_OF(book) ((int)(sizeof grid_##book / sizeof *grid_##book))
#define OCTETS(book)                                                                               \
    expand_octets(grid_##book, N_OF(book), grid_words_made.book.words);                            \
    expand_planes(grid_words_made.book.words, N_OF(book), *grid_words_made.book.planes)
#define QUADS(book, values)                                                                        \
    expand_quads(grid_##book, N_OF(book), values, grid_words_made.book.words);                     \
    expand_planes(grid_words_made.book.words, N_OF(book), *grid_words_made.book.planes)

static void expand(void)
{
    static const uint8_t values_xxs[8] = {4, 12, 20, 28, 36, 44, 52, 62};
    static const uint8_t values_s[8] = {1, 3, 5, 7, 9, 11, 13, 15};
    OCTETS(iq1);
    OCTETS(iq2_xxs);
    OCTETS(iq2_xs);
    OCTETS(iq2_s);
    QUADS(iq3_xxs, values_xxs);
    QUADS(iq3_s, values_s);
}

void grid_words_make(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, expand);
}
