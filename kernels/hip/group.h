/* Packed weights in registers, of every type: groups of 32 small integers with scales (and minima), w = scale * (q -
 * offset) + min, and the one order in which products are summed. The only place on the GPU that reads packed weights. */
#ifndef KERNELS_HIP_GROUP_H
#define KERNELS_HIP_GROUP_H

#include "kernels/hip/args.h"
#include "kernels/hip/form.h"
#include "kernels/hip/gpu.h"
#include "shared/type.h"

#define GRID_TABLE GPU_TABLE
#include "kernels/grid.h"

/* Where a type is a constant, all of this folds away. */
GPU_FN int group_low(int type)
{
    switch (type) {
#define FORM(name, low, high, scale, super)                                                        \
    case TYPE_##name:                                                                              \
        return low;
        FORMS(FORM)
#undef FORM
    default:
        return 0;
    }
}
GPU_FN int group_words(int type)
{
    switch (type) {
#define FORM(name, low, high, scale, super)                                                        \
    case TYPE_##name:                                                                              \
        return low + high;
        FORMS(FORM)
#undef FORM
    default:
        return 0;
    }
}
GPU_FN int group_scale_bytes(int type)
{
    switch (type) {
#define FORM(name, low, high, scale, super)                                                        \
    case TYPE_##name:                                                                              \
        return scale;
        FORMS(FORM)
#undef FORM
    default:
        return 0;
    }
}
GPU_FN int group_has_super(int type)
{
    switch (type) {
#define FORM(name, low, high, scale, super)                                                        \
    case TYPE_##name:                                                                              \
        return super;
        FORMS(FORM)
#undef FORM
    default:
        return 0;
    }
}
/* What the stored codes are too large by. */
GPU_FN int group_offset(int type)
{
    return type == TYPE_Q4_0 ? 8 : type == TYPE_Q5_0 ? 16 : type == TYPE_Q3_K ? 4 :
           type == TYPE_Q6_K ? 32 :
           type == TYPE_TQ1_0 || type == TYPE_TQ2_0 || type == TYPE_Q2_0 ? 1 : 0;
}
/* Whether its halves have scales of their own. */
GPU_FN bool group_has_halves(int type)
{
    return type == TYPE_Q2_K || type == TYPE_Q3_K || type == TYPE_Q6_K || type == TYPE_NVFP4 ||
           type == TYPE_IQ1_M || type == TYPE_IQ2_XS || type == TYPE_IQ2_S;
}
GPU_FN bool group_has_min(int type)
{
    return type == TYPE_Q4_1 || type == TYPE_Q5_1 || type == TYPE_Q2_K || type == TYPE_Q4_K ||
           type == TYPE_Q5_K;
}

struct group {
    uint32_t q[8]; /* 32 signed bytes */
    float scale[2], min[2];
};

/* A row's part of a chunk, or of half of one, as it stands in memory. */
struct group_chunk {
    struct gpu_16 words[8];
    uint32_t scale[4];
    uint32_t super;
};

/* Word i of the upper bits, which follow the `low` others; a constant index for each, so that they stay in registers. */
GPU_FN void group_set_high(struct group_chunk *c, int low, int i, struct gpu_16 v)
{
    if (low == 2) {
        c->words[2 + i] = v;
    } else {
        c->words[4 + i] = v;
    }
}

/* row: of the matrix; chunk: of the row, which has n_chunks. half: 0 or 1 loads two of the four groups, which are then
 * groups 0 and 1; GROUP_WHOLE all. */
