/* From panel blocks to vectors, for each type: `head` gives the scales (and minima) of the block's
 * groups, `unit` the codes of one unit's eight quads. Included by the tile kernels only. half:
 * which SIMD_ROWS rows of the sixteen. */
#ifndef KERNELS_CPU_UNPACK_H
#define KERNELS_CPU_UNPACK_H

#include "kernels/cpu/panel.h"
#include "kernels/cpu/split.h"
#include "kernels/cpu/simd.h"

struct unpack_head { /* by group: of 32 columns, or of 16 */
    simd_f scale[16];
    simd_f min[16];
};

#define UNPACK_HEAD(name)                                                                          \
    SIMD_INLINE void unpack_##name##_head(const void *block, int half, struct unpack_head *h)
#define UNPACK_UNIT(name)                                                                          \
    SIMD_INLINE void unpack_##name##_unit(const void *block, int u, int half, simd_i *w)
#define ROWS_OF(array) (&(array)[SIMD_ROWS * half]) /* the half's elements of an array by row */

SIMD_INLINE simd_i unpack_plane(const uint8_t plane[64], int half)
{
    return simd_load(plane + 4 * SIMD_ROWS * half);
}

SIMD_INLINE void unpack_bytes(const uint8_t planes[8][64], int half, simd_i *w)
{
#pragma GCC unroll 8
    for (int q = 0; q < 8; q++) {
        w[q] = unpack_plane(planes[q], half);
    }
}

SIMD_INLINE void unpack_nibbles(const uint8_t planes[4][64], int half, simd_i *w)
{
    const simd_i mask = simd_set8(15);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
        simd_i v = unpack_plane(planes[p], half);
        w[p] = simd_and(v, mask);
        w[p + 4] = simd_and(simd_shift_right16(v, 4), mask);
    }
}

SIMD_INLINE void unpack_indices(const uint8_t planes[4][64], int half, simd_i table, simd_i *w)
{
    unpack_nibbles(planes, half, w);
#pragma GCC unroll 8
    for (int q = 0; q < 8; q++) {
        w[q] = simd_look_up(table, w[q]);
    }
}

SIMD_INLINE void unpack_two_bits(const uint8_t planes[2][64], int half, simd_i *w)
{
    const simd_i mask = simd_set8(3);
#pragma GCC unroll 2
    for (int p = 0; p < 2; p++) {
        simd_i v = unpack_plane(planes[p], half);
        w[p] = simd_and(v, mask);
        w[p + 2] = simd_and(simd_shift_right16(v, 2), mask);
        w[p + 4] = simd_and(simd_shift_right16(v, 4), mask);
        w[p + 6] = simd_and(simd_shift_right16(v, 6), mask);
    }
}

/* w[q] |= bit << to. */
SIMD_INLINE void unpack_or_bit(const uint8_t plane[64], int half, const int to, simd_i *w)
{
    const simd_i mask = simd_set8(1 << to), v = unpack_plane(plane, half);
#pragma GCC unroll 8
    for (int q = 0; q < 8; q++) {
        simd_i bit = q < to ? simd_shift_left16(v, to - q) : simd_shift_right16(v, q - to);
        w[q] = simd_or_and(w[q], bit, mask);
    }
}

SIMD_INLINE simd_f unpack_scaled(simd_f d, simd_i n)
{
    return simd_mul(d, simd_to_f32(n));
}

/* --- blocks of 32 to 128 --------------------------------------------------------------------- */

UNPACK_HEAD(q4_0)
{
    h->scale[0] = simd_load_f16(ROWS_OF(((const struct panel_q4_0 *)block)->d));
}
UNPACK_UNIT(q4_0)
{
    unpack_nibbles(((const struct panel_q4_0 *)block)->q[u], half, w);
}
SIMD_INLINE void unpack_iq4(const uint8_t planes[4][64], int half, simd_i *w)
{
    unpack_indices(planes, half, simd_add8(simd_table(split_iq4_values), simd_set8(128)), w);
}
UNPACK_UNIT(iq4_nl)
{
    unpack_iq4(((const struct panel_q4_0 *)block)->q[u], half, w);
}

UNPACK_HEAD(q4_1)
{
    const struct panel_q4_1 *b = block;
    h->scale[0] = simd_load_f16(ROWS_OF(b->d));
    h->min[0] = simd_load_f16(ROWS_OF(b->m));
}
UNPACK_UNIT(q4_1)
{
    unpack_nibbles(((const struct panel_q4_1 *)block)->q[u], half, w);
}

UNPACK_HEAD(q5_0)
{
    h->scale[0] = simd_load_f16(ROWS_OF(((const struct panel_q5_0 *)block)->d));
}
UNPACK_UNIT(q5_0)
{
    const struct panel_q5_0 *b = block;
    unpack_nibbles(b->q[u], half, w);
    unpack_or_bit(b->high[u], half, 4, w);
}

