/* Rearranges weights for the GPU; see pack.h. Pure functions; any thread. */
#include "kernels/hip/pack.h"

#include "kernels/block.h"
#include "kernels/cpu/split.h"
#include "kernels/half.h"
#include "kernels/hip/form.h"

#include <errno.h>
#include <string.h>

enum { PLANE_ALIGN = 256, WORD = 16, GROUPS = ARGS_CHUNK / ARGS_GROUP };

struct form {
    int low, high, scale, super;
};

static struct form form_of(enum type type)
{
    switch ((int)type) {
#define FORM(name, low_words, high_words, scale_bytes, has_super)                                  \
    case TYPE_##name:                                                                              \
        return (struct form){low_words, high_words, scale_bytes, has_super};
        FORMS(FORM)
#undef FORM
    default:
        return (struct form){0};
    }
}

static int64_t pad(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

int pack_layout(enum type type, int64_t n_rows, int64_t n_cols, struct pack_layout *ret)
{
    struct form f = form_of(type);
    if (f.low == 0) {
        return -ENOTSUP;
    }
    int64_t rows = pad(n_rows, ARGS_PANEL), chunks = pad(n_cols, ARGS_CHUNK) / ARGS_CHUNK;
    int64_t segments = pad(n_cols, ARGS_SEGMENT) / ARGS_SEGMENT;
    ret->scale_at = pad(rows * chunks * (f.low + f.high) * WORD, PLANE_ALIGN);
    ret->super_at = pad(ret->scale_at + rows * chunks * f.scale, PLANE_ALIGN);
    ret->n_bytes = pad(ret->super_at + rows * segments * f.super * 4, PLANE_ALIGN);
    return 0;
}

/* One row's pieces of a chunk, collected here and scattered at the end. */
struct piece {
    uint8_t words[32 * WORD];
    uint8_t scale[4 * GROUPS];
};

/* --- codes --------------------------------------------------------------------------------------- */

static void put_four_bits(const uint8_t code[32], int g, uint8_t *words)
{
    for (int i = 0; i < 16; i++) {
        words[WORD * g + i] = (uint8_t)((code[i] & 15) | (code[i + 16] & 15) << 4);
    }
}

static void put_two_bits(const uint8_t code[32], int g, uint8_t *words)
{
    for (int i = 0; i < 32; i++) {
        words[8 * g + i / 16 * 4 + i % 4] |= (uint8_t)((code[i] & 3) << i / 4 % 4 * 2);
    }
}

static void put_one_bit(const uint8_t code[32], int g, uint8_t *words)
{
    for (int i = 0; i < 32; i++) {
        words[4 * g + i % 4] |= (uint8_t)((code[i] & 1) << i / 4);
    }
}

/* The place of a value in a table of 16; what repeats (0 of E2M1) is the same number. */
static uint8_t code_of(const int8_t values[16], int8_t value)
{
    uint8_t code = 0;
    while (code < 15 && values[code] != value) {
        code++;
    }
    return code;
}

/* Group g of the chunk; q: its 32 integers. */
static void put_codes(enum type type, struct form f, const int8_t q[32], int g, uint8_t *words)
{
    bool is_iq4 = type == TYPE_IQ4_NL || type == TYPE_IQ4_XS;
    bool is_e2m1 = type == TYPE_MXFP4 || type == TYPE_NVFP4;
    int offset = 0;
    switch ((int)type) {
    case TYPE_Q4_0:
        offset = 8;
        break;
    case TYPE_Q5_0:
        offset = 16;
        break;
    case TYPE_Q3_K:
        offset = 4;
        break;
    case TYPE_Q6_K:
        offset = 32;
        break;
    case TYPE_TQ1_0:
    case TYPE_TQ2_0:
    case TYPE_Q2_0:
        offset = 1;
        break;
    default:
        break;
    }
    uint8_t code[32], high[32];
    for (int i = 0; i < 32; i++) {
        code[i] = is_iq4    ? code_of(split_iq4_values, q[i])
                  : is_e2m1 ? code_of(split_e2m1_values, q[i])
                  : type == TYPE_Q1_0 ? q[i] > 0
                                      : (uint8_t)(q[i] + offset);
        high[i] = (uint8_t)(code[i] >> f.low);
    }
    switch (f.low) {
    case 1:
        put_one_bit(code, g, words);
        break;
    case 2:
        put_two_bits(code, g, words);
        break;
    case 4:
        put_four_bits(code, g, words);
        break;
    default:
        memcpy(words + 32 * g, code, 32);
        break;
    }
    if (f.high == 1) {
        put_one_bit(high, g, words + f.low * WORD);
    } else if (f.high == 2) {
        put_two_bits(high, g, words + f.low * WORD);
    }
}

/* --- scales -------------------------------------------------------------------------------------- */

/* What stands for group g of a block (counted in the block) in the scale plane; returns its bytes. */
static int group_scale(enum type type, const uint8_t *block, int g, uint8_t ret[4])
{
    switch ((int)type) {
    case TYPE_Q4_1:
    case TYPE_Q5_1:
        memcpy(ret, block, 4);
        return 4;
    case TYPE_MXFP4: {
        uint16_t scale = half_bf16_from_f32(split_e8m0(block[0]));
        memcpy(ret, &scale, 2);
        return 2;
    }
    case TYPE_NVFP4:
        memcpy(ret, block + 2 * g, 2);
        return 2;
    case TYPE_Q2_K:
        memcpy(ret, block + 2 * g, 2);
        return 2;
    case TYPE_Q3_K: {
        const struct block_q3_k *b = (const void *)block;
        ret[0] = (uint8_t)(split_q3_k_scale(b->scales, 2 * g) - 32);
        ret[1] = (uint8_t)(split_q3_k_scale(b->scales, 2 * g + 1) - 32);
        return 2;
    }
    case TYPE_Q4_K:
    case TYPE_Q5_K:
        split_k_scale_min(block + offsetof(struct block_q4_k, scales), g, &ret[0], &ret[1]);
        return 2;
    case TYPE_Q6_K:
        memcpy(ret, block + offsetof(struct block_q6_k, scales) + 2 * g, 2);
        return 2;
    case TYPE_IQ4_XS: {
        const struct block_iq4_xs *b = (const void *)block;
        int low = b->scales_low[g / 2] >> g % 2 * 4 & 15, high = b->scales_high >> 2 * g & 3;
        ret[0] = (uint8_t)((low | high << 4) - 32);
        ret[1] = 0;
        return 2;
    }
    case TYPE_IQ2_XS:
        ret[0] = block[offsetof(struct block_iq2_xs, scales) + (size_t)g];
        ret[1] = 0;
        return 2;
    case TYPE_IQ2_S:
        ret[0] = block[offsetof(struct block_iq2_s, scales) + (size_t)g];
        ret[1] = block[offsetof(struct block_iq2_s, qh) + (size_t)g];
        return 2;
    case TYPE_IQ3_S: {
        const struct block_iq3_s *b = (const void *)block;
        ret[0] = b->scales[g / 2] >> g % 2 * 4 & 15;
        ret[1] = b->qh[g];
        return 2;
    }
    case TYPE_IQ1_S:
        memcpy(ret, block + offsetof(struct block_iq1_s, qh) + 2 * (size_t)g, 2);
        return 2;
    case TYPE_IQ1_M: {
        const struct block_iq1_m *b = (const void *)block;
        int scales = b->scales[g / 2] >> g % 2 * 6;
        memcpy(ret, b->qh + 2 * g, 2);
        ret[2] = (uint8_t)((scales & 7) | (scales >> 3 & 7) << 4);
        ret[3] = 0;
        return 4;
    }
    case TYPE_TQ1_0:
        memcpy(ret, block + offsetof(struct block_tq1_0, d), 2);
        return 2;
    case TYPE_TQ2_0:
        memcpy(ret, block + offsetof(struct block_tq2_0, d), 2);
        return 2;
    default:
        memcpy(ret, block, 2);
        return 2;
    }
}

/* A block's own scale, and that of minima. */
static void block_super(enum type type, const uint8_t *block, uint8_t ret[4])
{
    memset(ret, 0, 4);
    switch ((int)type) {
    case TYPE_Q4_K:
    case TYPE_Q5_K:
    case TYPE_Q8_K:
        memcpy(ret, block, 4);
        break;
    case TYPE_Q2_K:
        memcpy(ret, block + offsetof(struct block_q2_k, d), 4);
        break;
    case TYPE_Q3_K:
        memcpy(ret, block + offsetof(struct block_q3_k, d), 2);
        break;
    case TYPE_Q6_K:
        memcpy(ret, block + offsetof(struct block_q6_k, d), 2);
        break;
    case TYPE_IQ1_M: {
        const struct block_iq1_m *b = (const void *)block;
        uint16_t d = 0;
        for (int i = 0; i < 4; i++) {
            d |= (uint16_t)(b->scales[i] >> 12 << 4 * i);
        }
        memcpy(ret, &d, 2);
        break;
    }
    default:
        memcpy(ret, block, 2);
        break;
    }
}

/* --- codebook types: indices and signs of group g as the file has them --------------------------- */

static bool put_indices(enum type type, const uint8_t *block, int g, int in_chunk, uint8_t *words)
{
    size_t at = (size_t)g, to = (size_t)in_chunk;
    switch ((int)type) {
    case TYPE_IQ1_S:
        memcpy(words + 4 * to, block + offsetof(struct block_iq1_s, qs) + 4 * at, 4);
        return true;
    case TYPE_IQ1_M:
        memcpy(words + 4 * to, block + 4 * at, 4);
        return true;
    case TYPE_IQ2_XXS:
    case TYPE_IQ2_XS:
        memcpy(words + 8 * to, block + 2 + 8 * at, 8);
        return true;
    case TYPE_IQ2_S:
        memcpy(words + 8 * to, block + offsetof(struct block_iq2_s, qs) + 4 * at, 4);
        memcpy(words + 8 * to + 4, block + offsetof(struct block_iq2_s, signs) + 4 * at, 4);
        return true;
    case TYPE_IQ3_XXS:
        memcpy(words + 8 * to, block + 2 + 8 * at, 8);
        memcpy(words + 2 * WORD + 4 * to, block + offsetof(struct block_iq3_xxs, signs) + 4 * at, 4);
        return true;
    case TYPE_IQ3_S:
        memcpy(words + 8 * to, block + 2 + 8 * at, 8);
        memcpy(words + 2 * WORD + 4 * to, block + offsetof(struct block_iq3_s, signs) + 4 * at, 4);
        return true;
    default:
        return false;
    }
}

/* --- rows ---------------------------------------------------------------------------------------- */

/* One row's columns of a chunk; those beyond n_cols are left zero. */
static void fill_piece(enum type type, struct form f, const uint8_t *row, int64_t chunk,
                       int64_t n_cols, struct piece *p)
{
    const struct type_info *info = type_info((uint32_t)type);
    int64_t first = chunk * ARGS_CHUNK, n = MIN((int64_t)ARGS_CHUNK, n_cols - first);
    memset(p, 0, sizeof *p);
    if (info->block_elems == 1) {
        memcpy(p->words, row + first * info->block_bytes, (size_t)(n * info->block_bytes));
        return;
    }
    struct split s;
    int64_t split_block = -1;
    for (int g = 0; g * ARGS_GROUP < n; g++) {
        int64_t column = first + g * ARGS_GROUP, index = column / info->block_elems;
        const uint8_t *block = row + index * info->block_bytes;
        int in_block = (int)(column % info->block_elems) / ARGS_GROUP;
        if (f.scale > 0) {
            uint8_t scale[4];
            int n_bytes = group_scale(type, block, in_block, scale);
            memcpy(p->scale + n_bytes * g, scale, (size_t)n_bytes);
        }
        if (!put_indices(type, block, in_block, g, p->words)) {
            if (split_block != index) {
                split_of(type)(block, &s);
                split_block = index;
            }
            put_codes(type, f, s.q + in_block * ARGS_GROUP, g, p->words);
        }
    }
}

void pack_rows(enum type type, const struct pack_layout *layout, const void *data, int64_t row,
               int64_t n, int64_t n_cols, void *buffer)
{
    const struct type_info *info = type_info((uint32_t)type);
    struct form f = form_of(type);
    size_t row_bytes = type_row_bytes(type, (size_t)n_cols);
    int64_t chunks = pad(n_cols, ARGS_CHUNK) / ARGS_CHUNK, n_words = f.low + f.high;
    int64_t segments = pad(n_cols, ARGS_SEGMENT) / ARGS_SEGMENT;
    uint8_t *to = buffer;
    for (int64_t r = row; r < row + n; r++) {
        const uint8_t *from = (const uint8_t *)data + (size_t)(r - row) * row_bytes;
        int64_t panel = r / ARGS_PANEL, lane = r % ARGS_PANEL;
        for (int64_t c = 0; c < chunks; c++) {
            struct piece p;
            fill_piece(type, f, from, c, n_cols, &p);
            int64_t at = (panel * chunks + c) * ARGS_PANEL;
            for (int64_t w = 0; w < n_words; w++) {
                memcpy(to + (at * n_words + w * ARGS_PANEL + lane) * WORD, p.words + w * WORD, WORD);
            }
            memcpy(to + layout->scale_at + (at + lane) * f.scale, p.scale, (size_t)f.scale);
        }
        for (int64_t s = 0; s < segments * f.super; s++) {
            block_super(type, from + s * info->block_bytes,
                        to + layout->super_at + ((panel * segments + s) * ARGS_PANEL + lane) * 4);
        }
    }
}
