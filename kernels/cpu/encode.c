/* Encoders of the 16-bit floats and of blocks of 32, and the table of all. Pure functions; any
 * thread. */
#include "kernels/cpu/encode.h"

#include "kernels/block.h"
#include "kernels/cpu/fit.h"
#include "kernels/cpu/split.h"
#include "kernels/half.h"

#include <math.h>
#include <stdlib.h>

bool encode_take(const float *x, const float *importance, int n, float *ret_x, float *ret_w)
{
    bool is_finite = true;
    for (int i = 0; i < n; i++) {
        float w = importance ? importance[i] : 1.0f;
        ret_w[i] = w > 1e-12f && w < INFINITY ? w : 1e-12f;
        ret_x[i] = fminf(fmaxf(x[i], -1e9f), 1e9f);
        is_finite &= isfinite(x[i]) != 0;
    }
    return is_finite;
}

void encode_codes(const float *codes, int n, int8_t *q)
{
    for (int i = 0; i < n; i++) {
        q[i] = (int8_t)codes[i];
    }
}

uint16_t encode_half(float f)
{
    return half_from_f32(fminf(fmaxf(f, -65504.0f), 65504.0f));
}

static void encode_f32(const float *x, void *blocks, int64_t n, const float *importance)
{
    (void)importance;
    memcpy(blocks, x, (size_t)n * sizeof *x);
}

static void encode_f16(const float *x, void *blocks, int64_t n, const float *importance)
{
    (void)importance;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = half_from_f32(x[i]);
        memcpy((char *)blocks + 2 * i, &h, sizeof h);
    }
}

static void encode_bf16(const float *x, void *blocks, int64_t n, const float *importance)
{
    (void)importance;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = half_bf16_from_f32(x[i]);
        memcpy((char *)blocks + 2 * i, &h, sizeof h);
    }
}

/* The codes of 32 weights whose scale is stored as binary16. */
static uint16_t scale_block(const struct fit_codes *c, const float *x, const float *importance,
                            int8_t q[32])
{
    float y[32], w[32], codes[32];
    memset(q, 0, 32);
    if (!encode_take(x, importance, 32, y, w)) {
        return ENCODE_HALF_NAN;
    }
    uint16_t d = encode_half(fit_scale(c, y, w, 32));
    fit_round(c, y, w, 32, half_to_f32(d), codes);
    encode_codes(codes, 32, q);
    return d;
}

/* Nibbles and fifth bits, laid out as split.c reads them. */
static void put_nibbles(const int8_t q[32], int offset, uint8_t qs[16])
{
    for (int i = 0; i < 16; i++) {
        qs[i] = (uint8_t)(((q[i] + offset) & 15) | ((q[i + 16] + offset) & 15) << 4);
    }
}

static void put_fifth_bits(const int8_t q[32], int offset, uint8_t qh[4])
{
    memset(qh, 0, 4);
    for (int i = 0; i < 32; i++) {
        qh[i / 8] = (uint8_t)(qh[i / 8] | ((q[i] + offset) >> 4 & 1) << i % 8);
    }
}

#define FOR_BLOCKS(type, elems)                                                                    \
    struct type *b = blocks;                                                                       \
    for (; n > 0;                                                                                  \
         n -= (elems), x += (elems), b++, importance = importance ? importance + (elems) : NULL)

static void encode_q4_0(const float *x, void *blocks, int64_t n, const float *importance)
{
    int8_t q[32];
    FOR_BLOCKS (block_q4_0, 32) {
        b->d = scale_block(&(struct fit_codes){-8, 7, NULL, 1}, x, importance, q);
        put_nibbles(q, 8, b->qs);
    }
}

static void encode_q5_0(const float *x, void *blocks, int64_t n, const float *importance)
{
    int8_t q[32];
    FOR_BLOCKS (block_q5_0, 32) {
        b->d = scale_block(&(struct fit_codes){-16, 15, NULL, 1}, x, importance, q);
        put_nibbles(q, 16, b->qs);
        put_fifth_bits(q, 16, b->qh);
    }
}

static void encode_q8_0(const float *x, void *blocks, int64_t n, const float *importance)
{
    FOR_BLOCKS (block_q8_0, 32) {
        b->d = scale_block(&(struct fit_codes){-127, 127, NULL, 1}, x, importance, b->qs);
    }
}

/* The codes of 32 weights with scale and minimum, both stored as binary16. */
static void affine_block(int hi, const float *x, const float *importance, uint16_t *ret_d,
                         uint16_t *ret_m, int8_t q[32])
{
    float y[32], w[32], codes[32], d, m;
    memset(q, 0, 32);
    *ret_d = *ret_m = ENCODE_HALF_NAN;
    if (!encode_take(x, importance, 32, y, w)) {
        return;
    }
    fit_affine(hi, y, w, 32, INFINITY, &d, &m);
    *ret_d = encode_half(d);
    *ret_m = encode_half(m);
    fit_affine_round(hi, y, w, 32, half_to_f32(*ret_d), half_to_f32(*ret_m), codes);
    encode_codes(codes, 32, q);
}

