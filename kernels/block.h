/* Layouts of the GGUF format's tensor blocks, one declaration for the CPU and the GPU side.
 *
 * Facts of the format: field order, bit positions and value formulas. Blocks stand back to back
 * with no padding, so a block of 18 or 34 bytes is not aligned to anything: code copies fields out,
 * or reads single bytes, and never relies on alignment. All numbers are little-endian. half is an
 * IEEE binary16 in its 16 bits. In the formulas below, w[i] is the i-th weight of the block, lo(b)
 * and hi(b) are the nibbles of a byte. */
#ifndef KERNELS_BLOCK_H
#define KERNELS_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#define BLOCK_PACKED __attribute__((packed))
#define BLOCK_SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), #type " size")
#define BLOCK_AT(type, field, at)                                                                  \
    _Static_assert(offsetof(struct type, field) == (at), #type "." #field)

enum { BLOCK_SUPER = 256 }; /* weights of a super-block (the K, IQ and TQ types) */

/* --- blocks of 32 ---------------------------------------------------------------------------- */

/* w[i] = d * (lo(qs[i]) - 8) for i < 16, d * (hi(qs[i - 16]) - 8) above. */
struct BLOCK_PACKED block_q4_0 {
    uint16_t d;
    uint8_t qs[16];
};
BLOCK_SIZE(block_q4_0, 18);
BLOCK_AT(block_q4_0, qs, 2);

/* As Q4_0 but w = d * q + m, q in 0..15. */
struct BLOCK_PACKED block_q4_1 {
    uint16_t d;
    uint16_t m;
    uint8_t qs[16];
};
BLOCK_SIZE(block_q4_1, 20);
BLOCK_AT(block_q4_1, qs, 4);

/* w[i] = d * (q - 16), q = the nibble as in Q4_0 plus 16 where bit i of qh is set. */
struct BLOCK_PACKED block_q5_0 {
    uint16_t d;
    uint8_t qh[4];
    uint8_t qs[16];
};
BLOCK_SIZE(block_q5_0, 22);
BLOCK_AT(block_q5_0, qh, 2);
BLOCK_AT(block_q5_0, qs, 6);

/* w = d * q + m, q in 0..31 as in Q5_0. */
struct BLOCK_PACKED block_q5_1 {
    uint16_t d;
    uint16_t m;
    uint8_t qh[4];
    uint8_t qs[16];
};
BLOCK_SIZE(block_q5_1, 24);
BLOCK_AT(block_q5_1, qh, 4);
BLOCK_AT(block_q5_1, qs, 8);

/* w[i] = d * qs[i]. */
struct BLOCK_PACKED block_q8_0 {
    uint16_t d;
    int8_t qs[32];
};
BLOCK_SIZE(block_q8_0, 34);
BLOCK_AT(block_q8_0, qs, 2);

/* Q8_0 with s = d * sum of qs; an intermediate form of other engines, never in a weight file. */
struct BLOCK_PACKED block_q8_1 {
    uint16_t d;
    uint16_t s;
    int8_t qs[32];
};
BLOCK_SIZE(block_q8_1, 36);
BLOCK_AT(block_q8_1, qs, 4);

/* Q4_0's nibbles as numbers of the 16 values -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89
 * 113. */
struct BLOCK_PACKED block_iq4_nl {
    uint16_t d;
    uint8_t qs[16];
};
BLOCK_SIZE(block_iq4_nl, 18);
BLOCK_AT(block_iq4_nl, qs, 2);

/* OCP Microscaling FP4: nibbles as in Q4_0, each an E2M1 number (sign, 2 exponent bits, 1 mantissa
 * bit: 0 0.5 1 1.5 2 3 4 6); w = 2^(e - 127) * that, e = 255 is NaN. */
struct BLOCK_PACKED block_mxfp4 {
    uint8_t e;
    uint8_t qs[16];
};
BLOCK_SIZE(block_mxfp4, 17);
BLOCK_AT(block_mxfp4, qs, 1);

/* --- blocks of 64 and 128 -------------------------------------------------------------------- */

/* Four groups of 16 E2M1 numbers. Group g: scale d[g], unsigned E4M3 (bias 7, bit 7 unused, 0x7f
 * counts as 0); w[16 g + i] from lo(qs[8 g + i]) for i < 8, hi(qs[8 g + i - 8]) above. */
struct BLOCK_PACKED block_nvfp4 {
    uint8_t d[4];
    uint8_t qs[32];
};
BLOCK_SIZE(block_nvfp4, 36);
BLOCK_AT(block_nvfp4, qs, 4);

/* w[i] = d * (q - 1), q = bits 2 (i mod 4) and up of qs[i / 4]. */
struct BLOCK_PACKED block_q2_0 {
    uint16_t d;
    uint8_t qs[16];
};
BLOCK_SIZE(block_q2_0, 18);
BLOCK_AT(block_q2_0, qs, 2);

/* w[i] = d where bit i mod 8 of qs[i / 8] is set, else -d. */
struct BLOCK_PACKED block_q1_0 {
    uint16_t d;
    uint8_t qs[16];
};
BLOCK_SIZE(block_q1_0, 18);
BLOCK_AT(block_q1_0, qs, 2);

/* --- super-blocks of 256 --------------------------------------------------------------------- */

/* Two-bit fields in Q2_K, Q3_K and TQ2_0: weight i stands in qs[i / 128 * 32 + i % 32] at bit 2 (i
 * / 32 % 4). */

/* Groups of 16: w = d * lo(scales[i / 16]) * q - dmin * hi(scales[i / 16]). */
struct BLOCK_PACKED block_q2_k {
    uint8_t scales[16];
    uint8_t qs[64];
    uint16_t d;
    uint16_t dmin;
};
BLOCK_SIZE(block_q2_k, 84);
BLOCK_AT(block_q2_k, qs, 16);
BLOCK_AT(block_q2_k, d, 80);

/* Groups of 16: w = d * (s - 32) * (q - 4), q = two bits of qs, plus 4 where bit i / 32 of hmask[i
 * % 32] is set. The 6-bit s of group g: bits 0-3 are lo(scales[g]) for g < 8, hi(scales[g - 8])
 * above; bits 4-5 are bits 2 (g / 4) and up of scales[8 + g % 4]. */
struct BLOCK_PACKED block_q3_k {
    uint8_t hmask[32];
    uint8_t qs[64];
    uint8_t scales[12];
    uint16_t d;
};
BLOCK_SIZE(block_q3_k, 110);
BLOCK_AT(block_q3_k, qs, 32);
BLOCK_AT(block_q3_k, scales, 96);
BLOCK_AT(block_q3_k, d, 108);

/* Eight groups of 32. Group g has a 6-bit scale s and a 6-bit minimum m; w = d * s * q - dmin * m.
 * In `scales`, for g < 4: s = scales[g] & 63, m = scales[g + 4] & 63; for g >= 4: s = lo(scales[g +
 * 4]) with scales[g - 4] >> 6 as bits 4 and 5, m = hi(scales[g + 4]) with scales[g] >> 6 as bits 4
 * and 5. qs: 32 bytes for each pair of groups, the even group in the low nibbles. */
struct BLOCK_PACKED block_q4_k {
    uint16_t d;
    uint16_t dmin;
    uint8_t scales[12];
    uint8_t qs[128];
};
BLOCK_SIZE(block_q4_k, 144);
BLOCK_AT(block_q4_k, scales, 4);
BLOCK_AT(block_q4_k, qs, 16);

/* As Q4_K; bit g of qh[i % 32] adds 16 to q. */
struct BLOCK_PACKED block_q5_k {
    uint16_t d;
    uint16_t dmin;
    uint8_t scales[12];
    uint8_t qh[32];
    uint8_t qs[128];
};
BLOCK_SIZE(block_q5_k, 176);
BLOCK_AT(block_q5_k, scales, 4);
BLOCK_AT(block_q5_k, qh, 16);
BLOCK_AT(block_q5_k, qs, 48);

/* Two halves of 128. In a half, with l in 0..31: weights l, l+32 take lo(ql[l]), lo(ql[l + 32]) and
 * bits 0-1, 2-3 of qh[l]; weights l+64, l+96 take hi(ql[l]), hi(ql[l + 32]) and bits 4-5, 6-7. w =
 * d * scales[i / 16] * (q - 32). */
struct BLOCK_PACKED block_q6_k {
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16];
    uint16_t d;
};
BLOCK_SIZE(block_q6_k, 210);
BLOCK_AT(block_q6_k, qh, 128);
BLOCK_AT(block_q6_k, scales, 192);
BLOCK_AT(block_q6_k, d, 208);

