/* The vector vocabulary of the CPU kernels: one source, compiled for AVX-512 (VNNI, VBMI), for AVX2
 * with AVX-VNNI, and for AVX2 alone. A vector holds SIMD_ROWS rows of a panel, 32 bits each; AVX2
 * sees a panel as two halves.
 *
 * Sums of integers are exact and every float operation is the same one on each target (fused where
 * it says fma), so all targets give the same bits. */
#ifndef KERNELS_CPU_SIMD_H
#define KERNELS_CPU_SIMD_H

#include "shared/base.h"

#include <immintrin.h>
#include <string.h>

#define SIMD_INLINE static inline __attribute__((always_inline))

SIMD_INLINE int32_t simd_word(const void *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
SIMD_INLINE uint64_t simd_long(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

SIMD_INLINE int32_t simd_sum16(__m128i v) /* of 16 signed bytes */
{
    __m128i s = _mm_sad_epu8(_mm_xor_si128(v, _mm_set1_epi8((char)0x80)), _mm_setzero_si128());
    return _mm_cvtsi128_si32(s) + _mm_extract_epi16(s, 4) - 16 * 128;
}

/* The sum of eight, in the same order everywhere. */
SIMD_INLINE float simd_sum8(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

#if defined(__AVX512F__)

enum { SIMD_ROWS = 16, SIMD_HALVES = 1, SIMD_HAS_WIDE_DOT = 1 };
#define simd_i __m512i
#define simd_f __m512

SIMD_INLINE simd_i simd_load(const void *p)
{
    return _mm512_loadu_si512(p);
}
SIMD_INLINE void simd_store(void *p, simd_i v)
{
    _mm512_storeu_si512(p, v);
}
SIMD_INLINE simd_f simd_load_f32(const void *p)
{
    return _mm512_loadu_ps(p);
}
SIMD_INLINE void simd_store_f32(float *p, simd_f v)
{
    _mm512_storeu_ps(p, v);
}
SIMD_INLINE simd_f simd_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
SIMD_INLINE simd_i simd_load_u8(const void *p) /* SIMD_ROWS bytes to 32 bits each */
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(p));
}
SIMD_INLINE simd_i simd_load_s8(const void *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(p));
}
SIMD_INLINE simd_i simd_load_u16(const void *p)
{
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(p));
}
/* Row r of 16: nibble r / 8 of byte r % 8. */
SIMD_INLINE simd_i simd_load_row_nibbles(const void *p, int half)
{
    (void)half;
    const __m128i mask = _mm_set1_epi8(15);
    __m128i v = _mm_loadl_epi64(p);
    __m128i high = _mm_and_si128(_mm_srli_epi16(v, 4), mask);
    return _mm512_cvtepu8_epi32(_mm_unpacklo_epi64(_mm_and_si128(v, mask), high));
}
SIMD_INLINE simd_f simd_from_f16_bits(simd_i v) /* the low 16 bits of each row */
{
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v));
}
SIMD_INLINE simd_i simd_set8(int v)
{
    return _mm512_set1_epi8((char)v);
}
SIMD_INLINE simd_i simd_set32(int v)
{
    return _mm512_set1_epi32(v);
}
SIMD_INLINE simd_f simd_set_f32(float v)
{
    return _mm512_set1_ps(v);
}
SIMD_INLINE simd_i simd_table(const int8_t t[16]) /* for simd_look_up */
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)t));
}
SIMD_INLINE simd_i simd_look_up(simd_i table, simd_i index) /* bytes; indices 0..15 */
{
    return _mm512_shuffle_epi8(table, index);
}
SIMD_INLINE simd_i simd_gather(const uint32_t *table, simd_i index)
{
    return _mm512_i32gather_epi32(index, table, 4);
}
/* Bytes of a table of n (256, 512 or 1024), indices with bits 8 and 9 in masks. */
SIMD_INLINE __m512i simd_look_up_bytes(const uint8_t *table, const int n, __m512i index,
                                       uint64_t bit8, uint64_t bit9)
{
    if (n > 512) {
        __m512i low = simd_look_up_bytes(table, 512, index, bit8, 0);
        __m512i high = simd_look_up_bytes(table + 512, 512, index, bit8, 0);
        return _mm512_mask_blend_epi8(_cvtu64_mask64(bit9), low, high);
    }
    if (n > 256) {
        __m512i low = simd_look_up_bytes(table, 256, index, 0, 0);
        __m512i high = simd_look_up_bytes(table + 256, 256, index, 0, 0);
        return _mm512_mask_blend_epi8(_cvtu64_mask64(bit8), low, high);
    }
    __m512i low = _mm512_permutex2var_epi8(simd_load(table), index, simd_load(table + 64));
    __m512i high = _mm512_permutex2var_epi8(simd_load(table + 128), index, simd_load(table + 192));
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
}
/* The words of 64 indices, four for each row, ordered as PANEL_INDICES says; planes: their bytes.
 */
