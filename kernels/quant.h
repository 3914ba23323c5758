/* Decoding and encoding of tensor blocks. The scalar forms here are the reference that every other
 * form (SIMD, GPU) is tested against; they follow the layouts of kernels/block.h. */
#ifndef KERNELS_QUANT_H
#define KERNELS_QUANT_H

#include "shared/base.h"
#include "shared/type.h"

/* n elements (a multiple of the block length) to float. Scalar, exact. */
typedef void quant_decode_fn(const void *blocks, float *y, int64_t n);
/* NULL for types that hold no weights (I8.. I64, F64 are not decodable either). */
quant_decode_fn *quant_decoder(enum type t);

/* The other way, for the types whose encoding is published (F16, BF16, Q4_0 .. Q8_0, K types,
 * MXFP4, IQ4_NL); NULL otherwise. importance (n weights) may be NULL. */
typedef void quant_encode_fn(const float *x, void *blocks, int64_t n, const float *importance);
quant_encode_fn *quant_encoder(enum type t);

#endif
