/* Weights as GPU kernels read them: the file's bits, rearranged once at load so that a wave's 32 lanes, each with a
 * row of its own, load 16 bytes each from 512 that stand together.
 *
 * A matrix of n_rows x n_cols is cut into panels of 32 rows and chunks of 128 columns (four groups of 32); what is
 * missing at the ends is zeros. For each panel and chunk stand n_words words; a word is 16 bytes of each of the 32 rows:
 *   4-bit codes    word g: group g; weight i < 16 in the low nibble of byte i, weight i + 16 in its high nibble
 *   8-bit codes    words 2 g, 2 g + 1: group g
 *   2-bit codes    8 bytes a group; weight 4 j + b at bit 8 b + 2 (j % 4) of 32-bit word j / 4
 *   1-bit codes    4 bytes a group; weight 4 j + b at bit 8 b + j
 *   codebook types what the file has for the group, see pack.c
 *   F16, BF16      word w: columns 8 w to 8 w + 7; F32: 4 w to 4 w + 3
 * Upper bits (Q5, Q3_K: one, Q6_K: two) follow as further words. Then two planes:
 *   scale   8 or 16 bytes for each row of a chunk: a group's 2 or 4 bytes of scales (and minima) as the file has them
 *   super   types of 256: 4 bytes for each row and two chunks: the block's own scale (and scale of minima)
 * Each plane begins at a multiple of 256 bytes. */
#ifndef KERNELS_HIP_PACK_H
#define KERNELS_HIP_PACK_H

#include "kernels/hip/args.h"
#include "shared/base.h"
#include "shared/type.h"

struct pack_layout {
    int64_t scale_at, super_at; /* offsets of planes */
    int64_t n_bytes;            /* of the matrix; a multiple of 256 */
};

/* -ENOTSUP for types that hold no weights. n_cols is a multiple of the type's block length. */
MUST_CHECK int pack_layout(enum type type, int64_t n_rows, int64_t n_cols,
                           struct pack_layout *ret);
/* Packs rows [row, row + n) of the file's form into the buffer of the whole matrix, which was zeros. Rows of different
 * panels may be packed at the same time. */
void pack_rows(enum type type, const struct pack_layout *layout, const void *data, int64_t row,
               int64_t n, int64_t n_cols, void *buffer);

#endif
