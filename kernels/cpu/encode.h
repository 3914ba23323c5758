/* The encoders by type, for the table in encode.c, and what they share. */
#ifndef KERNELS_CPU_ENCODE_H
#define KERNELS_CPU_ENCODE_H

#include "kernels/quant.h"

quant_encode_fn encode_q2_k, encode_q3_k, encode_q4_k, encode_q5_k, encode_q6_k;

/* Copies n weights, held within +-1e9 (no format here reaches that, and squares stay finite), and
 * their importances, 1 where there are none and never 0, so that every weight counts a little.
 * False when some x is NaN or infinite: such a block is encoded so that it decodes to NaN. */
bool encode_take(const float *x, const float *importance, int n, float *ret_x, float *ret_w);
void encode_codes(const float *codes, int n, int8_t *q);
/* To binary16, saturating at the largest finite value. */
uint16_t encode_half(float f);

enum { ENCODE_HALF_NAN = 0x7e00 };

#endif