SIMD_INLINE void simd_look_up_words(const uint32_t *words, const uint8_t *planes, const int n,
                                    const uint8_t index[64], uint64_t bit8, uint64_t bit9, int half,
                                    simd_i ret[4])
{
    (void)words;
    (void)half;
    __m512i i = simd_load(index), p[4];
#pragma GCC unroll 4
    for (int b = 0; b < 4; b++) {
        p[b] = simd_look_up_bytes(planes + b * n, n, i, bit8, bit9);
    }
    __m512i low01 = _mm512_unpacklo_epi8(p[0], p[1]), high01 = _mm512_unpackhi_epi8(p[0], p[1]);
    __m512i low23 = _mm512_unpacklo_epi8(p[2], p[3]), high23 = _mm512_unpackhi_epi8(p[2], p[3]);
    ret[0] = _mm512_unpacklo_epi16(low01, low23);
    ret[1] = _mm512_unpackhi_epi16(low01, low23);
    ret[2] = _mm512_unpacklo_epi16(high01, high23);
    ret[3] = _mm512_unpackhi_epi16(high01, high23);
}
#define simd_shift_right16(v, n) _mm512_srli_epi16(v, n)
#define simd_shift_left16(v, n) _mm512_slli_epi16(v, n)
#define simd_shift_right32(v, n) _mm512_srli_epi32(v, n)
#define simd_shift_left32(v, n) _mm512_slli_epi32(v, n)
#define simd_shift_right_signed32(v, n) _mm512_srai_epi32(v, n)
SIMD_INLINE simd_i simd_and(simd_i a, simd_i b)
{
    return _mm512_and_si512(a, b);
}
SIMD_INLINE simd_i simd_or(simd_i a, simd_i b)
{
    return _mm512_or_si512(a, b);
}
SIMD_INLINE simd_i simd_or_and(simd_i a, simd_i b, simd_i mask) /* a | (b & mask) */
{
    return _mm512_ternarylogic_epi32(a, b, mask, 0xf8);
}
SIMD_INLINE simd_i simd_add8(simd_i a, simd_i b)
{
    return _mm512_add_epi8(a, b);
}
SIMD_INLINE simd_i simd_add32(simd_i a, simd_i b)
{
    return _mm512_add_epi32(a, b);
}
SIMD_INLINE simd_i simd_zero_where_equal(simd_i a,
                                         simd_i b) /* a, but 0 in rows where it equals b */
{
    return _mm512_maskz_mov_epi32(_mm512_cmpneq_epi32_mask(a, b), a);
}
SIMD_INLINE simd_i simd_mul32(simd_i a, simd_i b)
{
    return _mm512_mullo_epi32(a, b);
}
/* base + v where a byte's mask bit is 0, base - v where it is 1. */
SIMD_INLINE simd_i simd_signed8(simd_i base, simd_i v, uint64_t mask)
{
    return _mm512_mask_sub_epi8(_mm512_add_epi8(base, v), _cvtu64_mask64(mask), base, v);
}
SIMD_INLINE simd_f simd_to_f32(simd_i v)
{
    return _mm512_cvtepi32_ps(v);
}
SIMD_INLINE simd_f simd_as_f32(simd_i v)
{
    return _mm512_castsi512_ps(v);
}
SIMD_INLINE simd_f simd_mul(simd_f a, simd_f b)
{
    return _mm512_mul_ps(a, b);
}
SIMD_INLINE simd_f simd_add(simd_f a, simd_f b)
{
    return _mm512_add_ps(a, b);
}
SIMD_INLINE simd_f simd_fma(simd_f a, simd_f b, simd_f c)
{
    return _mm512_fmadd_ps(a, b, c);
}
SIMD_INLINE simd_f simd_neg(simd_f a)
{
    return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}