/* w[i] = d * qs[i]; sums[g] is the sum of group g of 16. Other engines' form of activations. */
struct BLOCK_PACKED block_q8_k {
    float d;
    int8_t qs[256];
    int16_t sums[16];
};
BLOCK_SIZE(block_q8_k, 292);
BLOCK_AT(block_q8_k, qs, 4);
BLOCK_AT(block_q8_k, sums, 260);

/* Ternary: w = d * (trit - 1). Five trits in a byte b: trit n is the integer part of 3 * frac(b *
 * 3^n / 256). Weights 0..159: trit i / 32 of qs[i % 32]; 160..239: trit (i - 160) / 16 of qs[32 + i
 * % 16]; 240..255: trit (i - 240) / 4 of qh[i % 4]. */
struct BLOCK_PACKED block_tq1_0 {
    uint8_t qs[48];
    uint8_t qh[4];
    uint16_t d;
};
BLOCK_SIZE(block_tq1_0, 54);
BLOCK_AT(block_tq1_0, qh, 48);
BLOCK_AT(block_tq1_0, d, 52);

/* w = d * (q - 1). */
struct BLOCK_PACKED block_tq2_0 {
    uint8_t qs[64];
    uint16_t d;
};
BLOCK_SIZE(block_tq2_0, 66);
BLOCK_AT(block_tq2_0, d, 64);

