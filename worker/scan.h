/* Passes over a run of logits, written so that any compiler turns them into SIMD at the baseline
 * instruction set, with a fixed order of every sum: the same numbers on every machine. Pure. */
#ifndef WORKER_SCAN_H
#define WORKER_SCAN_H

#include "shared/base.h"

enum { SCAN_LANES = 16, SCAN_BLOCK = 512 };

/* e^x for x <= 0, relative error below 2e-7; 0 below -87. The same bits everywhere, unlike libm's.
 */
float scan_exp(float x);

/* The largest value; -inf when n is 0. NaN is passed over. */
float scan_max(const float *x, int64_t n);

/* Sum of e^((x - max) * scale) over the values at or above `floor`; no value is above max. */
double scan_exp_sum(const float *x, int64_t n, float max, float scale, float floor);

#endif
