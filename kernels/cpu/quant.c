/* Scalar decoders to float: the plain floats, and every quantized type by way of split.h.
 * Pure functions; any thread. */
#include "kernels/quant.h"

#include "kernels/cpu/split.h"
#include "kernels/half.h"

#include <string.h>

static void decode_f32(const void *blocks, float *y, int64_t n)
{
    memcpy(y, blocks, (size_t)n * sizeof *y);
}

static void decode_f16(const void *blocks, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, (const char *)blocks + 2 * i, sizeof h);
        y[i] = half_to_f32(h);
    }
}

static void decode_bf16(const void *blocks, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, (const char *)blocks + 2 * i, sizeof h);
        y[i] = half_bf16_to_f32(h);
    }
}

static void decode_split(enum type t, const void *blocks, float *y, int64_t n)
{
    split_fn *split = split_of(t);
    int64_t block_elems = type_info(t)->block_elems;
    const char *block = blocks;
    struct split s;
    for (; n > 0; n -= block_elems, block += type_info(t)->block_bytes, y += block_elems) {
        split(block, &s);
        for (int64_t i = 0; i < block_elems; i++) {
            y[i] = s.scale[i / 16] * (float)s.q[i] + s.min[i / 16];
        }
    }
}

/* clang-format off */
#define SPLIT_TYPES(X)                                                                             \
    X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(Q8_K)        \
    X(IQ1_S) X(IQ1_M) X(IQ2_XXS) X(IQ2_XS) X(IQ2_S) X(IQ3_XXS) X(IQ3_S) X(IQ4_NL) X(IQ4_XS)        \
    X(TQ1_0) X(TQ2_0) X(Q1_0) X(Q2_0) X(MXFP4) X(NVFP4)
/* clang-format on */

#define DECODE(name)                                                                               \
    static void decode_##name(const void *blocks, float *y, int64_t n)                             \
    {                                                                                              \
        decode_split(TYPE_##name, blocks, y, n);                                                   \
    }
SPLIT_TYPES(DECODE)

quant_decode_fn *quant_decoder(enum type t)
{
#define ENTRY(name) [TYPE_##name] = decode_##name,
    static quant_decode_fn *const decoders[TYPE_ID_END] = {[TYPE_F32] = decode_f32,
                                                           [TYPE_F16] = decode_f16,
                                                           [TYPE_BF16] = decode_bf16,
                                                           SPLIT_TYPES(ENTRY)};
    return (unsigned)t < TYPE_ID_END ? decoders[t] : NULL;
}
