/* Passes over logits (see scan.h). Pure; any thread. Written with the compiler's vector types, four
 * lanes wide, because a compiler that must keep the order of float operations vectorizes neither
 * the sum nor the comparisons by itself. SCAN_LANES sums run side by side and are added in a fixed
 * order. */
#include "worker/scan.h"

#include <math.h>
#include <string.h>

typedef float f32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef double f64x4 __attribute__((vector_size(32)));

/* e^x = 2^n * e^r with |r| <= ln(2)/2; ln(2) in two parts so that n * the first is exact. */
#define EXP_UNDERFLOW (-87.0f)
#define LOG2_E 1.44269504f
#define ROUNDER 12582912.0f /* 1.5 * 2^23: adding it leaves the nearest integer */
#define LN2_HIGH 0.693359375f
#define LN2_LOW (-2.12194440e-4f)

static inline f32x4 splat(float x)
{
    return (f32x4){x, x, x, x};
}

static inline f32x4 load(const float *x)
{
    f32x4 v;
    memcpy(&v, x, sizeof(v));
    return v;
}

static inline f32x4 select4(i32x4 mask, f32x4 a, f32x4 b)
{
    return (f32x4)((mask & (i32x4)a) | (~mask & (i32x4)b));
}

static inline f32x4 exp4(f32x4 x)
{
    i32x4 lives = x >= splat(EXP_UNDERFLOW);
    x = select4(lives, x, splat(EXP_UNDERFLOW));
    f32x4 n = (x * LOG2_E + ROUNDER) - ROUNDER;
    f32x4 r = (x - n * LN2_HIGH) - n * LN2_LOW;
    /* Taylor's series; the first term left out is r^8/8!, at most 5e-9. */
    f32x4 p = splat(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    i32x4 power = (__builtin_convertvector(n, i32x4) + 127) << 23;
    return (f32x4)(lives & (i32x4)(p * (f32x4)power));
}

float scan_exp(float x)
{
    return exp4(splat(x))[0];
}

float scan_max(const float *x, int64_t n)
{
    f32x4 best[SCAN_LANES / 4];
    for (int j = 0; j < SCAN_LANES / 4; j++) {
        best[j] = splat(-INFINITY);
    }
    int64_t i = 0;
    for (; i + SCAN_LANES <= n; i += SCAN_LANES) {
        for (int j = 0; j < SCAN_LANES / 4; j++) {
            f32x4 v = load(x + i + 4 * j);
            best[j] = select4(v > best[j], v, best[j]);
        }
    }
    float max = -INFINITY;
    for (; i < n; i++) {
        max = x[i] > max ? x[i] : max;
    }
    for (int j = 0; j < SCAN_LANES; j++) {
        max = best[j / 4][j % 4] > max ? best[j / 4][j % 4] : max;
    }
    return max;
}

double scan_exp_sum(const float *x, int64_t n, float max, float scale, float floor)
{
    f64x4 sum[SCAN_LANES / 4] = {0};
    int64_t i = 0;
    for (; i + SCAN_LANES <= n; i += SCAN_LANES) {
        for (int j = 0; j < SCAN_LANES / 4; j++) {
            f32x4 v = load(x + i + 4 * j);
            f32x4 e = exp4((v - max) * scale);
            e = (f32x4)((v >= splat(floor)) & (i32x4)e);
            sum[j] += __builtin_convertvector(e, f64x4);
        }
    }
    double total = 0;
    for (; i < n; i++) {
        total += x[i] >= floor ? (double)scan_exp((x[i] - max) * scale) : 0.0;
    }
    for (int j = 0; j < SCAN_LANES; j++) {
        total += sum[j / 4][j % 4];
    }
    return total;
}