/* The largest |x| of 16 as its bits: a NaN counts as larger than anything. */
SIMD_INLINE int32_t simd_peak_bits16(const float *x)
{
    const __m512i mask = _mm512_set1_epi32(0x7fffffff);
    return _mm512_reduce_max_epi32(_mm512_and_si512(_mm512_loadu_si512(x), mask));
}
/* q = x * inverse rounded to nearest even, saturated, of 16; returns their sum. */
SIMD_INLINE int32_t simd_quantize16(const float *x, float inverse, int8_t *q)
{
    __m512 v = _mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inverse));
    __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v));
    _mm_storeu_si128((void *)q, bytes);
    return simd_sum16(bytes);
}

/* The sum of (x * inverse)^2 of 16. */
SIMD_INLINE float simd_square16(const float *x, float inverse)
{
    __m512 v = _mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inverse));
    v = _mm512_mul_ps(v, v);
    return simd_sum8(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
}
/* q = x * inverse rounded to nearest even, saturated, of 16. */
SIMD_INLINE void simd_quantize_words16(const float *x, float inverse, int16_t *q)
{
    __m512 v = _mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inverse));
    _mm256_storeu_si256((void *)q, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v)));
}

SIMD_INLINE simd_i simd_dot4(simd_i acc, simd_i w, simd_i x)
{
    return _mm512_dpbusd_epi32(acc, w, x);
}
/* acc + w . x, two signed 16-bit numbers a row. */
SIMD_INLINE simd_i simd_dot2(simd_i acc, simd_i w, simd_i x)
{
    return _mm512_dpwssd_epi32(acc, w, x);
}
/* sum[t * step] += n quads of w (unsigned codes of at most `limit`) times token t's x (signed, 4
 * bytes a quad; tokens x_stride apart). Quad by quad, since a chain of dot products waits for
 * itself. Written out, because compilers take the broadcast for an instruction of its own. */
SIMD_INLINE void simd_dots(simd_i *sum, const int step, const simd_i *w, const int8_t *const *x,
                           const int tokens, const int n, const int limit)
{
    (void)limit;
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++) {
            const int32_t *quad = (const void *)(x[t] + 4 * i);
            __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum[t * step]) : "v"(w[i]), "m"(*quad));
        }
    }
}

#elif defined(__AVX2__)

#if defined(__AVXVNNI__)
enum { SIMD_HAS_WIDE_DOT = 1 };
#else
enum { SIMD_HAS_WIDE_DOT = 0 };
#endif
enum { SIMD_ROWS = 8, SIMD_HALVES = 2 };
#define simd_i __m256i
#define simd_f __m256

