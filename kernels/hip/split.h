/* Every tensor type, one weight at a time, in the file's form: w = scale * q + min, with the integer and the scale
 * that kernels/cpu/split.h gives. The only place on the GPU that reads blocks; layouts stand in kernels/block.h. */
#ifndef KERNELS_HIP_SPLIT_H
#define KERNELS_HIP_SPLIT_H

#include "kernels/block.h"
#include "kernels/hip/gpu.h"
#include "shared/type.h"

struct split_one {
    int q;
    float scale, min;
};

GPU_TABLE int8_t split_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};
GPU_TABLE int8_t split_e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Nibble i of a group of 2 n in n bytes: the low ones first. */
GPU_FN int split_nibble(const uint8_t *qs, int i, int n)
{
    return qs[i % n] >> i / n * 4 & 15;
}
GPU_FN int split_two_bits(const uint8_t *qs, int i)
{
    return qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
}
GPU_FN int split_trit(int byte, int n)
{
    int power = n == 0 ? 1 : n == 1 ? 3 : n == 2 ? 9 : n == 3 ? 27 : 81;
    return ((byte * power & 255) * 3 >> 8) - 1;
}
GPU_FN float split_e8m0(int e)
{
    return gpu_bits_f32(e == 255 ? 0x7fc00000u : e == 0 ? 0x200000u : e == 1 ? 0x400000u
                                                                  : (uint32_t)(e - 1) << 23);
}
/* Half of an unsigned E4M3 number. */
GPU_FN float split_e4m3(int e)
{
    int exponent = e >> 3 & 15, mantissa = e & 7;
    float power = gpu_bits_f32((uint32_t)(exponent == 0 ? 117 : exponent + 116) << 23);
    return (e & 127) == 127 ? 0.0f : (float)(exponent == 0 ? mantissa : 8 + mantissa) * power;
}

/* Scale and minimum of weight i of a Q4_K or Q5_K block. */
GPU_FN struct split_one split_k(const uint8_t *s, float d, float dmin, int i, int q)
{
    int g = i / 32;
    int scale = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
    int min = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
    return (struct split_one){q, d * (float)scale, -(dmin * (float)min)};
}

