/* Packing of the types whose weights are small integers or indices of 16 values, and the common entry. Pure. */
#include "kernels/cpu/panel_pack.h"

#include "kernels/block.h"
#include "kernels/cpu/split.h"
#include "kernels/half.h"
#include "shared/num.h"

#include <string.h>

#define SIZE_OF_16(name) _Static_assert(sizeof(struct panel_##name) == 16 * sizeof(struct block_##name), #name)
SIZE_OF_16(q4_0);
SIZE_OF_16(q4_1);
SIZE_OF_16(q5_0);
SIZE_OF_16(q5_1);
SIZE_OF_16(q8_0);
SIZE_OF_16(mxfp4);
SIZE_OF_16(nvfp4);
SIZE_OF_16(q2_0);
SIZE_OF_16(q1_0);
SIZE_OF_16(tq2_0);
SIZE_OF_16(q2_k);
SIZE_OF_16(q3_k);
SIZE_OF_16(q4_k);
SIZE_OF_16(q5_k);
SIZE_OF_16(q6_k);
SIZE_OF_16(iq4_xs);
SIZE_OF_16(iq2_xxs);
SIZE_OF_16(iq2_xs);
SIZE_OF_16(iq2_s);
SIZE_OF_16(iq3_xxs);
SIZE_OF_16(iq3_s);
SIZE_OF_16(iq1_s);
SIZE_OF_16(iq1_m);

/* The codes of a block of every row: the split integers plus an offset. */
static void codes_of(enum type t, const void *const rows[PANEL_ROWS], int offset, uint8_t (*ret)[256])
{
    split_fn *split = split_of(t);
    uint32_t n = type_info(t)->block_elems;
    struct split s;
    for (int r = 0; r < PANEL_ROWS; r++) {
        split(rows[r], &s);
        for (uint32_t i = 0; i < n; i++) {
            ret[r][i] = (uint8_t)(s.q[i] + offset);
        }
    }
}

/* The same for types with a table: the index of each integer in it. */
static void indices_of(enum type t, const void *const rows[PANEL_ROWS], const int8_t values[16],
                       uint8_t (*ret)[256])
{
    uint8_t index[256] = {0};
    for (int i = 15; i >= 0; i--) {
        index[values[i] + 128] = (uint8_t)i;
    }
    codes_of(t, rows, 128, ret);
    for (int r = 0; r < PANEL_ROWS; r++) {
        for (uint32_t i = 0; i < type_info(t)->block_elems; i++) {
            ret[r][i] = index[ret[r][i]];
        }
    }
}

static void put_bytes(uint8_t (*c)[256], int units, uint8_t (*to)[8][64])
{
    for (int u = 0; u < units; u++) {
        for (int q = 0; q < 8; q++) {
            for (int r = 0; r < PANEL_ROWS; r++) {
                memcpy(&to[u][q][4 * r], &c[r][32 * u + 4 * q], 4);
            }
        }
    }
}

/* Bits shift .. shift + bits - 1 of the codes, sharing planes as panel.h says. */
static void put_bits(uint8_t (*c)[256], int units, int shift, int bits, uint8_t *to)
{
    int planes = bits;
    memset(to, 0, (size_t)units * (size_t)planes * 64);
    for (int u = 0; u < units; u++) {
        for (int q = 0; q < 8; q++) {
            uint8_t *plane = to + (u * planes + q % planes) * 64;
            for (int r = 0; r < PANEL_ROWS; r++) {
                for (int i = 0; i < 4; i++) {
                    int field = c[r][32 * u + 4 * q + i] >> shift & ((1 << bits) - 1);
                    plane[4 * r + i] = (uint8_t)(plane[4 * r + i] | field << q / planes * bits);
                }
            }
        }
    }
}

static void put_nibbles(uint8_t (*c)[256], int units, uint8_t (*to)[4][64])
{
    put_bits(c, units, 0, 4, **to);
}
static void put_two_bits(uint8_t (*c)[256], int units, int shift, uint8_t (*to)[2][64])
{
    put_bits(c, units, shift, 2, **to);
}
static void put_one_bit(uint8_t (*c)[256], int units, int shift, uint8_t (*to)[64])
{
    put_bits(c, units, shift, 1, *to);
}