SIMD_INLINE simd_i simd_load(const void *p)
{
    return _mm256_loadu_si256(p);
}
SIMD_INLINE void simd_store(void *p, simd_i v)
{
    _mm256_storeu_si256(p, v);
}
SIMD_INLINE simd_f simd_load_f32(const void *p)
{
    return _mm256_loadu_ps(p);
}
SIMD_INLINE void simd_store_f32(float *p, simd_f v)
{
    _mm256_storeu_ps(p, v);
}
SIMD_INLINE simd_f simd_load_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}
SIMD_INLINE simd_i simd_load_u8(const void *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(p));
}
SIMD_INLINE simd_i simd_load_s8(const void *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(p));
}
SIMD_INLINE simd_i simd_load_u16(const void *p)
{
    return _mm256_cvtepu16_epi32(_mm_loadu_si128(p));
}
SIMD_INLINE simd_i simd_load_row_nibbles(const void *p, int half)
{
    __m128i v = _mm_loadl_epi64(p);
    v = half ? _mm_srli_epi16(v, 4) : v;
    return _mm256_cvtepu8_epi32(_mm_and_si128(v, _mm_set1_epi8(15)));
}
SIMD_INLINE simd_f simd_from_f16_bits(simd_i v)
{
    __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi32(v, v), 0x08);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(both));
}
SIMD_INLINE simd_i simd_set8(int v)
{
    return _mm256_set1_epi8((char)v);
}
SIMD_INLINE simd_i simd_set32(int v)
{
    return _mm256_set1_epi32(v);
}
SIMD_INLINE simd_f simd_set_f32(float v)
{
    return _mm256_set1_ps(v);
}
SIMD_INLINE simd_i simd_table(const int8_t t[16])
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)t));
}
SIMD_INLINE simd_i simd_look_up(simd_i table, simd_i index)
{
    return _mm256_shuffle_epi8(table, index);
}
SIMD_INLINE simd_i simd_gather(const uint32_t *table, simd_i index)
{
    return _mm256_i32gather_epi32((const int *)table, index, 4);
}
SIMD_INLINE void simd_look_up_words(const uint32_t *words, const uint8_t *planes, const int n,
                                    const uint8_t index[64], uint64_t bit8, uint64_t bit9, int half,
                                    simd_i ret[4])
{
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 1 << 16, 2 << 16, 4 << 16, 8 << 16);
    (void)planes;
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) { /* rows 8 half .. + 3, then 4 rows 16 bytes on */
        const int at = 32 * half + 4 * g;
        __m256i i = _mm256_cvtepu8_epi32(
            _mm_set_epi32(0, 0, simd_word(index + at + 16), simd_word(index + at)));
        for (int b = 8; 1 << b < n; b++) {
            __m256i m = _mm256_set1_epi32((int)((b == 8 ? bit8 : bit9) >> at));
            m = _mm256_cmpeq_epi32(_mm256_and_si256(m, bits), bits);
            i = _mm256_or_si256(i, _mm256_and_si256(m, _mm256_set1_epi32(1 << b)));
        }
        ret[g] = simd_gather(words, i);
    }
}
#define simd_shift_right16(v, n) _mm256_srli_epi16(v, n)
#define simd_shift_left16(v, n) _mm256_slli_epi16(v, n)
#define simd_shift_right32(v, n) _mm256_srli_epi32(v, n)
#define simd_shift_left32(v, n) _mm256_slli_epi32(v, n)
#define simd_shift_right_signed32(v, n) _mm256_srai_epi32(v, n)
SIMD_INLINE simd_i simd_and(simd_i a, simd_i b)
{
    return _mm256_and_si256(a, b);
}
SIMD_INLINE simd_i simd_or(simd_i a, simd_i b)
{
    return _mm256_or_si256(a, b);
}
SIMD_INLINE simd_i simd_or_and(simd_i a, simd_i b, simd_i mask)
{
    return simd_or(a, simd_and(b, mask));
}
SIMD_INLINE simd_i simd_add8(simd_i a, simd_i b)
{
    return _mm256_add_epi8(a, b);
}
SIMD_INLINE simd_i simd_add32(simd_i a, simd_i b)
{
    return _mm256_add_epi32(a, b);
}
SIMD_INLINE simd_i simd_zero_where_equal(simd_i a, simd_i b)
{
    return _mm256_andnot_si256(_mm256_cmpeq_epi32(a, b), a);
}
SIMD_INLINE simd_i simd_mul32(simd_i a, simd_i b)
{
    return _mm256_mullo_epi32(a, b);
}
SIMD_INLINE simd_i simd_signed8(simd_i base, simd_i v, uint64_t mask) /* the low 32 bits of mask */
{
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                            2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bits = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i m = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int)mask), spread), bits);
    m = _mm256_cmpeq_epi8(m, bits);
    return _mm256_add_epi8(base, _mm256_sub_epi8(_mm256_xor_si256(v, m), m));
}
SIMD_INLINE simd_f simd_to_f32(simd_i v)
{
    return _mm256_cvtepi32_ps(v);
}
SIMD_INLINE simd_f simd_as_f32(simd_i v)
{
    return _mm256_castsi256_ps(v);
}
SIMD_INLINE simd_f simd_mul(simd_f a, simd_f b)
{
    return _mm256_mul_ps(a, b);
}
SIMD_INLINE simd_f simd_add(simd_f a, simd_f b)
{
    return _mm256_add_ps(a, b);
}
SIMD_INLINE simd_f simd_fma(simd_f a, simd_f b, simd_f c)
{
    return _mm256_fmadd_ps(a, b, c);
}
SIMD_INLINE simd_f simd_neg(simd_f a)
{
    return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f));
}

