/* The K types: super-blocks whose groups have small integer scales. Pure functions; any thread. */
#include "kernels/block.h"
#include "kernels/cpu/split.h"
#include "kernels/half.h"

void split_k_scale_min(const uint8_t s[12], int g, uint8_t *ret_scale, uint8_t *ret_min)
{
    if (g < 4) {
        *ret_scale = s[g] & 63;
        *ret_min = s[g + 4] & 63;
    } else {
        *ret_scale = (uint8_t)((s[g + 4] & 15) | s[g - 4] >> 6 << 4);
        *ret_min = (uint8_t)(s[g + 4] >> 4 | s[g] >> 6 << 4);
    }
}

int split_q3_k_scale(const uint8_t s[12], int g)
{
    int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4;
    return low | (s[8 + g % 4] >> g / 4 * 2 & 3) << 4;
}

static int two_bits(const uint8_t qs[64], int i)
{
    return qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
}

void split_q2_k(const void *block, struct split *s)
{
    const struct block_q2_k *b = block;
    float d = half_to_f32(b->d), dmin = half_to_f32(b->dmin);
    for (int i = 0; i < BLOCK_SUPER; i++) {
        s->q[i] = (int8_t)two_bits(b->qs, i);
    }
    for (int g = 0; g < 16; g++) {
        s->scale[g] = d * (float)(b->scales[g] & 15);
        s->min[g] = -(dmin * (float)(b->scales[g] >> 4));
    }
}

void split_q3_k(const void *block, struct split *s)
{
    const struct block_q3_k *b = block;
    float d = half_to_f32(b->d);
    for (int i = 0; i < BLOCK_SUPER; i++) {
        s->q[i] = (int8_t)(two_bits(b->qs, i) - (b->hmask[i % 32] >> i / 32 & 1 ? 0 : 4));
    }
    for (int g = 0; g < 16; g++) {
        s->scale[g] = d * (float)(split_q3_k_scale(b->scales, g) - 32);
        s->min[g] = 0;
    }
}

static void groups_of_32(const uint8_t scales[12], float d, float dmin, struct split *s)
{
    for (int g = 0; g < 16; g++) {
        uint8_t scale, min;
        split_k_scale_min(scales, g / 2, &scale, &min);
        s->scale[g] = d * (float)scale;
        s->min[g] = -(dmin * (float)min);
    }
}

void split_q4_k(const void *block, struct split *s)
{
    const struct block_q4_k *b = block;
    for (int i = 0; i < BLOCK_SUPER; i++) {
        s->q[i] = (int8_t)(b->qs[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15);
    }
    groups_of_32(b->scales, half_to_f32(b->d), half_to_f32(b->dmin), s);
}

void split_q5_k(const void *block, struct split *s)
{
    const struct block_q5_k *b = block;
    for (int i = 0; i < BLOCK_SUPER; i++) {
        int low = b->qs[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15;
        s->q[i] = (int8_t)(low | (b->qh[i % 32] >> i / 32 & 1) << 4);
    }
    groups_of_32(b->scales, half_to_f32(b->d), half_to_f32(b->dmin), s);
}

void split_q6_k(const void *block, struct split *s)
{
    const struct block_q6_k *b = block;
    float d = half_to_f32(b->d);
    for (int i = 0; i < BLOCK_SUPER; i++) {
        int half = i / 128, quarter = i / 32 % 4, l = i % 32;
        int low = b->ql[half * 64 + quarter % 2 * 32 + l] >> quarter / 2 * 4 & 15;
        int high = b->qh[half * 32 + l] >> quarter * 2 & 3;
        s->q[i] = (int8_t)((low | high << 4) - 32);
    }
    for (int g = 0; g < 16; g++) {
        s->scale[g] = d * (float)b->scales[g];
        s->min[g] = 0;
    }
}

void split_q8_k(const void *block, struct split *s)
{
    const struct block_q8_k *b = block;
    memcpy(s->q, b->qs, sizeof b->qs);
    for (int g = 0; g < 16; g++) {
        s->scale[g] = b->d;
        s->min[g] = 0;
    }
}