UNPACK_HEAD(q5_1)
{
    const struct panel_q5_1 *b = block;
    h->scale[0] = simd_load_f16(ROWS_OF(b->d));
    h->min[0] = simd_load_f16(ROWS_OF(b->m));
}
UNPACK_UNIT(q5_1)
{
    const struct panel_q5_1 *b = block;
    unpack_nibbles(b->q[u], half, w);
    unpack_or_bit(b->high[u], half, 4, w);
}

UNPACK_HEAD(q8_0)
{
    h->scale[0] = simd_load_f16(ROWS_OF(((const struct panel_q8_0 *)block)->d));
}
UNPACK_UNIT(q8_0)
{
    unpack_bytes(((const struct panel_q8_0 *)block)->q[u], half, w);
}

SIMD_INLINE void unpack_e2m1(const uint8_t planes[4][64], int half, simd_i *w)
{
    unpack_indices(planes, half, simd_add8(simd_table(split_e2m1_values), simd_set8(16)), w);
}

UNPACK_HEAD(mxfp4)
{
    /* 2^(e - 127) is e in a float's exponent field, halved because the numbers are doubled. (e = 0,
     * 2^-128, becomes 0; e = 255, NaN, becomes infinity: both end as the format means them, nothing
     * and not finite.) */
    simd_i e = simd_load_u8(ROWS_OF(((const struct panel_mxfp4 *)block)->e));
    h->scale[0] = simd_mul(simd_as_f32(simd_shift_left32(e, 23)), simd_set_f32(0.5f));
}
UNPACK_UNIT(mxfp4)
{
    unpack_e2m1(((const struct panel_mxfp4 *)block)->q[u], half, w);
}

UNPACK_HEAD(nvfp4)
{
    /* Seven bits moved to binary16's place are the number times 2^-8; half of it is wanted. */
    const struct panel_nvfp4 *b = block;
    for (int g = 0; g < 4; g++) {
        simd_i e = simd_and(simd_load_u8(ROWS_OF(b->e[g])), simd_set32(0x7f));
        e = simd_zero_where_equal(e, simd_set32(0x7f));
        h->scale[g] = simd_mul(simd_from_f16_bits(simd_shift_left32(e, 7)), simd_set_f32(128.0f));
    }
}
UNPACK_UNIT(nvfp4)
{
    unpack_e2m1(((const struct panel_nvfp4 *)block)->q[u], half, w);
}

UNPACK_HEAD(q2_0)
{
    h->scale[0] = h->scale[1] = simd_load_f16(ROWS_OF(((const struct panel_q2_0 *)block)->d));
}
UNPACK_UNIT(q2_0)
{
    unpack_two_bits(((const struct panel_q2_0 *)block)->q[u], half, w);
}

UNPACK_HEAD(q1_0)
{
    simd_f d = simd_load_f16(ROWS_OF(((const struct panel_q1_0 *)block)->d));
    h->scale[0] = h->scale[1] = h->scale[2] = h->scale[3] = d;
}
UNPACK_UNIT(q1_0)
{
    const struct panel_q1_0 *b = block;
    for (int q = 0; q < 8; q++) {
        w[q] = simd_set8(0);
    }
    unpack_or_bit(b->q[u], half, 1, w);
}

UNPACK_HEAD(tq2_0)
{
    simd_f d = simd_load_f16(ROWS_OF(((const struct panel_tq2_0 *)block)->d));
    for (int u = 0; u < 8; u++) {
        h->scale[u] = d;
    }
}
UNPACK_UNIT(tq2_0)
{
    unpack_two_bits(((const struct panel_tq2_0 *)block)->q[u], half, w);
}

UNPACK_UNIT(tq1_0) /* kept as two-bit codes */
{
    unpack_tq2_0_unit(block, u, half, w);
}

/* --- K types --------------------------------------------------------------------------------- */

/* Number n of 16. */
SIMD_INLINE simd_i unpack_six_bits(const struct panel_six_bits *s, int half, const int n)
{
    simd_i low = simd_load(ROWS_OF(n < 8 ? s->a : s->b)), high = simd_load(ROWS_OF(s->c));
    low = simd_and(simd_shift_right32(low, n % 8 * 4), simd_set32(15));
    high = n < 2 ? simd_shift_left32(high, 4 - 2 * n) : simd_shift_right32(high, 2 * n - 4);
    return simd_or_and(low, high, simd_set32(48));
}

SIMD_INLINE void unpack_scale_min(const struct panel_six_bits *s, int half, simd_f d, simd_f dmin,
                                  struct unpack_head *h)
{
    dmin = simd_neg(dmin);
#pragma GCC unroll 8
    for (int u = 0; u < 8; u++) {
        h->scale[u] = unpack_scaled(d, unpack_six_bits(s, half, u));
        h->min[u] = unpack_scaled(dmin, unpack_six_bits(s, half, u + 8));
    }
}

