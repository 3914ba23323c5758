/* unpack.h for the types with codebooks: words looked up give the digits or values, masks the
 * signs. A code is 64 plus the signed value (IQ2, IQ3), or 16 plus eight times value + delta (IQ1).
 */
#ifndef KERNELS_CPU_UNPACK_IQ_H
#define KERNELS_CPU_UNPACK_IQ_H

#include "kernels/cpu/grid_words.h"
#include "kernels/cpu/unpack.h"

/* The four words of each row for 64 indices (PANEL_INDICES). */
#define UNPACK_LOOK_UP(book, index, bit8, bit9, ret)                                               \
    simd_look_up_words(grid_words_made.book.words, *grid_words_made.book.planes,                   \
                       (int)(sizeof grid_words_made.book.words / 4), index, bit8, bit9, half, ret)

/* The masks of an octet whose eighth sign makes the number of negatives even. */
SIMD_INLINE void unpack_signs7(const struct panel_signs7 *s, int o, uint64_t mask[2])
{
    const uint64_t ones = 0x1111111111111111u;
    /* Two bytes too many are read: they lie within the block. */
    uint64_t even = s->even[o], odd = _pdep_u64(simd_long(s->odd[o]), 7 * ones);
    uint64_t parity = even ^ odd;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    mask[0] = even;
    mask[1] = odd | (parity & ones) << 3;
}

SIMD_INLINE simd_i unpack_iq_sign(simd_i v, uint64_t mask, int half)
{
    return simd_signed8(simd_set8(64), v, mask >> 4 * SIMD_ROWS * half % 64);
}

SIMD_INLINE void unpack_octet(simd_i word, const uint64_t mask[2], int half, simd_i *w)
{
    static const int8_t values[16] = {8, 25, 43};
    const simd_i nibble = simd_set8(15), table = simd_table(values);
    simd_i low = simd_look_up(table, simd_and(word, nibble));
    simd_i high = simd_look_up(table, simd_and(simd_shift_right16(word, 4), nibble));
    w[0] = unpack_iq_sign(low, mask[0], half);
    w[1] = unpack_iq_sign(high, mask[1], half);
}

/* (n + 1/2) / 4 * d. */
SIMD_INLINE simd_f unpack_iq2_scale(simd_f d, simd_i n)
{
    simd_f s = simd_add(simd_to_f32(n), simd_set_f32(0.5f));
    return simd_mul(simd_mul(d, s), simd_set_f32(0.25f));
}

SIMD_INLINE void unpack_iq2_scales(const uint8_t scale[8][PANEL_ROWS], simd_f d, int half,
                                   struct unpack_head *h)
{
    for (int u = 0; u < 8; u++) {
        simd_i v = simd_load_u8(ROWS_OF(scale[u]));
        h->scale[2 * u] = unpack_iq2_scale(d, simd_and(v, simd_set32(15)));
        h->scale[2 * u + 1] = unpack_iq2_scale(d, simd_shift_right32(v, 4));
    }
}

UNPACK_HEAD(iq2_xxs)
{
    const struct panel_iq2_xxs *b = block;
    simd_f d = simd_load_f16(ROWS_OF(b->d));
    for (int u = 0; u < 8; u++) {
        h->scale[u] = unpack_iq2_scale(d, simd_load_row_nibbles(b->scale[u], half));
    }
}
UNPACK_UNIT(iq2_xxs)
{
    const struct panel_iq2_xxs *b = block;
    simd_i words[4];
    UNPACK_LOOK_UP(iq2_xxs, b->index[u], 0, 0, words);
#pragma GCC unroll 4
    for (int o = 0; o < 4; o++) {
        uint64_t mask[2];
        unpack_signs7(&b->signs[u], o, mask);
        unpack_octet(words[o], mask, half, w + 2 * o);
    }
}

UNPACK_HEAD(iq2_xs)
{
    const struct panel_iq2_xs *b = block;
    unpack_iq2_scales(b->scale, simd_load_f16(ROWS_OF(b->d)), half, h);
}
UNPACK_UNIT(iq2_xs)
{
    const struct panel_iq2_xs *b = block;
    simd_i words[4];
    UNPACK_LOOK_UP(iq2_xs, b->index[u], b->index_high[u], 0, words);
#pragma GCC unroll 4
    for (int o = 0; o < 4; o++) {
        uint64_t mask[2];
        unpack_signs7(&b->signs[u], o, mask);
        unpack_octet(words[o], mask, half, w + 2 * o);
    }
}

UNPACK_HEAD(iq2_s)
{
    const struct panel_iq2_s *b = block;
    unpack_iq2_scales(b->scale, simd_load_f16(ROWS_OF(b->d)), half, h);
}
UNPACK_UNIT(iq2_s)
{
    const struct panel_iq2_s *b = block;
    simd_i words[4];
    UNPACK_LOOK_UP(iq2_s, b->index[u], b->index_high[u][0], b->index_high[u][1], words);
#pragma GCC unroll 4
    for (int o = 0; o < 4; o++) {
        const uint64_t mask[2] = {b->signs[u].quads[2 * o], b->signs[u].quads[2 * o + 1]};
        unpack_octet(words[o], mask, half, w + 2 * o);
    }
}

