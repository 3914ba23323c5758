/* One vector of floats in the widest registers that this file is compiled for: 16 with AVX-512, 8 with
 * AVX2. Only for files that are compiled with those instructions (see kernels/CMakeLists.txt). */
#ifndef KERNELS_CPU_LANE_H
#define KERNELS_CPU_LANE_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)

enum { LANES = 16 };
#define LANE __m512
#define lane_load(p) _mm512_loadu_ps(p)
#define lane_store(p, v) _mm512_storeu_ps(p, v)
#define lane_set(x) _mm512_set1_ps(x)
#define lane_zero() _mm512_setzero_ps()
#define lane_add(a, b) _mm512_add_ps(a, b)
#define lane_sub(a, b) _mm512_sub_ps(a, b)
#define lane_mul(a, b) _mm512_mul_ps(a, b)
#define lane_div(a, b) _mm512_div_ps(a, b)
#define lane_max(a, b) _mm512_max_ps(a, b)
#define lane_min(a, b) _mm512_min_ps(a, b)
#define lane_fma(a, b, c) _mm512_fmadd_ps(a, b, c) /* a * b + c */
#define lane_addsub_fma(a, b, c) _mm512_fmaddsub_ps(a, b, c)
#define lane_swap_pairs(a) _mm512_permute_ps(a, 0xb1)
#define lane_abs(a) _mm512_abs_ps(a)

