/* Weights as GEMV kernels read them: the file's bits, rearranged once at load into planes of aligned pieces.
 *
 * A matrix of n_rows x n_cols (n_cols a multiple of the type's block length) becomes planes, each row-major; a group
 * is 32 weights of a row:
 *   low    a group's lower 4 bits in 16 bytes: weight i < 16 in the low nibble of byte i, weight i + 16 in its high
 *          nibble; for Q8_0 its 32 signed bytes
 *   high   Q6_K: the upper 2 bits, 8 bytes a group: weight 16 h + 4 k + b at bit 8 b + 2 k of word h
 *   scale  2 bytes a group: Q4_0 and Q8_0 the binary16 scale; Q4_K the 6-bit scale and minimum; Q6_K
 *          the signed scales of both halves
 *   super  Q4_K: binary16 d and dmin for 8 groups; Q6_K: d and 0
 * The planes stand in this order in one buffer, each beginning at a multiple of 256 bytes. */
#ifndef KERNELS_HIP_PACK_H
#define KERNELS_HIP_PACK_H

#include "shared/base.h"
#include "shared/type.h"

struct pack_layout { /* offsets in the buffer, and its size */
    size_t low, high, scale, super;
    size_t n_bytes;
};

/* -ENOTSUP for types without a packed form. */
MUST_CHECK int pack_layout(enum type type, int64_t n_rows, int64_t n_cols,
                           struct pack_layout *ret);
/* Packs rows [row, row + n) of the file's form into the buffer of the whole matrix. */
void pack_rows(enum type type, const struct pack_layout *layout, const void *data, int64_t row,
               int64_t n, int64_t n_cols, void *buffer);

#endif
