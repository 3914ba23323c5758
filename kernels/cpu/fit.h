/* Least-squares fitting of scales to small groups of weights: the search behind the encoders.
 *
 * A group is n weights x, finite, n a multiple of 8 up to FIT_MAX, with importances w > 0.
 * Everything minimises sum w * (x - fitted)^2 and rounds to the nearest code. Codes are small
 * integers, held in floats. */
#ifndef KERNELS_CPU_FIT_H
#define KERNELS_CPU_FIT_H

#include "shared/base.h"

enum { FIT_MAX = 32 };

/* Codes: the integers lo..hi, or only some of them: nearest[i + 128] is then the code nearest to i
 * / steps. */
struct fit_codes {
    int lo, hi;
    const int8_t *nearest; /* 256 entries, or NULL */
    int steps;             /* of the table in a code; hi * steps <= 127 */
};

/* Codes nearest to x / scale (0 where scale is 0); returns the error. */
float fit_round(const struct fit_codes *c, const float *x, const float *w, int n, float scale,
                float *q);
/* The best scale found, of either sign. */
float fit_scale(const struct fit_codes *c, const float *x, const float *w, int n);

/* Codes 0..hi nearest to (x - min) / scale; returns the error. */
float fit_affine_round(int hi, const float *x, const float *w, int n, float scale, float min,
                       float *q);
/* The best scale >= 0 and min found for codes 0..hi. max_min: an upper bound of min (0 for formats
 * that subtract an unsigned minimum, INFINITY otherwise). */
void fit_affine(int hi, const float *x, const float *w, int n, float max_min, float *ret_scale,
                float *ret_min);

#endif
