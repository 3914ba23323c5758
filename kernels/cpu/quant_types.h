/* The decoders and encoders by type, for the tables in quant.c. */
#ifndef KERNELS_CPU_QUANT_TYPES_H
#define KERNELS_CPU_QUANT_TYPES_H

#include "kernels/quant.h"

quant_decode_fn quant_decode_q4_k, quant_decode_q6_k;

#endif
