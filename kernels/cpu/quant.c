/* Scalar decoders of the plain floats and the blocks of 32, and the table of all decoders.
 * Pure functions; any thread. */
#include "kernels/quant.h"

#include "kernels/block.h"
#include "kernels/cpu/quant_types.h"
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

static void decode_q4_0(const void *blocks, float *y, int64_t n)
{
    const struct block_q4_0 *b = blocks;
    for (; n > 0; n -= 32, b++, y += 32) {
        float d = half_to_f32(b->d);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)((b->qs[i] & 15) - 8);
            y[i + 16] = d * (float)((b->qs[i] >> 4) - 8);
        }
    }
}

static void decode_q8_0(const void *blocks, float *y, int64_t n)
{
    const struct block_q8_0 *b = blocks;
    for (; n > 0; n -= 32, b++, y += 32) {
        float d = half_to_f32(b->d);
        for (int i = 0; i < 32; i++) {
            y[i] = d * (float)b->qs[i];
        }
    }
}

quant_decode_fn *quant_decoder(enum type t)
{
    static quant_decode_fn *const decoders[TYPE_ID_END] = {
        [TYPE_F32] = decode_f32,
        [TYPE_F16] = decode_f16,
        [TYPE_BF16] = decode_bf16,
        [TYPE_Q4_0] = decode_q4_0,
        [TYPE_Q8_0] = decode_q8_0,
        [TYPE_Q4_K] = quant_decode_q4_k,
        [TYPE_Q6_K] = quant_decode_q6_k,
    };
    return (unsigned)t < TYPE_ID_END ? decoders[t] : NULL;
}