SIMD_INLINE int32_t simd_peak_bits16(const float *x)
{
    const __m256i mask = _mm256_set1_epi32(0x7fffffff);
    __m256i m = _mm256_max_epi32(_mm256_and_si256(simd_load(x), mask),
                                 _mm256_and_si256(simd_load(x + 8), mask));
    __m128i n = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    n = _mm_max_epi32(n, _mm_shuffle_epi32(n, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(n, _mm_shuffle_epi32(n, 0xb1)));
}
SIMD_INLINE int32_t simd_quantize16(const float *x, float inverse, int8_t *q)
{
    const __m256 scale = _mm256_set1_ps(inverse);
    __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(simd_load_f32(x), scale));
    __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(simd_load_f32(x + 8), scale));
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((void *)q, bytes);
    return simd_sum16(bytes);
}

SIMD_INLINE float simd_square16(const float *x, float inverse)
{
    const __m256 scale = _mm256_set1_ps(inverse);
    __m256 a = _mm256_mul_ps(simd_load_f32(x), scale);
    __m256 b = _mm256_mul_ps(simd_load_f32(x + 8), scale);
    return simd_sum8(_mm256_add_ps(_mm256_mul_ps(a, a), _mm256_mul_ps(b, b)));
}
SIMD_INLINE void simd_quantize_words16(const float *x, float inverse, int16_t *q)
{
    const __m256 scale = _mm256_set1_ps(inverse);
    __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(simd_load_f32(x), scale));
    __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(simd_load_f32(x + 8), scale));
    simd_store(q, _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8));
}

#if defined(__AVXVNNI__)
SIMD_INLINE simd_i simd_dot2(simd_i acc, simd_i w, simd_i x)
{
    return _mm256_dpwssd_avx_epi32(acc, w, x);
}
SIMD_INLINE simd_i simd_dot4(simd_i acc, simd_i w, simd_i x)
{
    return _mm256_dpbusd_avx_epi32(acc, w, x);
}
SIMD_INLINE void simd_dots(simd_i *sum, const int step, const simd_i *w, const int8_t *const *x,
                           const int tokens, const int n, const int limit)
{
    (void)limit;
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++) {
            const simd_i quad = simd_set32(simd_word(x[t] + 4 * i));
            sum[t * step] = simd_dot4(sum[t * step], w[i], quad);
        }
    }
}
#else
/* Sums of integers may be made in any order, so compilers make a tree of a chain of additions, whose leaves
 * are more than there are registers. A sum that goes through here stays a chain: F16's products are
 * twice as fast, others by a tenth to a third. */
SIMD_INLINE simd_i simd_chain(simd_i sum)
{
    __asm__("" : "+x"(sum));
    return sum;
}
SIMD_INLINE simd_i simd_dot2(simd_i acc, simd_i w, simd_i x)
{
    return simd_chain(_mm256_add_epi32(acc, _mm256_madd_epi16(w, x)));
}
/* vpmaddubsw adds two products in 16 bits: codes of at most 127 cannot overflow there, and smaller
 * ones leave room to add several quads before widening. A limit of 255 means codes that stand for
 * code - 128: those are taken as signed, the sign moved to x, and the result is the sum over code -
 * 128. */
