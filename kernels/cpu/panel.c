/* Packing of the types whose weights are small integers or indices of 16 values, and the common
 * entry. Pure.
 *
 * The path of a block: `words` gives a unit of one row as eight words of four codes, a byte each,
 * in quad order; `put` spreads their bits over the planes. Both work on whole words, since loading
 * a model is spent here. */
#include "kernels/cpu/panel_pack.h"

#include "kernels/block.h"
#include "kernels/cpu/split.h"

#include <string.h>

#define SIZE_OF_16(name)                                                                           \
    _Static_assert(sizeof(struct panel_##name) == 16 * sizeof(struct block_##name), #name)
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

#define BYTES(v) ((v)*0x01010101u) /* the same in each byte of a word */

static uint32_t load_word(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* --- codes of a unit in words ---------------------------------------------------------------- */

/* Blocks of 32: byte i holds column i low, column i + 16 high. */
static void words_of_nibbles(const uint8_t qs[16], uint32_t w[8])
{
    for (int q = 0; q < 4; q++) {
        uint32_t v = load_word(qs + 4 * q);
        w[q] = v & BYTES(15);
        w[q + 4] = v >> 4 & BYTES(15);
    }
}

/* Bits shift and up of one byte for each column. */
static void words_of_bytes(const uint8_t b[32], int shift, uint32_t mask, uint32_t w[8])
{
    for (int q = 0; q < 8; q++) {
        w[q] = load_word(b + 4 * q) >> shift & BYTES(mask);
    }
}

/* One bit for each column, column i in bit i. */
static void or_words_of_bits(const uint8_t bits[4], int to, uint32_t w[8])
{
    uint32_t v = load_word(bits);
    for (int q = 0; q < 8; q++) {
        /* The product has bit j of the nibble at bits j + 7 k; those at 8 j stay. */
        w[q] |= ((v >> 4 * q & 15) * 0x00204081u & BYTES(1)) << to;
    }
}

/* --- planes of a unit ------------------------------------------------------------------------ */

/* Row r's part of the planes that hold `bits` bits from `shift` on of each code. */
static void put_bits(const uint32_t w[8], int shift, int bits, int r, uint8_t (*planes)[64])
{
    const uint32_t mask = BYTES((1u << bits) - 1);
    for (int p = 0; p < bits; p++) {
        uint32_t v = 0;
        for (int q = p; q < 8; q += bits) {
            v |= (w[q] >> shift & mask) << (q - p);
        }
        memcpy(&planes[p][4 * r], &v, sizeof v);
    }
}

static void put_nibbles(const uint32_t w[8], int r, uint8_t (*planes)[64])
{
    put_bits(w, 0, 4, r, planes);
}

#define FOR_ROWS(block) /* b: row r's block */                                                     \
    for (int r = 0; r < PANEL_ROWS; r++)                                                           \
        for (const struct block_##block *b = rows[r]; b; b = NULL)

/* --- blocks of 32 to 128 --------------------------------------------------------------------- */

static void pack_q4_0(const void *const rows[], void *to)
{
    struct panel_q4_0 *p = to; /* the file's nibbles stand as the planes want them */
    FOR_ROWS (q4_0) {
        p->d[r] = b->d;
        for (int q = 0; q < 4; q++) {
            memcpy(&p->q[0][q][4 * r], b->qs + 4 * q, 4);
        }
    }
}

static void pack_q4_1(const void *const rows[], void *to)
{
    struct panel_q4_1 *p = to;
    FOR_ROWS (q4_1) {
        uint32_t w[8];
        p->d[r] = b->d;
        p->m[r] = b->m;
        words_of_nibbles(b->qs, w);
        put_nibbles(w, r, p->q[0]);
    }
}

static void pack_q5_0(const void *const rows[], void *to)
{
    struct panel_q5_0 *p = to;
    FOR_ROWS (q5_0) {
        uint32_t w[8];
        p->d[r] = b->d;
        words_of_nibbles(b->qs, w);
        put_nibbles(w, r, p->q[0]);
        or_words_of_bits(b->qh, 4, w);
        put_bits(w, 4, 1, r, p->high);
    }
}

static void pack_q5_1(const void *const rows[], void *to)
{
    struct panel_q5_1 *p = to;
    FOR_ROWS (q5_1) {
        uint32_t w[8];
        p->d[r] = b->d;
        p->m[r] = b->m;
        words_of_nibbles(b->qs, w);
        put_nibbles(w, r, p->q[0]);
        or_words_of_bits(b->qh, 4, w);
        put_bits(w, 4, 1, r, p->high);
    }
}

static void pack_q8_0(const void *const rows[], void *to)
{
    struct panel_q8_0 *p = to;
    FOR_ROWS (q8_0) {
        p->d[r] = b->d;
        for (int q = 0; q < 8; q++) {
            uint32_t v = load_word(b->qs + 4 * q) ^ BYTES(0x80); /* + 128 */
            memcpy(&p->q[0][q][4 * r], &v, sizeof v);
        }
    }
}

static void pack_mxfp4(const void *const rows[], void *to)
{
    struct panel_mxfp4 *p = to;
    FOR_ROWS (mxfp4) {
        p->e[r] = b->e;
        for (int q = 0; q < 4; q++) {
            memcpy(&p->q[0][q][4 * r], b->qs + 4 * q, 4);
        }
    }
}

static void pack_nvfp4(const void *const rows[], void *to)
{
    struct panel_nvfp4 *p = to;
    FOR_ROWS (nvfp4) {
        for (int g = 0; g < 4; g++) {
            p->e[g][r] = b->d[g];
        }
        for (int u = 0; u < 2; u++) {
            uint32_t w[8];
            for (int g = 0; g < 2; g++) { /* 8 bytes: columns 0..7 low, 8..15 high */
                for (int q = 0; q < 2; q++) {
                    uint32_t v = load_word(b->qs + 16 * u + 8 * g + 4 * q);
                    w[4 * g + q] = v & BYTES(15);
                    w[4 * g + q + 2] = v >> 4 & BYTES(15);
                }
            }
            put_nibbles(w, r, p->q[u]);
        }
    }
}

static void pack_q2_0(const void *const rows[], void *to)
{
    struct panel_q2_0 *p = to;
    FOR_ROWS (q2_0) {
        p->d[r] = b->d;
        for (int u = 0; u < 2; u++) {
            uint32_t w[8];
            for (int q = 0; q < 8; q++) { /* a byte is a quad */
                uint32_t v = b->qs[8 * u + q];
                w[q] = (v | v << 6 | v << 12 | v << 18) & BYTES(3);
            }
            put_bits(w, 0, 2, r, p->q[u]);
        }
    }
}

static void pack_q1_0(const void *const rows[], void *to)
{
    struct panel_q1_0 *p = to;
    FOR_ROWS (q1_0) {
        p->d[r] = b->d;
        for (int u = 0; u < 4; u++) {
            uint32_t w[8] = {0};
            or_words_of_bits(b->qs + 4 * u, 0, w);
            put_bits(w, 0, 1, r, p->q + u);
        }
    }
}

static void pack_tq1_0(const void *const rows[], void *to)
{
    struct panel_tq2_0 *p = to;
    FOR_ROWS (tq1_0) {
        struct split s;
        split_tq1_0(b, &s);
        p->d[r] = b->d;
        for (int u = 0; u < 8; u++) {
            uint32_t w[8];
            for (int q = 0; q < 8; q++) {
                uint32_t v = load_word(s.q + 32 * u + 4 * q); /* -1 0 1 become 0 1 2 */
                w[q] = ((v & BYTES(3)) + BYTES(1)) & BYTES(3);
            }
            put_bits(w, 0, 2, r, p->q[u]);
        }
    }
}

static void pack_tq2_0(const void *const rows[], void *to)
{
    struct panel_tq2_0 *p = to;
    FOR_ROWS (tq2_0) {
        p->d[r] = b->d;
        for (int u = 0; u < 8; u++) {
            uint32_t w[8];
            words_of_bytes(b->qs + u / 4 * 32, u % 4 * 2, 3, w);
            put_bits(w, 0, 2, r, p->q[u]);
        }
    }
}

/* --- super-blocks ---------------------------------------------------------------------------- */

static void put_six_bits(struct panel_six_bits *to, int row, const uint8_t v[16])
{
    uint32_t a = 0, b = 0, c = 0;
    for (int n = 0; n < 8; n++) {
        a |= (uint32_t)(v[n] & 15) << 4 * n;
        b |= (uint32_t)(v[n + 8] & 15) << 4 * n;
    }
    for (int n = 0; n < 16; n++) {
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

static void pack_q2_k(const void *const rows[], void *to)
{
    struct panel_q2_k *p = to;
    FOR_ROWS (q2_k) {
        p->d[r] = b->d;
        p->dmin[r] = b->dmin;
        for (int g = 0; g < 16; g++) {
            p->scale_min[g][r] = b->scales[g];
        }
        for (int u = 0; u < 8; u++) {
            uint32_t w[8];
            words_of_bytes(b->qs + u / 4 * 32, u % 4 * 2, 3, w);
            put_bits(w, 0, 2, r, p->q[u]);
        }
    }
}

static void pack_q3_k(const void *const rows[], void *to)
{
    struct panel_q3_k *p = to;
    FOR_ROWS (q3_k) {
        uint8_t scales[16];
        for (int g = 0; g < 16; g++) {
            scales[g] = (uint8_t)split_q3_k_scale(b->scales, g);
        }
        p->d[r] = b->d;
        put_six_bits(&p->scale, r, scales);
        for (int u = 0; u < 8; u++) {
            uint32_t w[8];
            words_of_bytes(b->qs + u / 4 * 32, u % 4 * 2, 3, w);
            put_bits(w, 0, 2, r, p->q[u]);
            words_of_bytes(b->hmask, u, 1, w);
            put_bits(w, 0, 1, r, p->high + u);
        }
    }
}

static void pack_q4_k(const void *const rows[], void *to)
{
    struct panel_q4_k *p = to;
    FOR_ROWS (q4_k) {
        p->d[r] = b->d;
        p->dmin[r] = b->dmin;
        put_scale_min(&p->scale_min, r, b->scales);
        for (int u = 0; u < 8; u++) {
            uint32_t w[8];
            words_of_bytes(b->qs + u / 2 * 32, u % 2 * 4, 15, w);
            put_nibbles(w, r, p->q[u]);
        }
    }
}

static void pack_q5_k(const void *const rows[], void *to)
{
    struct panel_q5_k *p = to;
    FOR_ROWS (q5_k) {
        p->d[r] = b->d;
        p->dmin[r] = b->dmin;
        put_scale_min(&p->scale_min, r, b->scales);
        for (int u = 0; u < 8; u++) {
            uint32_t w[8];
            words_of_bytes(b->qs + u / 2 * 32, u % 2 * 4, 15, w);
            put_nibbles(w, r, p->q[u]);
            words_of_bytes(b->qh, u, 1, w);
            put_bits(w, 0, 1, r, p->high + u);
        }
    }
}

static void pack_q6_k(const void *const rows[], void *to)
{
    struct panel_q6_k *p = to;
    FOR_ROWS (q6_k) {
        p->d[r] = b->d;
        for (int g = 0; g < 16; g++) {
            p->scale[g][r] = b->scales[g];
        }
        for (int u = 0; u < 8; u++) {
            uint32_t w[8];
            words_of_bytes(b->ql + u / 4 * 64 + u % 2 * 32, u % 4 / 2 * 4, 15, w);
            put_nibbles(w, r, p->q[u]);
            words_of_bytes(b->qh + u / 4 * 32, u % 4 * 2, 3, w);
            put_bits(w, 0, 2, r, p->high[u]);
        }
    }
}

static void pack_q8_k(const void *const rows[], void *to)
{
    struct panel_q8_k *p = to;
    FOR_ROWS (q8_k) {
        p->d[r] = b->d;
        for (int u = 0; u < 8; u++) {
            for (int q = 0; q < 8; q++) {
                uint32_t v = load_word(b->qs + 32 * u + 4 * q) ^ BYTES(0x80);
                memcpy(&p->q[u][q][4 * r], &v, sizeof v);
            }
        }
    }
}

static void pack_iq4_xs(const void *const rows[], void *to)
{
    struct panel_iq4_xs *p = to;
    FOR_ROWS (iq4_xs) {
        p->d[r] = b->d;
        p->scale_low[r] = load_word(b->scales_low);
        p->scale_high[r] = b->scales_high;
        for (int u = 0; u < 8; u++) {
            for (int q = 0; q < 4; q++) {
                memcpy(&p->q[u][q][4 * r], b->qs + 16 * u + 4 * q, 4);
            }
        }
    }
}

/* --- the common entry ------------------------------------------------------------------------ */

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
    ENTRY(IQ4_NL, q4_0, 1, pack_q4_0), /* the same fields in the same places */
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

bool panel_is_words(enum type t, int64_t n_cols)
{
    return is_float(t) && t != TYPE_F32 && n_cols % PANEL_UNIT == 0;
}

int64_t panel_words_units(int64_t n_cols)
{
    return (n_cols + PANEL_WORDS_UNIT - 1) / PANEL_WORDS_UNIT;
}

int64_t panel_words_blocks(int64_t n_units)
{
    return (n_units + PANEL_WORDS_UNITS - 1) / PANEL_WORDS_UNITS;
}

size_t panel_stride(enum type t, int64_t n_cols)
{
    if (panel_is_words(t, n_cols)) {
        const struct panel_words *b = NULL;
        size_t units = (size_t)panel_words_units(n_cols);
        return (size_t)panel_words_blocks((int64_t)units) * sizeof b->scale + units * sizeof b->q[0];
    }
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
        (panel_is_words(t, n_cols) ? panel_pack_words : panel_pack_columns)(t, from, row_bytes, n,
                                                                            n_cols, to);
        return;
    }
    for (int64_t k = 0; k < n_cols; k += info->block_elems) {
        const void *rows[PANEL_ROWS];
        for (int r = 0; r < PANEL_ROWS; r++) {
            rows[r] = r < n ? from + (size_t)r * row_bytes : (const void *)zero;
        }
        table[t].pack(rows, to);
        from += info->block_bytes;
        to += table[t].info.block_bytes;
    }
}