static inline LANE lane_load_n(const float *p, int64_t n, float fill)
{
    return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), (__mmask16)((1u << n) - 1), p);
}
static inline void lane_store_n(float *p, LANE v, int64_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
}
/* a where x < y, else b */
static inline LANE lane_less(LANE x, LANE y, LANE a, LANE b)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_LT_OQ), b, a);
}
/* v * 2^n for whole n */
static inline LANE lane_scale_2(LANE v, LANE n)
{
    return _mm512_scalef_ps(v, n);
}
static inline LANE lane_round(LANE v)
{
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline LANE lane_sign_of(LANE magnitude, LANE sign)
{
    return _mm512_or_ps(magnitude, _mm512_and_ps(sign, _mm512_set1_ps(-0.0f)));
}
static inline float lane_sum(LANE v)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
static inline float lane_greatest(LANE v)
{
    return _mm512_reduce_max_ps(v);
}
/* Each of 8 values twice. */
static inline LANE lane_load_doubled(const float *p)
{
    const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    return _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}
static inline LANE lane_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline void lane_store_f16(uint16_t *p, LANE v)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
static inline LANE lane_load_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

#else

enum { LANES = 8 };
#define LANE __m256
#define lane_load(p) _mm256_loadu_ps(p)
#define lane_store(p, v) _mm256_storeu_ps(p, v)
#define lane_set(x) _mm256_set1_ps(x)
#define lane_zero() _mm256_setzero_ps()
#define lane_add(a, b) _mm256_add_ps(a, b)
#define lane_sub(a, b) _mm256_sub_ps(a, b)
#define lane_mul(a, b) _mm256_mul_ps(a, b)
#define lane_div(a, b) _mm256_div_ps(a, b)
#define lane_max(a, b) _mm256_max_ps(a, b)
#define lane_min(a, b) _mm256_min_ps(a, b)
#define lane_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define lane_addsub_fma(a, b, c) _mm256_fmaddsub_ps(a, b, c)
#define lane_swap_pairs(a) _mm256_permute_ps(a, 0xb1)
#define lane_abs(a) _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a)

static inline LANE lane_load_n(const float *p, int64_t n, float fill)
{
    float tmp[LANES];
    for (int i = 0; i < LANES; i++) {
        tmp[i] = i < n ? p[i] : fill;
    }
    return _mm256_loadu_ps(tmp);
}
static inline void lane_store_n(float *p, LANE v, int64_t n)
{
    float tmp[LANES];
    _mm256_storeu_ps(tmp, v);
    memcpy(p, tmp, (size_t)n * sizeof *p);
}
static inline LANE lane_less(LANE x, LANE y, LANE a, LANE b)
{
    return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, y, _CMP_LT_OQ));
}
/* For -126 <= n <= 127 and one step beyond: half of n at a time stays in range. */
static inline LANE lane_scale_2(LANE v, LANE n)
{
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    __m256i bias = _mm256_set1_epi32(127), rest = _mm256_sub_epi32(whole, half);
    __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i b = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(v, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
}
static inline LANE lane_round(LANE v)
{
    return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline LANE lane_sign_of(LANE magnitude, LANE sign)
{
    return _mm256_or_ps(magnitude, _mm256_and_ps(sign, _mm256_set1_ps(-0.0f)));
}
static inline float lane_sum(LANE v)
{
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
static inline float lane_greatest(LANE v)
{
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
static inline LANE lane_load_doubled(const float *p)
{
    const __m256i twice = _mm256_set_epi32(3, 3, 2, 2, 1, 1, 0, 0);
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), twice);
}
static inline LANE lane_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline void lane_store_f16(uint16_t *p, LANE v)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
static inline LANE lane_load_bf16(const uint16_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

#endif

/* e^x for -88 <= x <= 89. The interval is reduced to |r| <= ln 2 / 2; the polynomial was fitted
 * there (error 1e-8). */
static inline LANE lane_exp_inside(LANE x)
{
    LANE n = lane_round(lane_mul(x, lane_set(1.44269504088896341f)));
    LANE r = lane_fma(n, lane_set(-0.693359375f), x);
    r = lane_fma(n, lane_set(2.12194440e-4f), r);
    LANE p = lane_set(1.392617612e-3f);
    p = lane_fma(p, r, lane_set(8.363173075e-3f));
    p = lane_fma(p, r, lane_set(4.166655466e-2f));
    p = lane_fma(p, r, lane_set(1.666657703e-1f));
    p = lane_fma(p, r, lane_set(0.5f));
    p = lane_fma(p, lane_mul(r, r), lane_add(r, lane_set(1.0f)));
    return lane_scale_2(p, n);
}

/* e^x to 2 units in the last place for x <= 0; 0 below -87; e^0 is 1. (max and min give their
 * second operand where one is NaN: so NaN stays.) */
static inline LANE lane_exp_down(LANE x)
{
    LANE y = lane_exp_inside(lane_max(lane_set(-88.0f), x));
    return lane_less(x, lane_set(-87.0f), lane_zero(), y);
}

/* The same for every x: infinity from 88.73 on. */
static inline LANE lane_exp(LANE x)
{
    LANE y = lane_exp_down(lane_min(lane_set(89.0f), x));
    return lane_less(lane_set(88.72f), x, lane_set(INFINITY), y);
}

static inline LANE lane_sigmoid(LANE x)
{
    LANE one = lane_set(1.0f);
    return lane_div(one, lane_add(one, lane_exp(lane_sub(lane_zero(), x))));
}

/* tanh to 3 units in the last place: a polynomial for small x, where the exponential form cancels. */
static inline LANE lane_tanh(LANE x)
{
    LANE u = lane_mul(x, x), a = lane_abs(x), one = lane_set(1.0f);
    LANE p = lane_set(-6.096708216e-3f);
    p = lane_fma(p, u, lane_set(2.099717375e-2f));
    p = lane_fma(p, u, lane_set(-5.385090803e-2f));
    p = lane_fma(p, u, lane_set(1.333276972e-1f));
    p = lane_fma(p, u, lane_set(-3.333332894e-1f));
    LANE small = lane_fma(lane_mul(p, u), x, x);
    LANE e = lane_exp(lane_add(a, a));
    LANE large = lane_sub(one, lane_div(lane_set(2.0f), lane_add(e, one)));
    return lane_less(a, lane_set(0.625f), small, lane_sign_of(large, x));
}

/* The error function to 2e-7 absolute (Abramowitz and Stegun 7.1.26). */
static inline LANE lane_erf(LANE x)
{
    LANE a = lane_abs(x), one = lane_set(1.0f);
    LANE t = lane_div(one, lane_fma(a, lane_set(0.3275911f), one));
    LANE p = lane_set(1.061405429f);
    p = lane_fma(p, t, lane_set(-1.453152027f));
    p = lane_fma(p, t, lane_set(1.421413741f));
    p = lane_fma(p, t, lane_set(-0.284496736f));
    p = lane_fma(p, t, lane_set(0.254829592f));
    LANE e = lane_exp(lane_sub(lane_zero(), lane_mul(a, a)));
    return lane_sign_of(lane_sub(one, lane_mul(lane_mul(p, t), e)), x);
}

#endif