#define HALFS(to, block, field)                                                                    \
    for (int r = 0; r < PANEL_ROWS; r++) {                                                         \
        (to)[r] = ((const struct block *)rows[r])->field;                                          \
    }

static void pack_q4_0(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_q4_0 *p = to;
    codes_of(TYPE_Q4_0, rows, 8, c);
    put_nibbles(c, 1, p->q);
    HALFS(p->d, block_q4_0, d)
}

static void pack_iq4_nl(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_q4_0 *p = to;
    indices_of(TYPE_IQ4_NL, rows, split_iq4_values, c);
    put_nibbles(c, 1, p->q);
    HALFS(p->d, block_iq4_nl, d)
}

static void pack_q4_1(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_q4_1 *p = to;
    codes_of(TYPE_Q4_1, rows, 0, c);
    put_nibbles(c, 1, p->q);
    HALFS(p->d, block_q4_1, d)
    HALFS(p->m, block_q4_1, m)
}

static void pack_q5_0(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_q5_0 *p = to;
    codes_of(TYPE_Q5_0, rows, 16, c);
    put_nibbles(c, 1, p->q);
    put_one_bit(c, 1, 4, p->high);
    HALFS(p->d, block_q5_0, d)
}

static void pack_q5_1(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_q5_1 *p = to;
    codes_of(TYPE_Q5_1, rows, 0, c);
    put_nibbles(c, 1, p->q);
    put_one_bit(c, 1, 4, p->high);
    HALFS(p->d, block_q5_1, d)
    HALFS(p->m, block_q5_1, m)
}

static void pack_q8_0(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_q8_0 *p = to;
    codes_of(TYPE_Q8_0, rows, 128, c);
    put_bytes(c, 1, p->q);
    HALFS(p->d, block_q8_0, d)
}

static void pack_mxfp4(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_mxfp4 *p = to;
    indices_of(TYPE_MXFP4, rows, split_e2m1_values, c);
    put_nibbles(c, 1, p->q);
    HALFS(p->e, block_mxfp4, e)
}

static void pack_nvfp4(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_nvfp4 *p = to;
    indices_of(TYPE_NVFP4, rows, split_e2m1_values, c);
    put_nibbles(c, 2, p->q);
    for (int g = 0; g < 4; g++) {
        HALFS(p->e[g], block_nvfp4, d[g])
    }
}

static void pack_q2_0(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_q2_0 *p = to;
    codes_of(TYPE_Q2_0, rows, 1, c);
    put_two_bits(c, 2, 0, p->q);
    HALFS(p->d, block_q2_0, d)
}

static void pack_q1_0(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_q1_0 *p = to;
    codes_of(TYPE_Q1_0, rows, 1, c); /* 0 or 2 */
    put_one_bit(c, 4, 1, p->q);
    HALFS(p->d, block_q1_0, d)
}

static void pack_tq1_0(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_tq2_0 *p = to;
    codes_of(TYPE_TQ1_0, rows, 1, c);
    put_two_bits(c, 8, 0, p->q);
    HALFS(p->d, block_tq1_0, d)
}

static void pack_tq2_0(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_tq2_0 *p = to;
    codes_of(TYPE_TQ2_0, rows, 1, c);
    put_two_bits(c, 8, 0, p->q);
    HALFS(p->d, block_tq2_0, d)
}

/* --- K types ------------------------------------------------------------------------------------ */

static void put_six_bits(struct panel_six_bits *to, int row, const uint8_t v[16])
{
    uint32_t a = 0, b = 0, c = 0;
    for (int n = 0; n < 16; n++) {
        uint32_t low = (uint32_t)(v[n] & 15) << n % 8 * 4;
        a |= n < 8 ? low : 0;
        b |= n < 8 ? 0 : low;
        c |= (uint32_t)(v[n] >> 4) << 2 * n;
    }
    to->a[row] = a;
    to->b[row] = b;
    to->c[row] = c;
}

static void put_scale_min(struct panel_six_bits *to, int row, const uint8_t scales[12])
{
    uint8_t v[16];
    for (int g = 0; g < 8; g++) {
        split_k_scale_min(scales, g, &v[g], &v[g + 8]);
    }
    put_six_bits(to, row, v);
}