enum { GROUP_WHOLE = -1 };
GPU_FN struct group_chunk group_load(const struct args_weight *w, int type, int n_chunks, int row,
                                     int chunk, int half)
{
    struct group_chunk c = {{{{0}}}, {0, 0, 0, 0}, 0};
    int panel = row / ARGS_PANEL, lane = row % ARGS_PANEL, n_words = group_words(type);
    int low = group_low(type), n = half == GROUP_WHOLE ? low : (low + 1) / 2;
    bool is_second = half == 1;
    int64_t at = ((int64_t)panel * n_chunks + chunk) * ARGS_PANEL;
    const uint8_t *words = w->data + (at * n_words + lane) * 16;
    const uint8_t *first = words + (is_second && low > 1 ? n * ARGS_PANEL * 16 : 0);
    GPU_UNROLL
    for (int i = 0; i < 8; i++) {
        if (i < n) {
            c.words[i] = gpu_load16(first + i * ARGS_PANEL * 16);
        }
    }
    if (n_words == low + 1) { /* four bytes a group */
        struct gpu_16 v = gpu_load16(words + low * ARGS_PANEL * 16);
        if (is_second) {
            v.w[0] = v.w[2];
            v.w[1] = v.w[3];
        }
        group_set_high(&c, low, 0, v);
    } else if (n_words == low + 2) { /* eight bytes a group */
        group_set_high(&c, low, 0, gpu_load16(words + (low + (is_second ? 1 : 0)) * ARGS_PANEL * 16));
        if (half == GROUP_WHOLE) {
            group_set_high(&c, low, 1, gpu_load16(words + (low + 1) * ARGS_PANEL * 16));
        }
    }
    if (low == 1 && is_second) {
        c.words[0].w[0] = c.words[0].w[2];
        c.words[0].w[1] = c.words[0].w[3];
    }
    int scale_bytes = group_scale_bytes(type);
    const uint8_t *scale = w->data + w->scale_at + (at + lane) * scale_bytes;
    if (scale_bytes == 16) {
        struct gpu_16 v = gpu_load16(scale);
        c.scale[0] = is_second ? v.w[2] : v.w[0];
        c.scale[1] = is_second ? v.w[3] : v.w[1];
        c.scale[2] = v.w[2];
        c.scale[3] = v.w[3];
    } else if (scale_bytes == 8) {
        struct gpu_8 v = *(const struct gpu_8 *)(const void *)scale;
        c.scale[0] = is_second ? v.w[1] : v.w[0];
        c.scale[1] = v.w[1];
    }
    if (group_has_super(type)) {
        int n_segments = (n_chunks + 1) / 2;
        int64_t segment = ((int64_t)panel * n_segments + chunk / 2) * ARGS_PANEL + lane;
        c.super = *(const uint32_t *)(const void *)(w->data + w->super_at + segment * 4);
    }
    return c;
}

/* --- codes --------------------------------------------------------------------------------------- */

/* Each byte of index (0 to 15) chooses one of 16 bytes. */
GPU_FN uint32_t group_pick16(const uint32_t *table, uint32_t index)
{
    uint32_t low = gpu_pick(table[0], table[1], index & 0x07070707u);
    uint32_t high = gpu_pick(table[2], table[3], index & 0x07070707u);
    uint32_t is_high = (index >> 3 & 0x01010101u) * 255u;
    return (low & ~is_high) | (high & is_high);
}
/* Four digits of two bits, or of three, to a byte each. */
GPU_FN uint32_t group_spread2(uint32_t d)
{
    return (d & 3) | (d & 0xc) << 6 | (d & 0x30) << 12 | (d & 0xc0) << 18;
}
GPU_FN uint32_t group_spread3(uint32_t d)
{
    return (d & 7) | (d & 0x38) << 5 | (d & 0x1c0) << 10 | (d & 0xe00) << 15;
}
/* Negates the bytes (none is 0) whose bit of the four is set. */
GPU_FN uint32_t group_negate(uint32_t q, uint32_t signs)
{
    uint32_t bit = (signs & 15) * 0x00204081u & 0x01010101u;
    return (q ^ bit * 255u) + bit;
}
/* The eight signs of a seven-bit field: their number is even. */
GPU_FN uint32_t group_signs(uint32_t field)
{
    field &= 127;
    uint32_t odd = field ^ field >> 4;
    odd ^= odd >> 2;
    odd ^= odd >> 1;
    return field | (odd & 1) << 7;
}
GPU_FN void group_iq2(uint32_t entry, uint32_t signs, uint32_t *q)
{
    q[0] = group_negate(gpu_pick(0x002b1908u, 0, group_spread2(entry)), signs);
    q[1] = group_negate(gpu_pick(0x002b1908u, 0, group_spread2(entry >> 8)), signs >> 4);
}
/* value + delta, times 8 */
GPU_FN void group_iq1(uint32_t entry, bool is_delta_negative, uint32_t *q)
{
    uint32_t values = is_delta_negative ? 0x0007fff7u : 0x000901f9u;
    q[0] = gpu_pick(values, 0, group_spread2(entry));
    q[1] = gpu_pick(values, 0, group_spread2(entry >> 8));
}