static void encode_q4_1(const float *x, void *blocks, int64_t n, const float *importance)
{
    int8_t q[32];
    uint16_t d, m;
    FOR_BLOCKS (block_q4_1, 32) {
        affine_block(15, x, importance, &d, &m, q);
        b->d = d;
        b->m = m;
        put_nibbles(q, 0, b->qs);
    }
}

static void encode_q5_1(const float *x, void *blocks, int64_t n, const float *importance)
{
    int8_t q[32];
    uint16_t d, m;
    FOR_BLOCKS (block_q5_1, 32) {
        affine_block(31, x, importance, &d, &m, q);
        b->d = d;
        b->m = m;
        put_nibbles(q, 0, b->qs);
        put_fifth_bits(q, 0, b->qh);
    }
}

/* nearest[i + 128]: the one of 16 values that is nearest to i / steps. */
static void fill_nearest(const int8_t values[16], int steps, int8_t nearest[256])
{
    for (int i = -128; i < 128; i++) {
        int best = values[0];
        for (int k = 1; k < 16; k++) {
            best = abs(values[k] * steps - i) < abs(best * steps - i) ? values[k] : best;
        }
        nearest[i + 128] = (int8_t)best;
    }
}

static int8_t code_of(const int8_t values[16], int8_t value)
{
    int8_t code = 0;
    while (code < 15 && values[code] != value) {
        code++;
    }
    return code;
}

static void encode_iq4_nl(const float *x, void *blocks, int64_t n, const float *importance)
{
    int8_t nearest[256], q[32];
    fill_nearest(split_iq4_values, 1, nearest);
    FOR_BLOCKS (block_iq4_nl, 32) {
        b->d = scale_block(&(struct fit_codes){-127, 113, nearest, 1}, x, importance, q);
        for (int i = 0; i < 32; i++) {
            q[i] = code_of(split_iq4_values, q[i]);
        }
        put_nibbles(q, 0, b->qs);
    }
}

static void encode_mxfp4(const float *x, void *blocks, int64_t n, const float *importance)
{
    int8_t nearest[256], best[32];
    float y[32], w[32], codes[32];
    fill_nearest(split_e2m1_values, 8, nearest);
    struct fit_codes values = {-12, 12, nearest, 8};
    FOR_BLOCKS (block_mxfp4, 32) {
        memset(best, 0, sizeof best);
        b->e = 255;
        if (encode_take(x, importance, 32, y, w)) {
            float peak = 0, best_error = INFINITY;
            for (int i = 0; i < 32; i++) {
                peak = fmaxf(peak, fabsf(x[i]));
            }
            int exponent = peak > 0 ? ilogbf(peak) : -127;
            for (int i = 0; i < 32; i++) {
                y[i] = ldexpf(x[i], -exponent);
            }
            for (int k = -4; k < 0; k++) { /* the largest code stands for 3/4 to 6 */
                float error = fit_round(&values, y, w, 32, ldexpf(1.0f, k), codes);
                if (error < best_error) {
                    best_error = error;
                    b->e = (uint8_t)MIN(MAX(exponent + k + 128, 0), 254);
                    encode_codes(codes, 32, best);
                }
            }
        }
        for (int i = 0; i < 32; i++) {
            best[i] = code_of(split_e2m1_values, best[i]);
        }
        put_nibbles(best, 0, b->qs);
    }
}

quant_encode_fn *quant_encoder(enum type t)
{
    static quant_encode_fn *const encoders[TYPE_ID_END] = {
        [TYPE_F32] = encode_f32,   [TYPE_F16] = encode_f16,       [TYPE_BF16] = encode_bf16,
        [TYPE_Q4_0] = encode_q4_0, [TYPE_Q4_1] = encode_q4_1,     [TYPE_Q5_0] = encode_q5_0,
        [TYPE_Q5_1] = encode_q5_1, [TYPE_Q8_0] = encode_q8_0,     [TYPE_Q2_K] = encode_q2_k,
        [TYPE_Q3_K] = encode_q3_k, [TYPE_Q4_K] = encode_q4_k,     [TYPE_Q5_K] = encode_q5_k,
        [TYPE_Q6_K] = encode_q6_k, [TYPE_IQ4_NL] = encode_iq4_nl, [TYPE_MXFP4] = encode_mxfp4,
    };
    return (unsigned)t < TYPE_ID_END ? encoders[t] : NULL;
}
