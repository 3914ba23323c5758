/* Small float formats and F32, exact and branch-light; plain C for the reference paths. */
#ifndef KERNELS_HALF_H
#define KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

static inline float half_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static inline uint32_t half_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* IEEE binary16; subnormals, infinities and NaN payloads as the hardware converts them. */
static inline float half_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t body = (uint32_t)(h & 0x7fff) << 13;
    if (body >= 0x7c00u << 13) { /* infinity, or a NaN made quiet */
        return half_from_bits(sign | 0x7f800000u | body | (body & 0x7fffff ? 0x400000 : 0));
    }
    /* 2^112 moves the exponent from bias 15 to bias 127 and normalises subnormals; exact. */
    return half_from_bits(sign | half_bits(half_from_bits(body) * 0x1p112f));
}

/* Round to nearest even; overflow to infinity; NaN stays (quiet) NaN. */
static inline uint16_t half_from_f32(float f)
{
    uint32_t bits = half_bits(f);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t abs = bits & 0x7fffffff;
    uint32_t out;
    if (abs > 0x7f800000u) {
        out = 0x7e00 | (abs >> 13 & 0x3ff);
    } else if (abs >= 0x477ff000u) { /* 65520: rounds past the largest finite value */
        out = 0x7c00;
    } else if (abs < 0x38800000u) { /* below 2^-14: the addition rounds at bit 2^-24 */
        out = half_bits(half_from_bits(abs) + 0.5f) - 0x3f000000u;
    } else {
        out = (abs - 0x38000000u + 0xfff + (abs >> 13 & 1)) >> 13;
    }
    return (uint16_t)(sign | out);
}

static inline float half_bf16_to_f32(uint16_t h)
{
    return half_from_bits((uint32_t)h << 16);
}

/* Round to nearest even; NaN stays (quiet) NaN. */
static inline uint16_t half_bf16_from_f32(float f)
{
    uint32_t bits = half_bits(f);
    if ((bits & 0x7fffffff) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40);
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