UNPACK_HEAD(q2_k)
{
    const struct panel_q2_k *b = block;
    simd_f d = simd_load_f16(ROWS_OF(b->d)), dmin = simd_neg(simd_load_f16(ROWS_OF(b->dmin)));
    for (int g = 0; g < 16; g++) {
        simd_i v = simd_load_u8(ROWS_OF(b->scale_min[g]));
        h->scale[g] = unpack_scaled(d, simd_and(v, simd_set32(15)));
        h->min[g] = unpack_scaled(dmin, simd_shift_right32(v, 4));
    }
}
UNPACK_UNIT(q2_k)
{
    unpack_two_bits(((const struct panel_q2_k *)block)->q[u], half, w);
}

UNPACK_HEAD(q3_k)
{
    const struct panel_q3_k *b = block;
    simd_f d = simd_load_f16(ROWS_OF(b->d));
#pragma GCC unroll 16
    for (int g = 0; g < 16; g++) {
        simd_i scale = unpack_six_bits(&b->scale, half, g);
        h->scale[g] = unpack_scaled(d, simd_add32(scale, simd_set32(-32)));
    }
}
UNPACK_UNIT(q3_k)
{
    const struct panel_q3_k *b = block;
    unpack_two_bits(b->q[u], half, w);
    unpack_or_bit(b->high[u], half, 2, w);
}

UNPACK_HEAD(q4_k)
{
    const struct panel_q4_k *b = block;
    unpack_scale_min(&b->scale_min, half, simd_load_f16(ROWS_OF(b->d)),
                     simd_load_f16(ROWS_OF(b->dmin)), h);
}
UNPACK_UNIT(q4_k)
{
    unpack_nibbles(((const struct panel_q4_k *)block)->q[u], half, w);
}

UNPACK_HEAD(q5_k)
{
    const struct panel_q5_k *b = block;
    unpack_scale_min(&b->scale_min, half, simd_load_f16(ROWS_OF(b->d)),
                     simd_load_f16(ROWS_OF(b->dmin)), h);
}
UNPACK_UNIT(q5_k)
{
    const struct panel_q5_k *b = block;
    unpack_nibbles(b->q[u], half, w);
    unpack_or_bit(b->high[u], half, 4, w);
}

UNPACK_HEAD(q6_k)
{
    const struct panel_q6_k *b = block;
    simd_f d = simd_load_f16(ROWS_OF(b->d));
    for (int g = 0; g < 16; g++) {
        h->scale[g] = unpack_scaled(d, simd_load_s8(ROWS_OF(b->scale[g])));
    }
}
UNPACK_UNIT(q6_k)
{
    const struct panel_q6_k *b = block;
    const simd_i mask = simd_set8(48);
    unpack_nibbles(b->q[u], half, w);
#pragma GCC unroll 2
    for (int p = 0; p < 2; p++) {
        simd_i v = unpack_plane(b->high[u][p], half);
        w[p] = simd_or_and(w[p], simd_shift_left16(v, 4), mask);
        w[p + 2] = simd_or_and(w[p + 2], simd_shift_left16(v, 2), mask);
        w[p + 4] = simd_or_and(w[p + 4], v, mask);
        w[p + 6] = simd_or_and(w[p + 6], simd_shift_right16(v, 2), mask);
    }
}

UNPACK_HEAD(q8_k)
{
    simd_f d = simd_load_f32(ROWS_OF(((const struct panel_q8_k *)block)->d));
    for (int u = 0; u < 8; u++) {
        h->scale[u] = d;
    }
}
UNPACK_UNIT(q8_k)
{
    unpack_bytes(((const struct panel_q8_k *)block)->q[u], half, w);
}

UNPACK_HEAD(iq4_xs)
{
    const struct panel_iq4_xs *b = block;
    simd_f d = simd_load_f16(ROWS_OF(b->d));
    simd_i low = simd_load(ROWS_OF(b->scale_low));
    simd_i high = simd_shift_left32(simd_load_u16(ROWS_OF(b->scale_high)), 4);
#pragma GCC unroll 8
    for (int u = 0; u < 8; u++) {
        simd_i scale = simd_and(simd_shift_right32(low, 4 * u), simd_set32(15));
        scale = simd_or_and(scale, simd_shift_right32(high, 2 * u), simd_set32(48));
        h->scale[u] = unpack_scaled(d, simd_add32(scale, simd_set32(-32)));
    }
}
UNPACK_UNIT(iq4_xs)
{
    unpack_iq4(((const struct panel_iq4_xs *)block)->q[u], half, w);
}

#endif
