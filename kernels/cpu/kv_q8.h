/* Groups of a Q8_0 KV cache (kernels/kv.h): to bytes and back. Both directions are the same
 * operations for every instruction set, so their results are the same bits. */
#ifndef KERNELS_CPU_KV_Q8_H
#define KERNELS_CPU_KV_Q8_H

#include "kernels/half.h"
#include "kernels/kv.h"

/* n values (one group at most), written `stride` bytes apart; returns the scale. The scale is
 * rounded first and what is divided by it is the rounded one, so that it costs no accuracy. A group
 * with a value that is not finite gets the scale NaN: the step that reads it fails, as with floats.
 */
static inline uint16_t kv_q8_put(int8_t *ret, int64_t stride, const float *x, int64_t n)
{
    uint32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        most = MAX(most, half_bits(x[i]) & 0x7fffffff);
    }
    const float magic = 0x1.8p23f; /* adding it rounds to a whole number, half to even */
    float biggest = half_from_bits(most) / 127;
    uint16_t scale = most >= 0x7f800000u ? 0x7e00 : half_from_f32(MIN(biggest, 65504.0f));
    float by = most < 0x7f800000u && scale ? 1 / half_to_f32(scale) : 0;
    for (int64_t i = 0; i < n; i++) {
        float q = by > 0 ? MIN(MAX(x[i] * by, -127.0f), 127.0f) + magic - magic : 0;
        ret[i * stride] = (int8_t)q;
    }
    return scale;
}

/* Keys of a block: kt[dim][KV_BLOCK]. */
static inline void kv_q8_keys(float *kt, const void *tile, int64_t dim)
{
    const uint16_t *scales = tile;
    const int8_t *q = (const int8_t *)(scales + kv_q8_groups(dim) * KV_BLOCK);
    for (int64_t first = 0; first < dim; first += KV_Q8_GROUP, scales += KV_BLOCK) {
        float scale[KV_BLOCK];
        for (int t = 0; t < KV_BLOCK; t++) {
            scale[t] = half_to_f32(scales[t]);
        }
        for (int64_t d = first; d < MIN(first + KV_Q8_GROUP, dim); d++) {
            for (int t = 0; t < KV_BLOCK; t++) {
                kt[d * KV_BLOCK + t] = (float)q[d * KV_BLOCK + t] * scale[t];
            }
        }
    }
}

/* The first n tokens' values: v[n][stride]. */
static inline void kv_q8_values(float *v, int64_t stride, const void *tile, int64_t n, int64_t dim)
{
    int64_t n_groups = (int64_t)kv_q8_groups(dim);
    const uint16_t *scales = tile;
    const int8_t *q = (const int8_t *)(scales + n_groups * KV_BLOCK);
    for (int64_t t = 0; t < n; t++) {
        for (int64_t g = 0; g < n_groups; g++) {
            float scale = half_to_f32(scales[t * n_groups + g]);
            int64_t end = MIN((g + 1) * KV_Q8_GROUP, dim);
            for (int64_t d = g * KV_Q8_GROUP; d < end; d++) {
                v[t * stride + d] = (float)q[t * dim + d] * scale;
            }
        }
    }
}

#endif
