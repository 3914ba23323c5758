/* The IQ super-blocks: codebook entries with signs. Pure functions; any thread. */
#include "kernels/block.h"
#include "kernels/cpu/split.h"
#include "kernels/grid.h"
#include "kernels/half.h"

/* Bit j of the result: weight j of an octet is negative. */
static unsigned signs_of(unsigned field)
{
    field &= 127;
    return field | (unsigned)__builtin_parity(field) << 7;
}

static void octet(unsigned entry, unsigned signs, int8_t q[8])
{
    static const int8_t values[4] = {8, 25, 43, 0};
    for (int j = 0; j < 8; j++) {
        int8_t v = values[entry >> 2 * j & 3];
        q[j] = signs >> j & 1 ? (int8_t)-v : v;
    }
}

static void quad(unsigned entry, unsigned signs, const int8_t values[8], int8_t q[4])
{
    for (int j = 0; j < 4; j++) {
        int8_t v = values[entry >> 3 * j & 7];
        q[j] = signs >> j & 1 ? (int8_t)-v : v;
    }
}

/* value + delta of IQ1, times 8. */
static void octet_iq1(unsigned entry, bool is_delta_negative, int8_t q[8])
{
    for (int j = 0; j < 8; j++) {
        q[j] = (int8_t)(((int)(entry >> 2 * j & 3) - 1) * 8 + (is_delta_negative ? -1 : 1));
    }
}

static void set_half_group(struct split *s, int h, float scale)
{
    s->scale[h] = scale;
    s->min[h] = 0;
}

static void set_group(struct split *s, int g, float scale)
{
    set_half_group(s, 2 * g, scale);
    set_half_group(s, 2 * g + 1, scale);
}

static float iq2_scale(float d, int s)
{
    return d * (0.5f + (float)s) * 0.25f;
}

void split_iq2_xxs(const void *block, struct split *s)
{
    const struct block_iq2_xxs *b = block;
    for (int g = 0; g < 8; g++) {
        uint32_t word;
        memcpy(&word, b->qs + 8 * g + 4, sizeof word);
        set_group(s, g, iq2_scale(half_to_f32(b->d), (int)(word >> 28)));
        for (int o = 0; o < 4; o++) {
            octet(grid_iq2_xxs[b->qs[8 * g + o]], signs_of(word >> 7 * o), s->q + 32 * g + 8 * o);
        }
    }
}

void split_iq2_xs(const void *block, struct split *s)
{
    const struct block_iq2_xs *b = block;
    float d = half_to_f32(b->d);
    for (int g = 0; g < 8; g++) {
        set_half_group(s, 2 * g, iq2_scale(d, b->scales[g] & 15));
        set_half_group(s, 2 * g + 1, iq2_scale(d, b->scales[g] >> 4));
        for (int o = 0; o < 4; o++) {
            unsigned word = b->qs[4 * g + o];
            octet(grid_iq2_xs[word & 511], signs_of(word >> 9), s->q + 32 * g + 8 * o);
        }
    }
}

void split_iq2_s(const void *block, struct split *s)
{
    const struct block_iq2_s *b = block;
    float d = half_to_f32(b->d);
    for (int g = 0; g < 8; g++) {
        set_half_group(s, 2 * g, iq2_scale(d, b->scales[g] & 15));
        set_half_group(s, 2 * g + 1, iq2_scale(d, b->scales[g] >> 4));
        for (int o = 0; o < 4; o++) {
            unsigned high = b->qh[g] >> 2 * o & 3u;
            octet(grid_iq2_s[b->qs[4 * g + o] | high << 8], b->signs[4 * g + o],
                  s->q + 32 * g + 8 * o);
        }
    }
}

void split_iq3_xxs(const void *block, struct split *s)
{
    static const int8_t values[8] = {4, 12, 20, 28, 36, 44, 52, 62};
    const struct block_iq3_xxs *b = block;
    for (int g = 0; g < 8; g++) {
        uint32_t word = b->signs[g];
        set_group(s, g, half_to_f32(b->d) * (0.5f + (float)(word >> 28)) * 0.5f);
        for (int j = 0; j < 8; j++) {
            unsigned signs = signs_of(word >> 7 * (j / 2)) >> j % 2 * 4;
            quad(grid_iq3_xxs[b->qs[8 * g + j]], signs, values, s->q + 32 * g + 4 * j);
        }
    }
}

void split_iq3_s(const void *block, struct split *s)
{
    static const int8_t values[8] = {1, 3, 5, 7, 9, 11, 13, 15};
    const struct block_iq3_s *b = block;
    for (int g = 0; g < 8; g++) {
        int scale = b->scales[g / 2] >> g % 2 * 4 & 15;
        set_group(s, g, half_to_f32(b->d) * (float)(1 + 2 * scale));
        for (int j = 0; j < 8; j++) {
            unsigned high = b->qh[g] >> j & 1u;
            unsigned signs = (unsigned)b->signs[4 * g + j / 2] >> j % 2 * 4;
            quad(grid_iq3_s[b->qs[8 * g + j] | high << 8], signs, values, s->q + 32 * g + 4 * j);
        }
    }
}

void split_iq1_s(const void *block, struct split *s)
{
    const struct block_iq1_s *b = block;
    for (int g = 0; g < 8; g++) {
        unsigned word = b->qh[g];
        set_group(s, g, half_to_f32(b->d) * (float)(2 * (word >> 12 & 7) + 1) * 0.125f);
        for (int o = 0; o < 4; o++) {
            unsigned high = word >> 3 * o & 7;
            octet_iq1(grid_iq1[b->qs[4 * g + o] | high << 8], word >> 15, s->q + 32 * g + 8 * o);
        }
    }
}

void split_iq1_m(const void *block, struct split *s)
{
    const struct block_iq1_m *b = block;
    unsigned bits = 0;
    for (int i = 0; i < 4; i++) {
        bits |= (unsigned)b->scales[i] >> 12 << 4 * i;
    }
    float d = half_to_f32((uint16_t)bits);
    for (int h = 0; h < 16; h++) {
        int scale = b->scales[h / 4] >> h % 4 * 3 & 7;
        set_half_group(s, h, d * (float)(2 * scale + 1) * 0.125f);
        for (int n = 0; n < 2; n++) {
            unsigned nibble = b->qh[h] >> 4 * n & 15u;
            octet_iq1(grid_iq1[b->qs[2 * h + n] | (nibble & 7) << 8], nibble >> 3,
                      s->q + 16 * h + 8 * n);
        }
    }
}

void split_iq4_xs(const void *block, struct split *s)
{
    const struct block_iq4_xs *b = block;
    float d = half_to_f32(b->d);
    for (int g = 0; g < 8; g++) {
        int low = b->scales_low[g / 2] >> g % 2 * 4 & 15;
        int high = b->scales_high >> 2 * g & 3;
        set_group(s, g, d * (float)((low | high << 4) - 32));
        for (int i = 0; i < 16; i++) {
            s->q[32 * g + i] = split_iq4_values[b->qs[16 * g + i] & 15];
            s->q[32 * g + i + 16] = split_iq4_values[b->qs[16 * g + i] >> 4];
        }
    }
}
