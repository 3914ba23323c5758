/* Packing of F32, F16 and BF16: columns of sixteen values, or 16-bit integers with a scale for 256
 * columns (struct panel_words). Pure. */
#include "kernels/cpu/matmul_kernel.h"
#include "kernels/cpu/panel_pack.h"
#include "kernels/half.h"

#include <math.h>
#include <string.h>

/* elem is a constant wherever this is inlined. */
static inline void pack_columns(const size_t elem, const char *from, size_t row_bytes, int n_rows,
                                int64_t n_cols, char *to)
{
    enum { COLS = 32 }; /* read from a row at a time: whole cache lines */
    for (int64_t k = 0; k < n_cols; k += COLS) {
        int64_t n = MIN(n_cols - k, COLS);
        for (int r = 0; r < PANEL_ROWS; r++) {
            for (int64_t i = 0; i < n; i++) {
                char *at = to + ((size_t)(k + i) * PANEL_ROWS + (size_t)r) * elem;
                if (r < n_rows) {
                    memcpy(at, from + (size_t)r * row_bytes + (size_t)(k + i) * elem, elem);
                } else {
                    memset(at, 0, elem);
                }
            }
        }
    }
}

void panel_pack_columns(enum type t, const char *from, size_t row_bytes, int n_rows, int64_t n_cols,
                        char *to)
{
    if (t == TYPE_F32) {
        pack_columns(4, from, row_bytes, n_rows, n_cols, to);
    } else {
        pack_columns(2, from, row_bytes, n_rows, n_cols, to);
    }
}

/* --- 16-bit integers ---------------------------------------------------------------------------
 *
 * Loops of a constant count over arrays without a choice inside: compilers make vectors of them. */

enum { PART = 32 };

static void part_to_floats(enum type t, const char *from, float *to)
{
    uint16_t h[PART];
    memcpy(h, from, sizeof h);
    if (t == TYPE_BF16) {
        for (int i = 0; i < PART; i++) {
            to[i] = half_bf16_to_f32(h[i]);
        }
        return;
    }
    for (int i = 0; i < PART; i++) { /* half_to_f32 without its branch */
        const uint32_t body = (uint32_t)(h[i] & 0x7fff) << 13, sign = (uint32_t)(h[i] & 0x8000) << 16;
        const uint32_t beyond = body >= 0x7c00u << 13 ? 0x7f800000u : 0;
        to[i] = half_from_bits(half_bits(half_from_bits(body) * 0x1p112f) | beyond | sign);
    }
}

static int32_t part_peak_bits(const float *w) /* a NaN is larger than anything */
{
    int32_t peak[8] = {0};
    for (int i = 0; i < PART; i += 8) {
        for (int k = 0; k < 8; k++) {
            int32_t bits = (int32_t)(half_bits(w[i + k]) & 0x7fffffff);
            peak[k] = MAX(peak[k], bits);
        }
    }
    for (int k = 1; k < 8; k++) {
        peak[0] = MAX(peak[0], peak[k]);
    }
    return peak[0];
}

static float part_square(const float *w, float inverse)
{
    float sum[8] = {0};
    for (int i = 0; i < PART; i += 8) {
        for (int k = 0; k < 8; k++) {
            float v = w[i + k] * inverse;
            sum[k] += v * v;
        }
    }
    for (int k = 1; k < 8; k++) {
        sum[0] += sum[k];
    }
    return sum[0];
}

/* Row r's words of a unit. Adding 1.5 * 2^23 rounds to an integer, which then is the low bits. */
static void put_words(const float *w, float inverse, int r, int16_t (*planes)[2 * PANEL_ROWS])
{
    uint32_t bits[PANEL_WORDS_UNIT];
    for (int i = 0; i < PANEL_WORDS_UNIT; i++) {
        bits[i] = half_bits(w[i] * inverse + 0x1.8p23f);
    }
    for (int p = 0; p < PANEL_WORDS_UNIT / 2; p++) {
        uint32_t pair = (bits[2 * p] & 0xffff) | bits[2 * p + 1] << 16;
        memcpy(&planes[p][2 * r], &pair, sizeof pair);
    }
}

/* n columns, a multiple of 32, of row r. */
static void pack_row(enum type t, const char *from, int n, int r, struct panel_words *to)
{
    float w[PANEL_WORDS_UNITS * PANEL_WORDS_UNIT] = {0}, square = 0;
    int32_t bits = 0;
    for (int i = 0; i < n; i += PART) {
        part_to_floats(t, from + (size_t)i * sizeof(uint16_t), w + i);
        bits = MAX(bits, part_peak_bits(w + i));
    }
    float peak = half_from_bits((uint32_t)bits);
    bool is_zero = peak < MATMUL_WORDS_ZERO, is_finite = isfinite(peak);
    for (int i = 0; i < n && !is_zero; i += PANEL_WORDS_UNIT) {
        square = fmaxf(square, part_square(w + i, 1 / peak) + part_square(w + i + PART, 1 / peak));
    }
    float limit = fminf(32767, MATMUL_WORDS_LENGTH / sqrtf(square));
    to->scale[r] = is_zero ? 0 : is_finite ? peak / limit : NAN;
    float inverse = is_zero || !is_finite ? 0 : limit / peak;
    for (int i = 0; i < n; i += PANEL_WORDS_UNIT) {
        put_words(w + i, inverse, r, to->q[i / PANEL_WORDS_UNIT]);
    }
}

void panel_pack_words(enum type t, const char *from, size_t row_bytes, int n_rows, int64_t n_cols,
                      char *to)
{
    enum { BLOCK = PANEL_WORDS_UNITS * PANEL_WORDS_UNIT };
    static const uint16_t zero[BLOCK];
    for (int64_t left = n_cols; left > 0; left -= BLOCK) {
        int n = (int)MIN(left, (int64_t)BLOCK);
        for (int r = 0; r < PANEL_ROWS; r++) {
            const char *row = r < n_rows ? from + (size_t)r * row_bytes : (const char *)zero;
            pack_row(t, row, n, r, (struct panel_words *)(void *)to);
        }
        from += (size_t)n * sizeof(uint16_t);
        to += sizeof(struct panel_words);
    }
}
