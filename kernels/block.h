/* Layouts of the GGUF format's tensor blocks, one declaration for the CPU and the GPU side.
 *
 * Facts of the format: field order, bit positions and value formulas. Blocks stand back to back with no padding, so
 * a block of 18 or 34 bytes is not aligned to anything: code copies fields out, or reads single bytes, and never
 * relies on alignment. All numbers are little-endian. half is an IEEE binary16 in its 16 bits.
 * In the formulas below, w[i] is the i-th weight of the block, lo(b) and hi(b) are the nibbles of a byte. */
#ifndef KERNELS_BLOCK_H
#define KERNELS_BLOCK_H

#include <stddef.h>
#include <stdint.h>

typedef uint16_t block_half; /* the bits of an IEEE binary16 */

#define BLOCK_PACKED __attribute__((packed))
#define BLOCK_SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), #type " size")
#define BLOCK_AT(type, field, at)                                                                  \
    _Static_assert(offsetof(struct type, field) == (at), #type "." #field)

enum { BLOCK_SUPER = 256 }; /* weights of a super-block (the K, IQ and TQ types) */

/* --- blocks of 32 ------------------------------------------------------------------------------ */

/* w[i] = d * (lo(qs[i]) - 8) for i < 16, d * (hi(qs[i - 16]) - 8) above. */
struct BLOCK_PACKED block_q4_0 {
    block_half d;
    uint8_t qs[16];
};
BLOCK_SIZE(block_q4_0, 18);
BLOCK_AT(block_q4_0, qs, 2);

/* As Q4_0 but w = d * q + m, q in 0..15. */
struct BLOCK_PACKED block_q4_1 {
    block_half d;
    block_half m;
    uint8_t qs[16];
};
BLOCK_SIZE(block_q4_1, 20);
BLOCK_AT(block_q4_1, qs, 4);

/* w[i] = d * (q - 16), q = the nibble as in Q4_0 plus 16 where bit i of qh is set. */
struct BLOCK_PACKED block_q5_0 {
    block_half d;
    uint8_t qh[4];
    uint8_t qs[16];
};
BLOCK_SIZE(block_q5_0, 22);
BLOCK_AT(block_q5_0, qh, 2);
BLOCK_AT(block_q5_0, qs, 6);

/* w = d * q + m, q in 0..31 as in Q5_0. */
struct BLOCK_PACKED block_q5_1 {
    block_half d;
    block_half m;
    uint8_t qh[4];
    uint8_t qs[16];
};
BLOCK_SIZE(block_q5_1, 24);
BLOCK_AT(block_q5_1, qh, 4);
BLOCK_AT(block_q5_1, qs, 8);

/* w[i] = d * qs[i]. */
struct BLOCK_PACKED block_q8_0 {
    block_half d;
    int8_t qs[32];
};
BLOCK_SIZE(block_q8_0, 34);
BLOCK_AT(block_q8_0, qs, 2);

/* Q8_0 with s = d * sum of qs; an intermediate form of other engines, never in a weight file. */
struct BLOCK_PACKED block_q8_1 {
    block_half d;
    block_half s;
    int8_t qs[32];
};
BLOCK_SIZE(block_q8_1, 36);
BLOCK_AT(block_q8_1, qs, 4);

/* --- super-blocks of 256 ------------------------------------------------------------------------- */

/* Eight groups of 32. Group g has a 6-bit scale s and a 6-bit minimum m; w = d * s * q - dmin * m. In `scales`,
 * for g < 4: s = scales[g] & 63, m = scales[g + 4] & 63; for g >= 4: s = lo(scales[g + 4]) with scales[g - 4] >> 6
 * as bits 4 and 5, m = hi(scales[g + 4]) with scales[g] >> 6 as bits 4 and 5.
 * qs: 32 bytes for each pair of groups, the even group in the low nibbles. */
struct BLOCK_PACKED block_q4_k {
    block_half d;
    block_half dmin;
    uint8_t scales[12];
    uint8_t qs[128];
};
BLOCK_SIZE(block_q4_k, 144);
BLOCK_AT(block_q4_k, scales, 4);
BLOCK_AT(block_q4_k, qs, 16);

/* Two halves of 128. In a half, with l in 0..31: weights l, l+32 take lo(ql[l]), lo(ql[l + 32]) and bits 0-1, 2-3 of
 * qh[l]; weights l+64, l+96 take hi(ql[l]), hi(ql[l + 32]) and bits 4-5, 6-7. w = d * scales[i / 16] * (q - 32). */
struct BLOCK_PACKED block_q6_k {
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16];
    block_half d;
};
BLOCK_SIZE(block_q6_k, 210);
BLOCK_AT(block_q6_k, qh, 128);
BLOCK_AT(block_q6_k, scales, 192);
BLOCK_AT(block_q6_k, d, 208);

#endif
