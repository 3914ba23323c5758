/* Encoders of the K types. Each group is fitted alone; the scales are then rounded to the
 * super-block's small integers, neighbours of each integer are tried, the super-block's own scale
 * is solved again by least squares, and the neighbours are tried once more. Pure functions; any
 * thread. */
#include "kernels/block.h"
#include "kernels/cpu/encode.h"
#include "kernels/cpu/fit.h"
#include "kernels/half.h"

#include <math.h>
#include <string.h>

enum { ROUNDS = 2 };

/* --- symmetric: w = d * scale[g] * q, groups of 16 ------------------------------------------- */

struct symmetric {
    uint16_t d;
    int scale[16];
    int8_t q[256];
};

static int clamp_round(float v, int lo, int hi)
{
    return v > (float)lo ? v < (float)hi ? (int)lrintf(v) : hi : lo;
}

/* The best integer near the current one for each group; sets q. Returns the error of the block. */
static float choose_scales(const struct fit_codes *c, int lo, int hi, const float *x,
                           const float *w, float d, struct symmetric *s)
{
    float total = 0;
    for (int g = 0; g < 16; g++) {
        const float *xg = x + 16 * g, *wg = w + 16 * g;
        int first = s->scale[g];
        float best = INFINITY;
        for (int k = MAX(first - 1, lo); k <= MIN(first + 1, hi); k++) {
            float codes[16];
            float error = fit_round(c, xg, wg, 16, d * (float)k, codes);
            if (error < best) {
                best = error;
                s->scale[g] = k;
                encode_codes(codes, 16, s->q + 16 * g);
            }
        }
        total += best;
    }
    return total;
}

static float solve_d(const float *x, const float *w, const struct symmetric *s)
{
    double xa = 0, aa = 0;
    for (int i = 0; i < BLOCK_SUPER; i++) {
        double a = s->scale[i / 16] * s->q[i];
        xa += (double)w[i] * (double)x[i] * a;
        aa += (double)w[i] * a * a;
    }
    return aa > 0 ? (float)(xa / aa) : 0;
}

static void fit_symmetric(const struct fit_codes *c, int lo, int hi, const float *from,
                          const float *importance, struct symmetric *ret)
{
    float x[256], w[256], scale[16], peak = 0;
    memset(ret, 0, sizeof *ret);
    ret->d = ENCODE_HALF_NAN;
    if (!encode_take(from, importance, BLOCK_SUPER, x, w)) {
        return;
    }
    for (int g = 0; g < 16; g++) {
        scale[g] = fit_scale(c, x + 16 * g, w + 16 * g, 16);
        peak = fabsf(scale[g]) > fabsf(peak) ? scale[g] : peak;
    }
    ret->d = 0;
    float d = half_to_f32(encode_half(peak / (float)lo)), best = INFINITY;
    struct symmetric s = {0};
    for (int g = 0; g < 16; g++) {
        s.scale[g] = d != 0 ? clamp_round(scale[g] / d, lo, hi) : 0;
    }
    for (int round = 0; round <= ROUNDS && d != 0; round++) {
        float error = choose_scales(c, lo, hi, x, w, d, &s);
        if (error < best) {
            best = error;
            s.d = half_from_f32(d);
            *ret = s;
        }
        d = half_to_f32(encode_half(solve_d(x, w, &s)));
    }
}

/* --- affine: w = d * scale[g] * q - dmin * min[g] -------------------------------------------- */

struct affine {
    uint16_t d, dmin;
    int scale[16], min[16];
    int8_t q[256];
};

static float choose_pairs(int hi_code, int hi, int n, const float *x, const float *w, float d,
                          float dmin, struct affine *s)
{
    float total = 0;
    for (int g = 0; g < BLOCK_SUPER / n; g++) {
        const float *xg = x + n * g, *wg = w + n * g;
        int scale = s->scale[g], min = s->min[g];
        float best = INFINITY;
        for (int k = MAX(scale - 1, 0); k <= MIN(scale + 1, hi); k++) {
            for (int m = MAX(min - 1, 0); m <= MIN(min + 1, hi); m++) {
                float codes[32];
                float error =
                    fit_affine_round(hi_code, xg, wg, n, d * (float)k, -(dmin * (float)m), codes);
                if (error < best) {
                    best = error;
                    s->scale[g] = k;
                    s->min[g] = m;
                    encode_codes(codes, n, s->q + n * g);
                }
            }
        }
        total += best;
    }
    return total;
}

