/* Panels: quantized weights as the vector kernels read them. ISA-independent, so that a packed
 * matrix may be shared.
 *
 * A panel is PANEL_ROWS rows of the matrix, cut into the type's own blocks; a panel block holds the
 * same block of all sixteen rows, in the same number of bytes as the file (but TQ1_0, kept as
 * two-bit codes). Rows past the last are zero. Within a block, 32 consecutive columns are a unit,
 * and 4 consecutive columns a quad: the grain of the integer dot-product instructions. A plane is
 * 64 bytes, four for each row:
 *
 *     byte 4 r + i of plane p, unit u  <->  row r, column 32 u + 4 p + i        (p = 0..7)
 *
 * Codes of fewer bits share planes:
 *     nibbles     4 planes; plane p holds quad p in its low and quad p + 4 in its high nibbles
 *     two bits    2 planes; plane p holds quads p, p + 2, p + 4, p + 6 from the low bits up
 *     one bit     1 plane;  bit p of a byte belongs to quad p
 * A code is unsigned: the format's integer plus an offset (panel_info), or an index where the
 * format has a table. */
#ifndef KERNELS_CPU_PANEL_H
#define KERNELS_CPU_PANEL_H

#include "shared/base.h"
#include "shared/type.h"

enum { PANEL_ROWS = 16, PANEL_UNIT = 32 };

#define PANEL_NIBBLES(name, units) uint8_t name[units][4][64]
#define PANEL_TWO_BITS(name, units) uint8_t name[units][2][64]
#define PANEL_ONE_BIT(name, units) uint8_t name[units][64]
#define PANEL_HALFS(name) uint16_t name[PANEL_ROWS]

struct __attribute__((packed)) panel_q4_0 { /* also IQ4_NL: indices of its table */
    PANEL_NIBBLES(q, 1);
    PANEL_HALFS(d);
};
struct __attribute__((packed)) panel_q4_1 {
    PANEL_NIBBLES(q, 1);
    PANEL_HALFS(d);
    PANEL_HALFS(m);
};
struct __attribute__((packed)) panel_q5_0 {
    PANEL_NIBBLES(q, 1);
    PANEL_ONE_BIT(high, 1);
    PANEL_HALFS(d);
};
struct __attribute__((packed)) panel_q5_1 {
    PANEL_NIBBLES(q, 1);
    PANEL_ONE_BIT(high, 1);
    PANEL_HALFS(d);
    PANEL_HALFS(m);
};
struct __attribute__((packed)) panel_q8_0 {
    uint8_t q[1][8][64];
    PANEL_HALFS(d);
};
struct __attribute__((packed)) panel_mxfp4 {
    PANEL_NIBBLES(q, 1);
    uint8_t e[PANEL_ROWS];
};
struct __attribute__((packed)) panel_nvfp4 {
    PANEL_NIBBLES(q, 2);
    uint8_t e[4][PANEL_ROWS];
};
struct __attribute__((packed)) panel_q2_0 {
    PANEL_TWO_BITS(q, 2);
    PANEL_HALFS(d);
};
struct __attribute__((packed)) panel_q1_0 {
    PANEL_ONE_BIT(q, 4);
    PANEL_HALFS(d);
};
struct __attribute__((packed)) panel_tq2_0 { /* also TQ1_0 */
    PANEL_TWO_BITS(q, 8);
    PANEL_HALFS(d);
};

/* Sixteen numbers of 6 bits for each row: their low nibbles in a and b, their bits 4 and 5 in c. */
struct __attribute__((packed)) panel_six_bits {
    uint32_t a[PANEL_ROWS]; /* numbers 0..7, number n at bit 4 n */
    uint32_t b[PANEL_ROWS]; /* numbers 8..15 */
    uint32_t c[PANEL_ROWS]; /* number n at bit 2 n */
};

struct __attribute__((packed)) panel_q2_k {
    PANEL_TWO_BITS(q, 8);
    uint8_t scale_min[16][PANEL_ROWS]; /* of groups of 16 columns: scale low, min high nibble */
    PANEL_HALFS(d);
    PANEL_HALFS(dmin);
};
struct __attribute__((packed)) panel_q3_k {
    PANEL_TWO_BITS(q, 8);
    PANEL_ONE_BIT(high, 8);
    struct panel_six_bits scale; /* of 16 groups */
    PANEL_HALFS(d);
};
struct __attribute__((packed)) panel_q4_k {
    PANEL_NIBBLES(q, 8);
    struct panel_six_bits scale_min; /* scales of 8 units, then their minima */
    PANEL_HALFS(d);
    PANEL_HALFS(dmin);
};
struct __attribute__((packed)) panel_q5_k {
    PANEL_NIBBLES(q, 8);
    PANEL_ONE_BIT(high, 8);
    struct panel_six_bits scale_min;
    PANEL_HALFS(d);
    PANEL_HALFS(dmin);
};
struct __attribute__((packed)) panel_q6_k {
    PANEL_NIBBLES(q, 8);
    PANEL_TWO_BITS(high, 8);
    int8_t scale[16][PANEL_ROWS];
    PANEL_HALFS(d);
};
struct __attribute__((packed)) panel_q8_k {
    uint8_t q[8][8][64];
    float d[PANEL_ROWS];
};
struct __attribute__((packed)) panel_iq4_xs {
    PANEL_NIBBLES(q, 8);
    uint32_t scale_low[PANEL_ROWS]; /* nibble u of a number: unit u */
    uint16_t scale_high[PANEL_ROWS];
    PANEL_HALFS(d);
};

