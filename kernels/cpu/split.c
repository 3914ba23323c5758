/* Blocks of 32 to 128, the ternary types, and the table of all. Pure functions; any thread. */
#include "kernels/cpu/split.h"

#include "kernels/block.h"
#include "kernels/half.h"

#include <math.h>

const int8_t split_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
const int8_t split_e2m1_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

float split_e8m0(uint8_t e)
{
    return e == 255 ? NAN : ldexpf(1.0f, e - 128);
}

float split_e4m3(uint8_t e)
{
    int exponent = e >> 3 & 15, mantissa = e & 7;
    if ((e & 0x7f) == 0x7f) {
        return 0.0f;
    }
    return exponent == 0 ? ldexpf((float)mantissa, -10)
                         : ldexpf((float)(8 + mantissa), exponent - 11);
}

static void set_groups(struct split *s, int n_groups, float scale, float min)
{
    for (int g = 0; g < n_groups; g++) {
        s->scale[g] = scale;
        s->min[g] = min;
    }
}

/* Nibbles of 16 bytes: the low ones are elements 0..15, the high ones 16..31. */
static void nibbles(const uint8_t qs[16], int offset, int8_t q[32])
{
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)((qs[i] & 15) - offset);
        q[i + 16] = (int8_t)((qs[i] >> 4) - offset);
    }
}

static void add_fifth_bits(const uint8_t qh[4], int8_t q[32])
{
    for (int i = 0; i < 32; i++) {
        q[i] = (int8_t)(q[i] + (qh[i / 8] >> i % 8 & 1) * 16);
    }
}

void split_q4_0(const void *block, struct split *s)
{
    const struct block_q4_0 *b = block;
    nibbles(b->qs, 8, s->q);
    set_groups(s, 2, half_to_f32(b->d), 0);
}

void split_q4_1(const void *block, struct split *s)
{
    const struct block_q4_1 *b = block;
    nibbles(b->qs, 0, s->q);
    set_groups(s, 2, half_to_f32(b->d), half_to_f32(b->m));
}

void split_q5_0(const void *block, struct split *s)
{
    const struct block_q5_0 *b = block;
    nibbles(b->qs, 16, s->q);
    add_fifth_bits(b->qh, s->q);
    set_groups(s, 2, half_to_f32(b->d), 0);
}

void split_q5_1(const void *block, struct split *s)
{
    const struct block_q5_1 *b = block;
    nibbles(b->qs, 0, s->q);
    add_fifth_bits(b->qh, s->q);
    set_groups(s, 2, half_to_f32(b->d), half_to_f32(b->m));
}

void split_q8_0(const void *block, struct split *s)
{
    const struct block_q8_0 *b = block;
    memcpy(s->q, b->qs, sizeof b->qs);
    set_groups(s, 2, half_to_f32(b->d), 0);
}

static void look_up(const uint8_t *qs, int n, const int8_t values[16], int8_t *q)
{
    for (int i = 0; i < n; i++) {
        q[i] = values[qs[i] & 15];
        q[i + n] = values[qs[i] >> 4];
    }
}

void split_iq4_nl(const void *block, struct split *s)
{
    const struct block_iq4_nl *b = block;
    look_up(b->qs, 16, split_iq4_values, s->q);
    set_groups(s, 2, half_to_f32(b->d), 0);
}

void split_mxfp4(const void *block, struct split *s)
{
    const struct block_mxfp4 *b = block;
    look_up(b->qs, 16, split_e2m1_values, s->q);
    set_groups(s, 2, split_e8m0(b->e), 0);
}

void split_nvfp4(const void *block, struct split *s)
{
    const struct block_nvfp4 *b = block;
    for (int g = 0; g < 4; g++) {
        look_up(b->qs + 8 * g, 8, split_e2m1_values, s->q + 16 * g);
        s->scale[g] = split_e4m3(b->d[g]);
        s->min[g] = 0;
    }
}

void split_q2_0(const void *block, struct split *s)
{
    const struct block_q2_0 *b = block;
    for (int i = 0; i < 64; i++) {
        s->q[i] = (int8_t)((b->qs[i / 4] >> i % 4 * 2 & 3) - 1);
    }
    set_groups(s, 4, half_to_f32(b->d), 0);
}

void split_q1_0(const void *block, struct split *s)
{
    const struct block_q1_0 *b = block;
    for (int i = 0; i < 128; i++) {
        s->q[i] = b->qs[i / 8] >> i % 8 & 1 ? 1 : -1;
    }
    set_groups(s, 8, half_to_f32(b->d), 0);
}

static int8_t trit(uint8_t byte, int n)
{
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    return (int8_t)(((uint8_t)(byte * powers[n]) * 3 >> 8) - 1);
}

void split_tq1_0(const void *block, struct split *s)
{
    const struct block_tq1_0 *b = block;
    for (int i = 0; i < 160; i++) {
        s->q[i] = trit(b->qs[i % 32], i / 32);
    }
    for (int i = 0; i < 80; i++) {
        s->q[160 + i] = trit(b->qs[32 + i % 16], i / 16);
    }
    for (int i = 0; i < 16; i++) {
        s->q[240 + i] = trit(b->qh[i % 4], i / 4);
    }
    set_groups(s, 16, half_to_f32(b->d), 0);
}

void split_tq2_0(const void *block, struct split *s)
{
    const struct block_tq2_0 *b = block;
    for (int i = 0; i < BLOCK_SUPER; i++) {
        s->q[i] = (int8_t)((b->qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3) - 1);
    }
    set_groups(s, 16, half_to_f32(b->d), 0);
}

split_fn *split_of(enum type t)
{
    static split_fn *const table[TYPE_ID_END] = {
        [TYPE_Q4_0] = split_q4_0,     [TYPE_Q4_1] = split_q4_1,       [TYPE_Q5_0] = split_q5_0,
        [TYPE_Q5_1] = split_q5_1,     [TYPE_Q8_0] = split_q8_0,       [TYPE_Q2_K] = split_q2_k,
        [TYPE_Q3_K] = split_q3_k,     [TYPE_Q4_K] = split_q4_k,       [TYPE_Q5_K] = split_q5_k,
        [TYPE_Q6_K] = split_q6_k,     [TYPE_Q8_K] = split_q8_k,       [TYPE_IQ1_S] = split_iq1_s,
        [TYPE_IQ1_M] = split_iq1_m,   [TYPE_IQ2_XXS] = split_iq2_xxs, [TYPE_IQ2_XS] = split_iq2_xs,
        [TYPE_IQ2_S] = split_iq2_s,   [TYPE_IQ3_XXS] = split_iq3_xxs, [TYPE_IQ3_S] = split_iq3_s,
        [TYPE_IQ4_NL] = split_iq4_nl, [TYPE_IQ4_XS] = split_iq4_xs,   [TYPE_TQ1_0] = split_tq1_0,
        [TYPE_TQ2_0] = split_tq2_0,   [TYPE_Q1_0] = split_q1_0,       [TYPE_Q2_0] = split_q2_0,
        [TYPE_MXFP4] = split_mxfp4,   [TYPE_NVFP4] = split_nvfp4,
    };
    return (unsigned)t < TYPE_ID_END ? table[t] : NULL;
}