static void pack_q2_k(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_q2_k *p = to;
    codes_of(TYPE_Q2_K, rows, 0, c);
    put_two_bits(c, 8, 0, p->q);
    for (int g = 0; g < 16; g++) {
        HALFS(p->scale_min[g], block_q2_k, scales[g])
    }
    HALFS(p->d, block_q2_k, d)
    HALFS(p->dmin, block_q2_k, dmin)
}

static void pack_q3_k(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_q3_k *p = to;
    codes_of(TYPE_Q3_K, rows, 4, c);
    put_two_bits(c, 8, 0, p->q);
    put_one_bit(c, 8, 2, p->high);
    for (int r = 0; r < PANEL_ROWS; r++) {
        const struct block_q3_k *b = rows[r];
        uint8_t v[16];
        for (int g = 0; g < 16; g++) {
            v[g] = (uint8_t)split_q3_k_scale(b->scales, g);
        }
        put_six_bits(&p->scale, r, v);
    }
    HALFS(p->d, block_q3_k, d)
}

static void pack_q4_k(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_q4_k *p = to;
    codes_of(TYPE_Q4_K, rows, 0, c);
    put_nibbles(c, 8, p->q);
    for (int r = 0; r < PANEL_ROWS; r++) {
        put_scale_min(&p->scale_min, r, ((const struct block_q4_k *)rows[r])->scales);
    }
    HALFS(p->d, block_q4_k, d)
    HALFS(p->dmin, block_q4_k, dmin)
}

static void pack_q5_k(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_q5_k *p = to;
    codes_of(TYPE_Q5_K, rows, 0, c);
    put_nibbles(c, 8, p->q);
    put_one_bit(c, 8, 4, p->high);
    for (int r = 0; r < PANEL_ROWS; r++) {
        put_scale_min(&p->scale_min, r, ((const struct block_q5_k *)rows[r])->scales);
    }
    HALFS(p->d, block_q5_k, d)
    HALFS(p->dmin, block_q5_k, dmin)
}

static void pack_q6_k(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_q6_k *p = to;
    codes_of(TYPE_Q6_K, rows, 32, c);
    put_nibbles(c, 8, p->q);
    put_two_bits(c, 8, 4, p->high);
    for (int g = 0; g < 16; g++) {
        HALFS(p->scale[g], block_q6_k, scales[g])
    }
    HALFS(p->d, block_q6_k, d)
}

static void pack_q8_k(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_q8_k *p = to;
    codes_of(TYPE_Q8_K, rows, 128, c);
    put_bytes(c, 8, p->q);
    HALFS(p->d, block_q8_k, d)
}

static void pack_iq4_xs(const void *const rows[], void *to, uint8_t (*c)[256])
{
    struct panel_iq4_xs *p = to;
    indices_of(TYPE_IQ4_XS, rows, split_iq4_values, c);
    put_nibbles(c, 8, p->q);
    for (int r = 0; r < PANEL_ROWS; r++) {
        memcpy(&p->scale_low[r], ((const struct block_iq4_xs *)rows[r])->scales_low, 4);
    }
    HALFS(p->scale_high, block_iq4_xs, scales_high)
    HALFS(p->d, block_iq4_xs, d)
}

/* --- the common entry ---------------------------------------------------------------------------- */

#define ENTRY(NAME, panel, units, fn) [TYPE_##NAME] = {{units, sizeof(struct panel_##panel)}, fn}