/* Weight i of a block. Types with codebooks (IQ1 .. IQ3) are not here. */
GPU_FN struct split_one split_weight(int type, const uint8_t *block, int i)
{
    switch (type) {
    case TYPE_Q4_0: {
        const struct block_q4_0 *b = (const struct block_q4_0 *)(const void *)block;
        return (struct split_one){split_nibble(b->qs, i, 16) - 8, gpu_f16_f32(b->d), 0};
    }
    case TYPE_Q4_1: {
        const struct block_q4_1 *b = (const struct block_q4_1 *)(const void *)block;
        return (struct split_one){split_nibble(b->qs, i, 16), gpu_f16_f32(b->d), gpu_f16_f32(b->m)};
    }
    case TYPE_Q5_0: {
        const struct block_q5_0 *b = (const struct block_q5_0 *)(const void *)block;
        int q = split_nibble(b->qs, i, 16) | (b->qh[i / 8] >> i % 8 & 1) << 4;
        return (struct split_one){q - 16, gpu_f16_f32(b->d), 0};
    }
    case TYPE_Q5_1: {
        const struct block_q5_1 *b = (const struct block_q5_1 *)(const void *)block;
        int q = split_nibble(b->qs, i, 16) | (b->qh[i / 8] >> i % 8 & 1) << 4;
        return (struct split_one){q, gpu_f16_f32(b->d), gpu_f16_f32(b->m)};
    }
    case TYPE_Q8_0: {
        const struct block_q8_0 *b = (const struct block_q8_0 *)(const void *)block;
        return (struct split_one){b->qs[i], gpu_f16_f32(b->d), 0};
    }
    case TYPE_IQ4_NL: {
        const struct block_iq4_nl *b = (const struct block_iq4_nl *)(const void *)block;
        return (struct split_one){split_iq4[split_nibble(b->qs, i, 16)], gpu_f16_f32(b->d), 0};
    }
    case TYPE_MXFP4: {
        const struct block_mxfp4 *b = (const struct block_mxfp4 *)(const void *)block;
        return (struct split_one){split_e2m1[split_nibble(b->qs, i, 16)], split_e8m0(b->e), 0};
    }
    case TYPE_NVFP4: {
        const struct block_nvfp4 *b = (const struct block_nvfp4 *)(const void *)block;
        int q = split_e2m1[split_nibble(b->qs + i / 16 * 8, i % 16, 8)];
        return (struct split_one){q, split_e4m3(b->d[i / 16]), 0};
    }
    case TYPE_Q2_0: {
        const struct block_q2_0 *b = (const struct block_q2_0 *)(const void *)block;
        return (struct split_one){(b->qs[i / 4] >> i % 4 * 2 & 3) - 1, gpu_f16_f32(b->d), 0};
    }
    case TYPE_Q1_0: {
        const struct block_q1_0 *b = (const struct block_q1_0 *)(const void *)block;
        return (struct split_one){(b->qs[i / 8] >> i % 8 & 1) * 2 - 1, gpu_f16_f32(b->d), 0};
    }
    case TYPE_Q2_K: {
        const struct block_q2_k *b = (const struct block_q2_k *)(const void *)block;
        int s = b->scales[i / 16];
        return (struct split_one){split_two_bits(b->qs, i), gpu_f16_f32(b->d) * (float)(s & 15),
                                  -(gpu_f16_f32(b->dmin) * (float)(s >> 4))};
    }
    case TYPE_Q3_K: {
        const struct block_q3_k *b = (const struct block_q3_k *)(const void *)block;
        int g = i / 16, low = g < 8 ? b->scales[g] & 15 : b->scales[g - 8] >> 4;
        int s = low | (b->scales[8 + g % 4] >> g / 4 * 2 & 3) << 4;
        int q = split_two_bits(b->qs, i) - (b->hmask[i % 32] >> i / 32 & 1 ? 0 : 4);
        return (struct split_one){q, gpu_f16_f32(b->d) * (float)(s - 32), 0};
    }
    case TYPE_Q4_K: {
        const struct block_q4_k *b = (const struct block_q4_k *)(const void *)block;
        int q = b->qs[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15;
        return split_k(b->scales, gpu_f16_f32(b->d), gpu_f16_f32(b->dmin), i, q);
    }
    case TYPE_Q5_K: {
        const struct block_q5_k *b = (const struct block_q5_k *)(const void *)block;
        int q = b->qs[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15;
        q |= (b->qh[i % 32] >> i / 32 & 1) << 4;
        return split_k(b->scales, gpu_f16_f32(b->d), gpu_f16_f32(b->dmin), i, q);
    }
    case TYPE_Q6_K: {
        const struct block_q6_k *b = (const struct block_q6_k *)(const void *)block;
        int half = i / 128, quarter = i / 32 % 4, l = i % 32;
        int low = b->ql[half * 64 + quarter % 2 * 32 + l] >> quarter / 2 * 4 & 15;
        int high = b->qh[half * 32 + l] >> quarter * 2 & 3;
        return (struct split_one){(low | high << 4) - 32,
                                  gpu_f16_f32(b->d) * (float)b->scales[i / 16], 0};
    }
    case TYPE_Q8_K: {
        const struct block_q8_k *b = (const struct block_q8_k *)(const void *)block;
        return (struct split_one){b->qs[i], b->d, 0};
    }
    case TYPE_TQ1_0: {
        const struct block_tq1_0 *b = (const struct block_tq1_0 *)(const void *)block;
        int q = i < 160   ? split_trit(b->qs[i % 32], i / 32)
                : i < 240 ? split_trit(b->qs[32 + i % 16], (i - 160) / 16)
                          : split_trit(b->qh[i % 4], (i - 240) / 4);
        return (struct split_one){q, gpu_f16_f32(b->d), 0};
    }
    case TYPE_TQ2_0: {
        const struct block_tq2_0 *b = (const struct block_tq2_0 *)(const void *)block;
        return (struct split_one){split_two_bits(b->qs, i) - 1, gpu_f16_f32(b->d), 0};
    }
    case TYPE_IQ4_XS: {
        const struct block_iq4_xs *b = (const struct block_iq4_xs *)(const void *)block;
        int g = i / 32, low = b->scales_low[g / 2] >> g % 2 * 4 & 15;
        int s = low | (b->scales_high >> 2 * g & 3) << 4;
        return (struct split_one){split_iq4[split_nibble(b->qs + 16 * g, i % 32, 16)],
                                  gpu_f16_f32(b->d) * (float)(s - 32), 0};
    }
    default:
        return (struct split_one){0, gpu_bits_f32(0x7fc00000u), 0}; /* NaN: not silently zero */
    }
}

#endif