SIMD_INLINE int simd_quads_together(const int limit)
{
    return limit <= 15 ? 8 : limit <= 31 ? 4 : limit <= 63 ? 2 : 1;
}
SIMD_INLINE simd_i simd_pairs(simd_i w, simd_i x, const int limit)
{
    if (limit < 255) {
        return _mm256_maddubs_epi16(w, x);
    }
    simd_i s = _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
    return _mm256_maddubs_epi16(_mm256_abs_epi8(s), _mm256_sign_epi8(x, s));
}
SIMD_INLINE simd_i simd_widen16(simd_i v) /* sums of pairs */
{
    return _mm256_madd_epi16(v, _mm256_set1_epi16(1));
}
SIMD_INLINE simd_i simd_dot(simd_i acc, const simd_i *w, const int8_t *x, const int n,
                            const int limit)
{
    const int together = simd_quads_together(limit);
    simd_i sum = acc;
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
        simd_i part = simd_pairs(w[i], simd_set32(simd_word(x + 4 * i)), limit);
        sum = simd_chain(i % together == 0 ? part : _mm256_add_epi16(sum, part));
        if ((i + 1) % together == 0 || i + 1 == n) {
            acc = simd_chain(_mm256_add_epi32(acc, simd_widen16(sum)));
        }
    }
    return acc;
}
SIMD_INLINE void simd_dots(simd_i *sum, const int step, const simd_i *w, const int8_t *const *x,
                           const int tokens, const int n, const int limit)
{
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++) {
        sum[t * step] = simd_dot(sum[t * step], w, x[t], n, limit);
    }
}
/* sum[t * step + v] += n quads of `vecs` vectors of weights that stand in memory, quads 64 bytes
 * apart, vectors w_stride, as simd_dot does it: an x fetched once serves all vectors. */
SIMD_INLINE void simd_dots_wide(simd_i *sum, const int step, const char *w, size_t w_stride,
                                const int vecs, const int8_t *const *x, const int tokens,
                                const int n, const int limit)
{
    const int together = simd_quads_together(limit);
    simd_i part[2 * 4]; /* by token, then vector */
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
        simd_i quad[2];
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) {
            quad[v] = simd_load(w + (size_t)v * w_stride + 64 * i);
        }
#pragma GCC unroll 4
        for (int t = 0; t < tokens; t++) {
            const simd_i xt = simd_set32(simd_word(x[t] + 4 * i));
#pragma GCC unroll 2
            for (int v = 0; v < vecs; v++) {
                simd_i *to = &part[t * 2 + v], *all = &sum[t * step + v];
                const simd_i pairs = simd_pairs(quad[v], xt, limit);
                *to = simd_chain(i % together == 0 ? pairs : _mm256_add_epi16(*to, pairs));
                if ((i + 1) % together == 0 || i + 1 == n) {
                    *all = simd_chain(_mm256_add_epi32(*all, simd_widen16(*to)));
                }
            }
        }
    }
}
#endif

#else
#error "simd.h is for files compiled for AVX2 or AVX-512"
#endif

#if defined(__AVX512F__) || defined(__AVXVNNI__)
/* sum[t * step + v] += n quads of `vecs` vectors of weights that stand in memory, quads 64 bytes
 * apart, vectors w_stride, times the tokens' x: an x fetched once serves all vectors. */
SIMD_INLINE void simd_dots_wide(simd_i *sum, const int step, const char *w, size_t w_stride,
                                const int vecs, const int8_t *const *x, const int tokens,
                                const int n, const int limit)
{
    (void)limit;
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
        simd_i quad[2];
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) {
            quad[v] = simd_load(w + (size_t)v * w_stride + 64 * i);
        }
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++) {
            const simd_i xt = simd_set32(simd_word(x[t] + 4 * i));
#pragma GCC unroll 2
            for (int v = 0; v < vecs; v++) {
                sum[t * step + v] = simd_dot4(sum[t * step + v], quad[v], xt);
            }
        }
    }
}
#endif

#endif