GPU_FN float group_e8m0(uint32_t bits)
{
    return gpu_bf16_f32((uint16_t)bits);
}
/* Half of an unsigned E4M3 number. */
GPU_FN float group_e4m3(uint32_t e)
{
    uint32_t exponent = e >> 3 & 15, mantissa = e & 7;
    float power = gpu_bits_f32((exponent == 0 ? 117 : exponent + 116) << 23);
    return (e & 127) == 127 ? 0.0f : (float)(exponent == 0 ? mantissa : 8 + mantissa) * power;
}

/* Codebook types: integers and scales of group g. */
GPU_FN void group_codebook(const struct group_chunk *c, int type, int g, float d, uint32_t scale,
                           struct group *ret)
{
    uint32_t w0 = c->words[g / 2].w[g % 2 * 2], w1 = c->words[g / 2].w[g % 2 * 2 + 1];
    uint32_t more = c->words[2].w[g];
    GPU_UNROLL
    for (int o = 0; o < 4; o++) {
        uint32_t *q = ret->q + 2 * o;
        uint32_t byte = w0 >> 8 * o & 255;
        if (type == TYPE_IQ2_XXS) {
            group_iq2(grid_iq2_xxs[byte], group_signs(w1 >> 7 * o), q);
        } else if (type == TYPE_IQ2_XS) {
            uint32_t half = (o < 2 ? w0 : w1) >> o % 2 * 16 & 0xffff;
            group_iq2(grid_iq2_xs[half & 511], group_signs(half >> 9), q);
        } else if (type == TYPE_IQ2_S) {
            uint32_t high = scale >> (8 + 2 * o) & 3;
            group_iq2(grid_iq2_s[byte | high << 8], w1 >> 8 * o, q);
        } else if (type == TYPE_IQ3_XXS || type == TYPE_IQ3_S) {
            uint32_t word = o < 2 ? w0 : w1;
            uint32_t first = word >> o % 2 * 16 & 255, second = word >> (o % 2 * 16 + 8) & 255;
            if (type == TYPE_IQ3_XXS) {
                uint32_t signs = group_signs(more >> 7 * o);
                q[0] = group_spread3(grid_iq3_xxs[first]);
                q[1] = group_spread3(grid_iq3_xxs[second]);
                q[0] = group_negate(gpu_pick(0x1c140c04u, 0x3e342c24u, q[0]), signs);
                q[1] = group_negate(gpu_pick(0x1c140c04u, 0x3e342c24u, q[1]), signs >> 4);
            } else {
                uint32_t signs = more >> 8 * o, high = scale >> (8 + 2 * o);
                q[0] = group_spread3(grid_iq3_s[first | (high & 1) << 8]);
                q[1] = group_spread3(grid_iq3_s[second | (high >> 1 & 1) << 8]);
                q[0] = group_negate(gpu_pick(0x07050301u, 0x0f0d0b09u, q[0]), signs);
                q[1] = group_negate(gpu_pick(0x07050301u, 0x0f0d0b09u, q[1]), signs >> 4);
            }
        } else { /* IQ1: four bytes a group */
            uint32_t index = c->words[0].w[g] >> 8 * o & 255;
            uint32_t nibble = scale >> 4 * o & 15;
            uint32_t high = type == TYPE_IQ1_S ? scale >> 3 * o & 7 : nibble & 7;
            bool is_negative = (type == TYPE_IQ1_S ? scale >> 15 & 1 : nibble >> 3) != 0;
            group_iq1(grid_iq1[index | high << 8], is_negative, q);
        }
    }
    switch (type) {
    case TYPE_IQ2_XXS:
        ret->scale[0] = ret->scale[1] = d * (0.5f + (float)(w1 >> 28)) * 0.25f;
        break;
    case TYPE_IQ2_XS:
    case TYPE_IQ2_S:
        ret->scale[0] = d * (0.5f + (float)(scale & 15)) * 0.25f;
        ret->scale[1] = d * (0.5f + (float)(scale >> 4 & 15)) * 0.25f;
        break;
    case TYPE_IQ3_XXS:
        ret->scale[0] = ret->scale[1] = d * (0.5f + (float)(more >> 28)) * 0.5f;
        break;
    case TYPE_IQ3_S:
        ret->scale[0] = ret->scale[1] = d * (float)(1 + 2 * (scale & 15));
        break;
    case TYPE_IQ1_S:
        ret->scale[0] = ret->scale[1] = d * (float)(2 * (scale >> 12 & 7) + 1) * 0.125f;
        break;
    default:
        ret->scale[0] = d * (float)(2 * (scale >> 16 & 7) + 1) * 0.125f;
        ret->scale[1] = d * (float)(2 * (scale >> 20 & 7) + 1) * 0.125f;
        break;
    }
}