static void solve_pair(int n, const float *x, const float *w, const struct affine *s, float *d,
                       float *dmin)
{
    double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
    for (int i = 0; i < BLOCK_SUPER; i++) {
        double a = s->scale[i / n] * s->q[i], b = -s->min[i / n], wi = w[i], xi = x[i];
        aa += wi * a * a;
        ab += wi * a * b;
        bb += wi * b * b;
        xa += wi * xi * a;
        xb += wi * xi * b;
    }
    double det = aa * bb - ab * ab;
    double new_d = det > 0 ? (bb * xa - ab * xb) / det : aa > 0 ? xa / aa : 0;
    double new_dmin = det > 0 ? (aa * xb - ab * xa) / det : bb > 0 && aa <= 0 ? xb / bb : 0;
    *d = half_to_f32(encode_half((float)new_d));
    *dmin = half_to_f32(encode_half((float)new_dmin));
}

/* n: weights in a group; hi_code, hi: the largest q, the largest scale and min. */
static void fit_pairs(int hi_code, int hi, int n, const float *from, const float *importance,
                      struct affine *ret)
{
    float x[256], w[256], scale[16], min[16], peak = 0, peak_min = 0;
    memset(ret, 0, sizeof *ret);
    ret->d = ret->dmin = ENCODE_HALF_NAN;
    if (!encode_take(from, importance, BLOCK_SUPER, x, w)) {
        return;
    }
    for (int g = 0; g < BLOCK_SUPER / n; g++) {
        fit_affine(hi_code, x + n * g, w + n * g, n, 0, &scale[g], &min[g]);
        peak = fmaxf(peak, scale[g]);
        peak_min = fmaxf(peak_min, -min[g]);
    }
    float d = half_to_f32(encode_half(peak / (float)hi));
    float dmin = half_to_f32(encode_half(peak_min / (float)hi));
    float best = INFINITY;
    struct affine s = {0};
    for (int g = 0; g < BLOCK_SUPER / n; g++) {
        s.scale[g] = d > 0 ? clamp_round(scale[g] / d, 0, hi) : 0;
        s.min[g] = dmin > 0 ? clamp_round(-min[g] / dmin, 0, hi) : 0;
    }
    for (int round = 0; round <= ROUNDS; round++) {
        float error = choose_pairs(hi_code, hi, n, x, w, d, dmin, &s);
        if (error < best) {
            best = error;
            s.d = half_from_f32(d);
            s.dmin = half_from_f32(dmin);
            *ret = s;
        }
        solve_pair(n, x, w, &s, &d, &dmin);
    }
}

/* --- the layouts of kernels/block.h ---------------------------------------------------------- */

#define FOR_BLOCKS(type)                                                                           \
    struct type *b = blocks;                                                                       \
    for (; n > 0; n -= BLOCK_SUPER, x += BLOCK_SUPER, b++,                                         \
                  importance = importance ? importance + BLOCK_SUPER : NULL)

static void put_two_bits(const int8_t q[256], int offset, uint8_t qs[64])
{
    memset(qs, 0, 64);
    for (int i = 0; i < BLOCK_SUPER; i++) {
        uint8_t *to = &qs[i / 128 * 32 + i % 32];
        *to = (uint8_t)(*to | ((q[i] + offset) & 3) << i / 32 % 4 * 2);
    }
}

static void put_nibbles(const int8_t q[256], uint8_t qs[128])
{
    for (int i = 0; i < 128; i++) {
        const int8_t *from = q + i / 32 * 64 + i % 32;
        qs[i] = (uint8_t)((from[0] & 15) | (from[32] & 15) << 4);
    }
}

