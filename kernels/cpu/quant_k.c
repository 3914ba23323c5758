/* Scalar decoders of the K types. Pure functions; any thread. */
#include "kernels/block.h"
#include "kernels/cpu/quant_types.h"
#include "kernels/half.h"

/* The 6-bit scale and minimum of group g (0..7) of a Q4_K or Q5_K block. */
static void scale_min(const uint8_t *s, int g, uint8_t *ret_scale, uint8_t *ret_min)
{
    if (g < 4) {
        *ret_scale = s[g] & 63;
        *ret_min = s[g + 4] & 63;
    } else {
        *ret_scale = (uint8_t)((s[g + 4] & 15) | s[g - 4] >> 6 << 4);
        *ret_min = (uint8_t)(s[g + 4] >> 4 | s[g] >> 6 << 4);
    }
}

void quant_decode_q4_k(const void *blocks, float *y, int64_t n)
{
    const struct block_q4_k *b = blocks;
    for (; n > 0; n -= BLOCK_SUPER, b++) {
        for (int g = 0; g < 8; g++, y += 32) {
            const uint8_t *qs = b->qs + g / 2 * 32;
            uint8_t scale, min;
            scale_min(b->scales, g, &scale, &min);
            float d = half_to_f32(b->d) * (float)scale;
            float m = half_to_f32(b->dmin) * (float)min;
            for (int i = 0; i < 32; i++) {
                y[i] = d * (float)(g & 1 ? qs[i] >> 4 : qs[i] & 15) - m;
            }
        }
    }
}

void quant_decode_q6_k(const void *blocks, float *y, int64_t n)
{
    const struct block_q6_k *b = blocks;
    for (; n > 0; n -= BLOCK_SUPER, b++, y += BLOCK_SUPER) {
        float d = half_to_f32(b->d);
        for (int i = 0; i < BLOCK_SUPER; i++) {
            int half = i / 128, quarter = i / 32 % 4, l = i % 32;
            int low = b->ql[half * 64 + (quarter & 1) * 32 + l] >> (quarter & 2) * 2 & 15;
            int high = b->qh[half * 32 + l] >> quarter * 2 & 3;
            y[i] = d * (float)b->scales[i / 16] * (float)((low | high << 4) - 32);
        }
    }
}