/* Scales and minima of a group: of its own 2 or 4 bytes, and the block's four where it has such. Not of codebook types. */
GPU_FN void group_scales(int type, uint32_t scale, uint32_t super, struct group *ret)
{
    float d = gpu_f16_f32((uint16_t)super), dmin = gpu_f16_f32((uint16_t)(super >> 16));
    switch (type) {
    case TYPE_Q4_1:
    case TYPE_Q5_1:
        ret->scale[0] = ret->scale[1] = gpu_f16_f32((uint16_t)scale);
        ret->min[0] = ret->min[1] = gpu_f16_f32((uint16_t)(scale >> 16));
        break;
    case TYPE_Q2_K:
        for (int h = 0; h < 2; h++) {
            ret->scale[h] = d * (float)(scale >> 8 * h & 15);
            ret->min[h] = -(dmin * (float)(scale >> (8 * h + 4) & 15));
        }
        break;
    case TYPE_Q3_K:
    case TYPE_Q6_K:
        ret->scale[0] = d * (float)(int8_t)scale;
        ret->scale[1] = d * (float)(int8_t)(scale >> 8);
        break;
    case TYPE_IQ4_XS:
        ret->scale[0] = ret->scale[1] = d * (float)(int8_t)scale;
        break;
    case TYPE_Q4_K:
    case TYPE_Q5_K:
        ret->scale[0] = ret->scale[1] = d * (float)(scale & 255);
        ret->min[0] = ret->min[1] = -(dmin * (float)(scale >> 8));
        break;
    case TYPE_Q8_K:
        ret->scale[0] = ret->scale[1] = gpu_bits_f32(super);
        break;
    case TYPE_MXFP4:
        ret->scale[0] = ret->scale[1] = group_e8m0(scale);
        break;
    case TYPE_NVFP4:
        ret->scale[0] = group_e4m3(scale);
        ret->scale[1] = group_e4m3(scale >> 8);
        break;
    default:
        ret->scale[0] = ret->scale[1] = gpu_f16_f32((uint16_t)scale);
        break;
    }
}