static void put_scale_min(const struct affine *s, uint8_t scales[12])
{
    for (int g = 0; g < 4; g++) {
        scales[g] = (uint8_t)(s->scale[g] | s->scale[g + 4] >> 4 << 6);
        scales[g + 4] = (uint8_t)(s->min[g] | s->min[g + 4] >> 4 << 6);
        scales[g + 8] = (uint8_t)((s->scale[g + 4] & 15) | (s->min[g + 4] & 15) << 4);
    }
}

void encode_q2_k(const float *x, void *blocks, int64_t n, const float *importance)
{
    struct affine s;
    FOR_BLOCKS (block_q2_k) {
        fit_pairs(3, 15, 16, x, importance, &s);
        b->d = s.d;
        b->dmin = s.dmin;
        put_two_bits(s.q, 0, b->qs);
        for (int g = 0; g < 16; g++) {
            b->scales[g] = (uint8_t)(s.scale[g] | s.min[g] << 4);
        }
    }
}

void encode_q3_k(const float *x, void *blocks, int64_t n, const float *importance)
{
    struct symmetric s;
    FOR_BLOCKS (block_q3_k) {
        fit_symmetric(&(struct fit_codes){-4, 3, NULL, 1}, -32, 31, x, importance, &s);
        b->d = s.d;
        put_two_bits(s.q, 4, b->qs);
        memset(b->hmask, 0, sizeof b->hmask);
        for (int i = 0; i < BLOCK_SUPER; i++) {
            b->hmask[i % 32] = (uint8_t)(b->hmask[i % 32] | (s.q[i] >= 0) << i / 32);
        }
        memset(b->scales, 0, sizeof b->scales);
        for (int g = 0; g < 16; g++) {
            unsigned k = (unsigned)(s.scale[g] + 32);
            b->scales[g % 8] = (uint8_t)(b->scales[g % 8] | (k & 15) << g / 8 * 4);
            b->scales[8 + g % 4] = (uint8_t)(b->scales[8 + g % 4] | k >> 4 << g / 4 * 2);
        }
    }
}

void encode_q4_k(const float *x, void *blocks, int64_t n, const float *importance)
{
    struct affine s;
    FOR_BLOCKS (block_q4_k) {
        fit_pairs(15, 63, 32, x, importance, &s);
        b->d = s.d;
        b->dmin = s.dmin;
        put_scale_min(&s, b->scales);
        put_nibbles(s.q, b->qs);
    }
}

void encode_q5_k(const float *x, void *blocks, int64_t n, const float *importance)
{
    struct affine s;
    FOR_BLOCKS (block_q5_k) {
        fit_pairs(31, 63, 32, x, importance, &s);
        b->d = s.d;
        b->dmin = s.dmin;
        put_scale_min(&s, b->scales);
        put_nibbles(s.q, b->qs);
        memset(b->qh, 0, sizeof b->qh);
        for (int i = 0; i < BLOCK_SUPER; i++) {
            b->qh[i % 32] = (uint8_t)(b->qh[i % 32] | (s.q[i] >> 4) << i / 32);
        }
    }
}

void encode_q6_k(const float *x, void *blocks, int64_t n, const float *importance)
{
    struct symmetric s;
    FOR_BLOCKS (block_q6_k) {
        fit_symmetric(&(struct fit_codes){-32, 31, NULL, 1}, -128, 127, x, importance, &s);
        b->d = s.d;
        for (int g = 0; g < 16; g++) {
            b->scales[g] = (int8_t)s.scale[g];
        }
        for (int i = 0; i < 128; i++) { /* byte i holds bits of four weights, 32 apart */
            int half = i / 64, l = i % 64;
            const int8_t *q = s.q + half * 128 + l;
            b->ql[i] = (uint8_t)(((q[0] + 32) & 15) | ((q[64] + 32) & 15) << 4);
            if (l < 32) {
                unsigned high = 0;
                for (int k = 0; k < 4; k++) {
                    high |= (unsigned)(q[32 * k] + 32) >> 4 << 2 * k;
                }
                b->qh[half * 32 + l] = (uint8_t)high;
            }
        }
    }
}
