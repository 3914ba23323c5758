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

static void expand(void)
{
    static const uint8_t iq3_xxs[8] = {4, 12, 20, 28, 36, 44, 52, 62};
    static const uint8_t iq3_s[8] = {1, 3, 5, 7, 9, 11, 13, 15};
    expand_octets(grid_iq1, 2048, grid_words_made.iq1);
    expand_octets(grid_iq2_xxs, 256, grid_words_made.iq2_xxs);
    expand_octets(grid_iq2_xs, 512, grid_words_made.iq2_xs);
    expand_octets(grid_iq2_s, 1024, grid_words_made.iq2_s);
    expand_quads(grid_iq3_xxs, 256, iq3_xxs, grid_words_made.iq3_xxs);
    expand_quads(grid_iq3_s, 512, iq3_s, grid_words_made.iq3_s);
}

void grid_words_make(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, expand);
}