/* Group g (0 to 3, a constant) of a chunk of a type that is a constant. */
GPU_FN struct group group_of(const struct group_chunk *c, int type, int g)
{
    struct group ret = {{0, 0, 0, 0, 0, 0, 0, 0}, {0, 0}, {0, 0}};
    int low = group_low(type), high = group_words(type) - low;
    uint32_t scale = group_scale_bytes(type) == 16 ? c->scale[g]
                                                   : c->scale[g / 2] >> g % 2 * 16 & 0xffff;
    if (low > 8) {
        return ret; /* floats are no groups */
    }
    if (type == TYPE_IQ1_S || type == TYPE_IQ1_M || type == TYPE_IQ2_XXS || type == TYPE_IQ2_XS ||
        type == TYPE_IQ2_S || type == TYPE_IQ3_XXS || type == TYPE_IQ3_S) {
        group_codebook(c, type, g, gpu_f16_f32((uint16_t)c->super), scale, &ret);
        return ret;
    }
    GPU_UNROLL
    for (int j = 0; j < 8; j++) {
        if (low == 8) {
            ret.q[j] = c->words[2 * g + j / 4].w[j % 4];
        } else if (low == 4) {
            ret.q[j] = c->words[g].w[j % 4] >> j / 4 * 4 & 0x0f0f0f0fu;
        } else if (low == 2) {
            ret.q[j] = c->words[g / 2].w[g % 2 * 2 + j / 4] >> j % 4 * 2 & 0x03030303u;
        } else {
            ret.q[j] = (c->words[0].w[g] >> j & 0x01010101u) * 0xfeu ^ 0xffffffffu; /* 1, -1 */
        }
        if (high == 1) {
            ret.q[j] |= (c->words[low].w[g] >> j & 0x01010101u) << low;
        } else if (high == 2) {
            uint32_t bits = c->words[low + g / 2].w[g % 2 * 2 + j / 4] >> j % 4 * 2;
            ret.q[j] |= (bits & 0x03030303u) << 4;
        }
        if (type == TYPE_IQ4_NL || type == TYPE_IQ4_XS) {
            uint32_t table[4] = {0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u};
            ret.q[j] = group_pick16(table, ret.q[j]);
        } else if (type == TYPE_MXFP4 || type == TYPE_NVFP4) {
            uint32_t table[4] = {0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu};
            ret.q[j] = group_pick16(table, ret.q[j]);
        }
    }
    group_scales(type, scale, c->super, &ret);
    return ret;
}

/* --- sums ---------------------------------------------------------------------------------------- */

/* Integers below 2^22 that were added up from this number on are its last digits: group_dot has no need of a conversion,
 * which is slower than a difference on some cards. */
enum { GROUP_START = 0x4b400000 };
GPU_FN float group_dot(int32_t dot)
{
    return gpu_bits_f32((uint32_t)dot) - GPU_ROUNDER;
}

/* The integer products of n columns that share a scale, offset taken off, and the sum of their x. Every output is summed in
 * this way over the groups of a segment in order, and then over the segments in order. */
GPU_FN float group_step(float sum, float dot, float scale, bool has_min, float min, float x_scale,
                        int x_sum)
{
    sum = gpu_fma(dot, scale * x_scale, sum);
    return has_min ? gpu_fma(min, x_scale * (float)x_sum, sum) : sum;
}

/* Adds a group's products to one output's sum: dot holds the integer products of each half, offset not taken off. */
GPU_FN float group_add(float sum, const struct group *g, int type, const int32_t dot[2],
                       struct args_act x)
{
    int offset = group_offset(type);
    bool has_min = group_has_min(type);
    if (group_has_halves(type)) {
        sum = group_step(sum, (float)(dot[0] - offset * x.sum[0]), g->scale[0], has_min, g->min[0],
                         x.scale, x.sum[0]);
        return group_step(sum, (float)(dot[1] - offset * x.sum[1]), g->scale[1], has_min, g->min[1],
                          x.scale, x.sum[1]);
    }
    int of_x = x.sum[0] + x.sum[1];
    return group_step(sum, (float)(dot[0] + dot[1] - offset * of_x), g->scale[0], has_min,
                      g->min[0], x.scale, of_x);
}

#endif
