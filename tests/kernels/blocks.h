/* Random blocks of every tensor type, with scales that are small ordinary numbers, so that decoded
 * weights are a few units at most. Everything else in a block is random bytes. */
#ifndef TESTS_KERNELS_BLOCKS_H
#define TESTS_KERNELS_BLOCKS_H

#include "kernels/block.h"
#include "kernels/half.h"
#include "kernels/quant.h"
#include "shared/type.h"
#include "tests/test.h"

#define BLOCKS_TYPES                                                                               \
    {TYPE_F32,    TYPE_F16,    TYPE_BF16,  TYPE_Q4_0,    TYPE_Q4_1,   TYPE_Q5_0,   TYPE_Q5_1,      \
     TYPE_Q8_0,   TYPE_Q2_K,   TYPE_Q3_K,  TYPE_Q4_K,    TYPE_Q5_K,   TYPE_Q6_K,   TYPE_Q8_K,      \
     TYPE_IQ1_S,  TYPE_IQ1_M,  TYPE_IQ2_XXS, TYPE_IQ2_XS, TYPE_IQ2_S, TYPE_IQ3_XXS, TYPE_IQ3_S,    \
     TYPE_IQ4_NL, TYPE_IQ4_XS, TYPE_TQ1_0, TYPE_TQ2_0,   TYPE_Q1_0,   TYPE_Q2_0,   TYPE_MXFP4,     \
     TYPE_NVFP4}
static const enum type blocks_types[] = BLOCKS_TYPES;
enum { BLOCKS_N_TYPES = sizeof blocks_types / sizeof *blocks_types };

/* Where a type keeps its binary16 scales; -1 ends the list. */
static inline void blocks_half_offsets(enum type t, int ret[3])
{
    int first = -1, second = -1;
    switch (t) {
    case TYPE_Q4_0: case TYPE_Q5_0: case TYPE_Q8_0: case TYPE_IQ4_NL: case TYPE_IQ4_XS:
    case TYPE_Q1_0: case TYPE_Q2_0: case TYPE_IQ1_S: case TYPE_IQ2_XXS: case TYPE_IQ2_XS:
    case TYPE_IQ2_S: case TYPE_IQ3_XXS: case TYPE_IQ3_S:
        first = 0;
        break;
    case TYPE_Q4_1: case TYPE_Q5_1: case TYPE_Q4_K: case TYPE_Q5_K:
        first = 0;
        second = 2;
        break;
    case TYPE_Q2_K:
        first = 80;
        second = 82;
        break;
    case TYPE_Q3_K:
        first = 108;
        break;
    case TYPE_Q6_K:
        first = 208;
        break;
    case TYPE_TQ1_0:
        first = 52;
        break;
    case TYPE_TQ2_0:
        first = 64;
        break;
    default:
        break;
    }
    ret[0] = first;
    ret[1] = second;
    ret[2] = -1;
}

/* Sets the block's scale (all of them, where it has several) to d. */
static inline void blocks_set_scale(enum type t, uint8_t *block, float d)
{
    uint16_t half = half_from_f32(d);
    int at[3];
    blocks_half_offsets(t, at);
    for (int i = 0; at[i] >= 0; i++) {
        memcpy(block + at[i], &half, 2);
    }
    if (t == TYPE_Q8_K) {
        memcpy(block, &d, 4);
    } else if (t == TYPE_IQ1_M) {
        for (int i = 0; i < 4; i++) {
            uint8_t *high = block + 48 + 2 * i + 1;
            *high = (uint8_t)((*high & 15) | (half >> 4 * i & 15) << 4);
        }
    }
}

static inline void blocks_fill(enum type t, void *blocks, int64_t n_elems, uint64_t *seed)
{
    uint8_t *b = blocks;
    const struct type_info *info = type_info(t);
    for (int64_t i = 0; i < n_elems; i += info->block_elems, b += info->block_bytes) {
        float f = (float)test_uniform(seed);
        if (t == TYPE_F32) {
            memcpy(b, &f, 4);
            continue;
        }
        if (t == TYPE_F16 || t == TYPE_BF16) {
            uint16_t h = t == TYPE_F16 ? half_from_f32(f) : half_bf16_from_f32(f);
            memcpy(b, &h, 2);
            continue;
        }
        for (uint32_t j = 0; j < info->block_bytes; j++) {
            b[j] = (uint8_t)test_random(seed);
        }
        blocks_set_scale(t, b, f * 0.05f);
        if (t == TYPE_MXFP4) {
            b[0] = (uint8_t)(118 + b[0] % 8);
        }
        for (int j = 0; t == TYPE_NVFP4 && j < 4; j++) {
            b[j] &= 0x3f;
        }
    }
}

#endif