/* The IQ types: eight groups of 32, g = i / 32, each of four octets, o = i / 8 % 4; codebooks in
 * kernels/grid.h. A seven-bit sign field names eight signs: bit j set makes weight j of the octet
 * negative; the eighth makes the number of negatives even. */

/* Group g is 8 bytes: four codebook indices, then 32 bits: sign fields of octet o at 7 o, scale s
 * at 28. w = d * (s + 1/2) / 4 * value. */
struct BLOCK_PACKED block_iq2_xxs {
    uint16_t d;
    uint8_t qs[64];
};
BLOCK_SIZE(block_iq2_xxs, 66);
BLOCK_AT(block_iq2_xxs, qs, 2);

/* qs[4 g + o]: codebook index (9 bits), sign field (7 bits). Octets 0 and 1 scale by lo(scales[g]),
 * 2 and 3 by hi(scales[g]), as in IQ2_XXS. */
struct BLOCK_PACKED block_iq2_xs {
    uint16_t d;
    uint16_t qs[32];
    uint8_t scales[8];
};
BLOCK_SIZE(block_iq2_xs, 74);
BLOCK_AT(block_iq2_xs, scales, 66);

/* Index: qs[4 g + o], with bits 2 o and up of qh[g] as bits 8 and 9. All eight signs stand in
 * signs[4 g + o]. */
struct BLOCK_PACKED block_iq2_s {
    uint16_t d;
    uint8_t qs[32];
    uint8_t signs[32];
    uint8_t qh[8];
    uint8_t scales[8];
};
BLOCK_SIZE(block_iq2_s, 82);
BLOCK_AT(block_iq2_s, signs, 34);
BLOCK_AT(block_iq2_s, qh, 66);
BLOCK_AT(block_iq2_s, scales, 74);

/* qs[8 g + j] indexes quad j of the group. signs[g], 32 bits: sign fields of octet o at 7 o, scale
 * s at 28. w = d * (s + 1/2) / 2 * value. */
struct BLOCK_PACKED block_iq3_xxs {
    uint16_t d;
    uint8_t qs[64];
    uint32_t signs[8];
};
BLOCK_SIZE(block_iq3_xxs, 98);
BLOCK_AT(block_iq3_xxs, signs, 66);

/* Index of quad j: qs[8 g + j], with bit j of qh[g] as bit 8. signs as in IQ2_S. Scale s: nibble g
 * % 2 of scales[g / 2]; w = d * (2 s + 1) * value. */
struct BLOCK_PACKED block_iq3_s {
    uint16_t d;
    uint8_t qs[64];
    uint8_t qh[8];
    uint8_t signs[32];
    uint8_t scales[4];
};
BLOCK_SIZE(block_iq3_s, 110);
BLOCK_AT(block_iq3_s, qh, 66);
BLOCK_AT(block_iq3_s, signs, 74);
BLOCK_AT(block_iq3_s, scales, 106);

/* Index of octet o: qs[4 g + o], with bits 3 o and up of qh[g] as bits 8-10. Bits 12-14 of qh[g]:
 * scale s; bit 15: delta is -1/8, else +1/8. w = d * (2 s + 1) * (value + delta). */
struct BLOCK_PACKED block_iq1_s {
    uint16_t d;
    uint8_t qs[32];
    uint16_t qh[8];
};
BLOCK_SIZE(block_iq1_s, 50);
BLOCK_AT(block_iq1_s, qh, 34);

/* As IQ1_S, with nibble n = o % 2 of qh[2 g + o / 2]: bits 0-2 are bits 8-10 of the index, bit 3
 * the sign of delta. The four 16-bit words of scales: bits 12-15 are, word by word, the bits 0-3,
 * 4-7, 8-11, 12-15 of d; the 3-bit scale of half group h = 2 g + o / 2 stands in word h / 4 at bit
 * 3 (h % 4). */
struct BLOCK_PACKED block_iq1_m {
    uint8_t qs[32];
    uint8_t qh[16];
    uint16_t scales[4];
};
BLOCK_SIZE(block_iq1_m, 56);
BLOCK_AT(block_iq1_m, qh, 32);
BLOCK_AT(block_iq1_m, scales, 48);

/* The values of IQ4_NL; group g: nibbles as in Q4_0 in qs + 16 g; the 6-bit scale s has bits 0-3 in
 * nibble g % 2 of scales_low[g / 2] and bits 4-5 at 2 g of scales_high. w = d * (s - 32) * value.
 */
struct BLOCK_PACKED block_iq4_xs {
    uint16_t d;
    uint16_t scales_high;
    uint8_t scales_low[4];
    uint8_t qs[128];
};
BLOCK_SIZE(block_iq4_xs, 136);
BLOCK_AT(block_iq4_xs, scales_low, 4);
BLOCK_AT(block_iq4_xs, qs, 8);

#endif