static const struct {
    struct panel_info info;
    panel_pack_fn *pack;
} table[TYPE_ID_END] = {
    ENTRY(Q4_0, q4_0, 1, pack_q4_0),
    ENTRY(Q4_1, q4_1, 1, pack_q4_1),
    ENTRY(Q5_0, q5_0, 1, pack_q5_0),
    ENTRY(Q5_1, q5_1, 1, pack_q5_1),
    ENTRY(Q8_0, q8_0, 1, pack_q8_0),
    ENTRY(IQ4_NL, q4_0, 1, pack_iq4_nl),
    ENTRY(MXFP4, mxfp4, 1, pack_mxfp4),
    ENTRY(NVFP4, nvfp4, 2, pack_nvfp4),
    ENTRY(Q2_0, q2_0, 2, pack_q2_0),
    ENTRY(Q1_0, q1_0, 4, pack_q1_0),
    ENTRY(TQ1_0, tq2_0, 8, pack_tq1_0),
    ENTRY(TQ2_0, tq2_0, 8, pack_tq2_0),
    ENTRY(Q2_K, q2_k, 8, pack_q2_k),
    ENTRY(Q3_K, q3_k, 8, pack_q3_k),
    ENTRY(Q4_K, q4_k, 8, pack_q4_k),
    ENTRY(Q5_K, q5_k, 8, pack_q5_k),
    ENTRY(Q6_K, q6_k, 8, pack_q6_k),
    ENTRY(Q8_K, q8_k, 8, pack_q8_k),
    ENTRY(IQ4_XS, iq4_xs, 8, pack_iq4_xs),
    ENTRY(IQ2_XXS, iq2_xxs, 8, panel_pack_iq2_xxs),
    ENTRY(IQ2_XS, iq2_xs, 8, panel_pack_iq2_xs),
    ENTRY(IQ2_S, iq2_s, 8, panel_pack_iq2_s),
    ENTRY(IQ3_XXS, iq3_xxs, 8, panel_pack_iq3_xxs),
    ENTRY(IQ3_S, iq3_s, 8, panel_pack_iq3_s),
    ENTRY(IQ1_S, iq1_s, 8, panel_pack_iq1_s),
    ENTRY(IQ1_M, iq1_m, 8, panel_pack_iq1_m),
};

const struct panel_info *panel_info(enum type t)
{
    static const struct panel_info none = {0, 0};
    return (unsigned)t < TYPE_ID_END ? &table[t].info : &none;
}

static bool is_float(enum type t)
{
    return t == TYPE_F32 || t == TYPE_F16 || t == TYPE_BF16;
}

size_t panel_stride(enum type t, int64_t n_cols)
{
    if (is_float(t)) {
        return (size_t)n_cols * PANEL_ROWS * type_info(t)->block_bytes;
    }
    const struct panel_info *i = panel_info(t);
    return i->block_units ? (size_t)(n_cols / type_info(t)->block_elems) * i->block_bytes : 0;
}

size_t panel_bytes(enum type t, int64_t n_rows, int64_t n_cols)
{
    return (size_t)((n_rows + PANEL_ROWS - 1) / PANEL_ROWS) * panel_stride(t, n_cols);
}

static void pack_floats(size_t elem, const char *from, size_t row_bytes, int n_rows, int64_t n_cols,
                        char *to)
{
    for (int64_t k = 0; k < n_cols; k++, to += PANEL_ROWS * elem) {
        memset(to, 0, PANEL_ROWS * elem);
        for (int r = 0; r < n_rows; r++) {
            memcpy(to + (size_t)r * elem, from + (size_t)r * row_bytes + (size_t)k * elem, elem);
        }
    }
}

void panel_pack(enum type t, const void *data, int64_t n_rows, int64_t n_cols, int64_t p,
                void *packed)
{
    static const uint8_t zero[sizeof(struct block_q8_k)];
    const struct type_info *info = type_info(t);
    size_t row_bytes = type_row_bytes(t, (size_t)n_cols);
    const char *from = (const char *)data + (size_t)p * PANEL_ROWS * row_bytes;
    char *to = (char *)packed + (size_t)p * panel_stride(t, n_cols);
    int n = (int)MIN(n_rows - p * PANEL_ROWS, PANEL_ROWS);
    if (is_float(t)) {
        pack_floats(info->block_bytes, from, row_bytes, n, n_cols, to);
        return;
    }
    uint8_t code[PANEL_ROWS][256];
    for (int64_t k = 0; k < n_cols; k += info->block_elems) {
        const void *rows[PANEL_ROWS];
        for (int r = 0; r < PANEL_ROWS; r++) {
            rows[r] = r < n ? from + (size_t)r * row_bytes : (const void *)zero;
        }
        table[t].pack(rows, to, code);
        from += info->block_bytes;
        to += table[t].info.block_bytes;
    }
}
