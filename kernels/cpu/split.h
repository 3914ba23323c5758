/* Every quantized type in one shape: small integers and the scale (and minimum) of each group
 * of 16.
 *
 * w[i] = scale[i / 16] * q[i] + min[i / 16]. Decoders, packing and tests all read blocks through
 * this, so a block format is interpreted in one place. Signs and codebooks are resolved; q is the
 * format's own integer (E2M1 numbers doubled, IQ1 values times 8), so a scale may carry a power of
 * two. */
#ifndef KERNELS_CPU_SPLIT_H
#define KERNELS_CPU_SPLIT_H

#include "shared/base.h"
#include "shared/type.h"

struct split {
    int8_t q[256];
    float scale[16];
    float min[16]; /* 0 where the type has none */
};

/* Fills the first block-length elements and their groups. */
typedef void split_fn(const void *block, struct split *ret);

/* NULL for types that are not quantized weights. */
split_fn *split_of(enum type t);

/* By type, for the table. */
split_fn split_q4_0, split_q4_1, split_q5_0, split_q5_1, split_q8_0, split_iq4_nl, split_mxfp4,
    split_nvfp4, split_q2_0, split_q1_0, split_tq1_0, split_tq2_0;
split_fn split_q2_k, split_q3_k, split_q4_k, split_q5_k, split_q6_k, split_q8_k;
split_fn split_iq1_s, split_iq1_m, split_iq2_xxs, split_iq2_xs, split_iq2_s, split_iq3_xxs,
    split_iq3_s, split_iq4_xs;

/* The 6-bit scale and minimum of group g (0..7) of a Q4_K or Q5_K block. */
void split_k_scale_min(const uint8_t scales[12], int g, uint8_t *ret_scale, uint8_t *ret_min);
/* The 6-bit scale (0..63, 32 stands for 0) of group g (0..15) of a Q3_K block. */
int split_q3_k_scale(const uint8_t scales[12], int g);
/* 2^(e - 128), the scale of doubled E2M1 numbers; NaN for 255. */
float split_e8m0(uint8_t e);
/* Half of an unsigned E4M3 number. */
float split_e4m3(uint8_t e);

extern const int8_t split_iq4_values[16];
extern const int8_t split_e2m1_values[16]; /* doubled */

#endif