UNPACK_HEAD(iq3_xxs)
{
    const struct panel_iq3_xxs *b = block;
    simd_f d = simd_load_f16(ROWS_OF(b->d));
    for (int u = 0; u < 8; u++) {
        simd_f s = simd_to_f32(simd_load_row_nibbles(b->scale[u], half));
        h->scale[u] = simd_mul(simd_mul(d, simd_add(s, simd_set_f32(0.5f))), simd_set_f32(0.5f));
    }
}
UNPACK_UNIT(iq3_xxs)
{
    const struct panel_iq3_xxs *b = block;
    UNPACK_LOOK_UP(iq3_xxs, b->index[u][0], 0, 0, w);
    UNPACK_LOOK_UP(iq3_xxs, b->index[u][1], 0, 0, w + 4);
#pragma GCC unroll 4
    for (int o = 0; o < 4; o++) {
        uint64_t mask[2];
        unpack_signs7(&b->signs[u], o, mask);
        w[2 * o] = unpack_iq_sign(w[2 * o], mask[0], half);
        w[2 * o + 1] = unpack_iq_sign(w[2 * o + 1], mask[1], half);
    }
}

UNPACK_HEAD(iq3_s)
{
    const struct panel_iq3_s *b = block;
    simd_f d = simd_load_f16(ROWS_OF(b->d));
    for (int u = 0; u < 8; u++) {
        simd_i s = simd_load_row_nibbles(b->scale[u], half);
        h->scale[u] = unpack_scaled(d, simd_add32(simd_add32(s, s), simd_set32(1)));
    }
}
UNPACK_UNIT(iq3_s)
{
    const struct panel_iq3_s *b = block;
    UNPACK_LOOK_UP(iq3_s, b->index[u][0], b->index_high[u][0], 0, w);
    UNPACK_LOOK_UP(iq3_s, b->index[u][1], b->index_high[u][1], 0, w + 4);
#pragma GCC unroll 8
    for (int q = 0; q < 8; q++) {
        w[q] = unpack_iq_sign(w[q], b->signs[u].quads[q], half);
    }
}

/* delta: in each of a row's four bytes, 0x01 or 0xff; sign: 0 or 1 for each row. */
SIMD_INLINE simd_i unpack_iq1_delta(simd_i sign)
{
    return simd_add32(simd_mul32(sign, simd_set32((int)0xfefefefeu)), simd_set32(0x01010101));
}

SIMD_INLINE void unpack_iq1_octet(simd_i index, simd_i delta, simd_i *w)
{
    static const int8_t values[16] = {8, 16, 24};
    const simd_i nibble = simd_set8(15), table = simd_table(values);
    simd_i word = simd_gather(grid_words_made.iq1.words, index);
    w[0] = simd_add8(simd_look_up(table, simd_and(word, nibble)), delta);
    w[1] = simd_add8(simd_look_up(table, simd_and(simd_shift_right16(word, 4), nibble)), delta);
}

/* d * (2 n + 1) / 8. */
SIMD_INLINE simd_f unpack_iq1_scale(simd_f d, simd_i n)
{
    return simd_mul(unpack_scaled(d, simd_add32(simd_add32(n, n), simd_set32(1))),
                    simd_set_f32(0.125f));
}

UNPACK_HEAD(iq1_s)
{
    const struct panel_iq1_s *b = block;
    simd_f d = simd_load_f16(ROWS_OF(b->d));
    for (int u = 0; u < 8; u++) {
        simd_i high = simd_load_u16(ROWS_OF(b->high[u]));
        h->scale[u] = unpack_iq1_scale(d, simd_and(simd_shift_right32(high, 12), simd_set32(7)));
    }
}
UNPACK_UNIT(iq1_s)
{
    const struct panel_iq1_s *b = block;
    simd_i high = simd_load_u16(ROWS_OF(b->high[u]));
    simd_i delta = unpack_iq1_delta(simd_shift_right32(high, 15));
    simd_i bits = simd_shift_left32(high, 8);
#pragma GCC unroll 4
    for (int o = 0; o < 4; o++) {
        simd_i index = simd_load_u8(ROWS_OF(b->index[u][o]));
        index = simd_or_and(index, simd_shift_right32(bits, 3 * o), simd_set32(0x700));
        unpack_iq1_octet(index, delta, w + 2 * o);
    }
}

UNPACK_HEAD(iq1_m)
{
    const struct panel_iq1_m *b = block;
    simd_i word[4], bits = simd_set32(0);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        word[i] = simd_load_u16(ROWS_OF(b->scale[i]));
        bits = simd_or(bits, simd_shift_left32(simd_shift_right32(word[i], 12), 4 * i));
    }
    simd_f d = simd_from_f16_bits(bits);
#pragma GCC unroll 16
    for (int g = 0; g < 16; g++) {
        simd_i n = simd_and(simd_shift_right32(word[g / 4], g % 4 * 3), simd_set32(7));
        h->scale[g] = unpack_iq1_scale(d, n);
    }
}
UNPACK_UNIT(iq1_m)
{
    const struct panel_iq1_m *b = block;
#pragma GCC unroll 4
    for (int o = 0; o < 4; o++) {
        simd_i high = simd_load_u8(ROWS_OF(b->high[u][o / 2]));
        high = simd_and(simd_shift_right32(high, o % 2 * 4), simd_set32(15));
        simd_i index = simd_load_u8(ROWS_OF(b->index[u][o]));
        index = simd_or_and(index, simd_shift_left32(high, 8), simd_set32(0x700));
        unpack_iq1_octet(index, unpack_iq1_delta(simd_shift_right32(high, 3)), w + 2 * o);
    }
}

#endif
