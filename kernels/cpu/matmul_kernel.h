/* What the matmul kernels of each instruction set offer to matmul.c, and the packed activations
 * they share. */
#ifndef KERNELS_CPU_MATMUL_KERNEL_H
#define KERNELS_CPU_MATMUL_KERNEL_H

#include "kernels/cpu/panel.h"
#include "kernels/matmul.h"

/* 32 activations in 8 bits: x[i] ~ d[i / 16] * q[i], d = max |x| / 127 over the 32 or over each 16;
 * one cache line. The sums serve weights that are stored with an offset (128 times the negative
 * sum, or its part for a smaller offset, starts the integer sum) or with a minimum (the sum of d *
 * q). An x that is not finite makes d not finite. */
struct matmul_unit {
    int8_t q[32];
    float d[2];
    float d_sum;
    float d_sum16[2];
    int32_t neg_sum;
    int32_t neg_sum16[2];
};
_Static_assert(sizeof(struct matmul_unit) == 64, "a cache line");

/* 256 activations in 16 bits: x[i] ~ d[i / 64] * q[i / 64][i % 64]. The last block of a row may be
 * used in part. */
struct matmul_words {
    int16_t q[PANEL_WORDS_UNITS][PANEL_WORDS_UNIT];
    float d[16]; /* one for each unit; the rest fills the cache line */
};
_Static_assert(sizeof(struct matmul_words) == 9 * 64, "whole cache lines");

/* Two vectors of 64 integers whose lengths are at most this (before rounding) have a dot product
 * below 2^31, whatever their signs: |a . b| <= |a| |b|, and rounding adds at most sqrt(64) / 2 to a
 * length. No single integer exceeds 32767. */
#define MATMUL_WORDS_LENGTH 46300.0f
/* What numbers of this size and below become: nothing (the reciprocal would overflow). */
#define MATMUL_WORDS_ZERO 1e-30f

/* From so many tokens on, unpacking a panel to bytes pays before it meets them. */
enum { MATMUL_MANY_TOKENS = 24 };

struct matmul_kernel {
    /* Outputs of panels [lo, hi), all tokens. */
    void (*run)(const struct matmul *m, int64_t lo, int64_t hi);
    /* One row of activations to units (MATMUL_ACT_Q16: to struct matmul_words). */
    void (*act)(enum matmul_act act, const float *x, void *y, int64_t n_units);
};

extern const struct matmul_kernel matmul_avx2, matmul_avx2_vnni, matmul_avx512;

/* The reference: outputs of rows [lo, hi), all tokens, weights in the file's form. */
void matmul_scalar_rows(const struct matmul *m, int64_t lo, int64_t hi);

#endif