/* Signs of a unit as masks over a plane's bytes: bit 4 r + i of quads[p] is set where row r, column
 * 4 p + i is negative. */
struct __attribute__((packed)) panel_signs {
    uint64_t quads[8];
};
/* The same where the eighth sign of an octet makes the number of negatives even: octet o is quads 2
 * o (whole) and 2 o + 1 (three bits a row, bits 3 r .. 3 r + 2). */
struct __attribute__((packed)) panel_signs7 {
    uint64_t even[4];
    uint8_t odd[4][6];
};

/* Codebook indices of four octets or quads (n = 0..3) of a unit, in the order that look-ups in
 * registers hand out as planes: row r of n stands at byte 16 (r / 4) + 4 n + r % 4. Bits 8 and 9 of
 * indices that have them stand in masks over these bytes. */
#define PANEL_INDICES(name) uint8_t name[64]

/* Scales of four bits: byte r holds row r low, row r + 8 high. */
struct __attribute__((packed)) panel_iq2_xxs {
    PANEL_INDICES(index[8]);
    struct panel_signs7 signs[8];
    uint8_t scale[8][8];
    PANEL_HALFS(d);
};
struct __attribute__((packed)) panel_iq2_xs {
    PANEL_INDICES(index[8]);
    uint64_t index_high[8]; /* bit 8 */
    struct panel_signs7 signs[8];
    uint8_t scale[8][PANEL_ROWS]; /* low nibble: first 16 columns of the unit */
    PANEL_HALFS(d);
};
struct __attribute__((packed)) panel_iq2_s {
    PANEL_INDICES(index[8]);
    uint64_t index_high[8][2]; /* bits 8 and 9 */
    struct panel_signs signs[8];
    uint8_t scale[8][PANEL_ROWS];
    PANEL_HALFS(d);
};
struct __attribute__((packed)) panel_iq3_xxs {
    PANEL_INDICES(index[8][2]); /* quads 0..3, 4..7 */
    struct panel_signs7 signs[8];
    uint8_t scale[8][8];
    PANEL_HALFS(d);
};
struct __attribute__((packed)) panel_iq3_s {
    PANEL_INDICES(index[8][2]);
    uint64_t index_high[8][2]; /* bit 8 */
    struct panel_signs signs[8];
    uint8_t scale[8][8];
    PANEL_HALFS(d);
};
struct __attribute__((packed)) panel_iq1_s {
    uint8_t index[8][4][PANEL_ROWS];
    uint16_t high[8][PANEL_ROWS]; /* the format's qh */
    PANEL_HALFS(d);
};
struct __attribute__((packed)) panel_iq1_m {
    uint8_t index[8][4][PANEL_ROWS];
    uint8_t high[8][2][PANEL_ROWS]; /* the format's qh, by half group */
    uint16_t scale[4][PANEL_ROWS];  /* the format's words, with d in their top bits */
};

/* F16 and BF16 of whole units: 256 columns of each row share a scale, w ~ scale * q. Here a unit has 64
 * columns, the last of a row perhaps 32 and zeros: word 2 r + i of plane p, unit u is row r, column
 * 64 u + 2 p + i (p = 0..31). A panel's last block ends with its last unit. The scale is the least
 * that keeps every q within 15 bits and the length of each unit within MATMUL_WORDS_LENGTH: a weight
 * is off by about 5e-5 of a typical one, a quarter of what rounding to F16 costs. */
enum { PANEL_WORDS_UNIT = 64, PANEL_WORDS_UNITS = 4 };
struct panel_words {
    float scale[PANEL_ROWS];
    int16_t q[PANEL_WORDS_UNITS][PANEL_WORDS_UNIT / 2][2 * PANEL_ROWS];
};
/* Whether a matrix of n_cols columns has panels of this kind. */
bool panel_is_words(enum type t, int64_t n_cols);
/* Units of a row of n_cols. */
int64_t panel_words_units(int64_t n_cols);
/* Blocks of so many units. */
int64_t panel_words_blocks(int64_t n_units);

struct panel_info {
    uint16_t block_units; /* units of a block; 0: the type has no panels of this kind */
    uint16_t block_bytes; /* of a panel block */
};
/* Never NULL. */
const struct panel_info *panel_info(enum type t);

/* Bytes of a packed matrix; n_rows and n_cols as given to the loader. Also for F32, and for F16 and
 * BF16 of other than whole units, whose panels are columns of sixteen values. 0: no panels for this
 * type. */
size_t panel_bytes(enum type t, int64_t n_rows, int64_t n_cols);
/* Bytes from one panel to the next. */
size_t panel_stride(enum type t, int64_t n_cols);

/* Packs panel p (rows 16 p ...) of a matrix in the file's form into its place. */
void panel_pack(enum type t, const void *data, int64_t n_rows, int64_t n_cols, int64_t p,
                void *packed);

#endif
