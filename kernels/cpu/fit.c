/* Candidates for a scale come from stretching the range of codes over the group by a few percent
 * more or less; each is rounded, solved for the scale by least squares, and judged by its error;
 * the best is iterated. Pure. Sums run in eight lanes, which is what lets the compiler use vector
 * instructions for them. */
#include "kernels/cpu/fit.h"

#include <math.h>

enum { LANES = 8, STRETCHES = 9, ITERATIONS = 3 };
static const float STRETCH_STEP = 0.1f; /* of a code */

static float lanes_sum(const float *a)
{
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}

/* Rounds to an integer, for |v| < 2^22, without a library call in the loop. */
static float nearest_integer(float v)
{
    return v + 0x1.8p23f - 0x1.8p23f;
}

static float inverse_of(float scale)
{
    float inverse = 1.0f / scale;
    return isfinite(inverse) ? inverse : 0.0f;
}

static float error_of(const float *x, const float *w, int n, float scale, float min, const float *q)
{
    float error[LANES] = {0};
    for (int i = 0; i < n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            float e = x[i + l] - (scale * q[i + l] + min);
            error[l] += w[i + l] * e * e;
        }
    }
    return lanes_sum(error);
}

float fit_round(const struct fit_codes *c, const float *x, const float *w, int n, float scale,
                float *q)
{
    float inverse = inverse_of(scale), lo = (float)c->lo, hi = (float)c->hi;
    if (c->nearest) {
        for (int i = 0; i < n; i++) {
            float v = fminf(fmaxf(x[i] * inverse, lo), hi) * (float)c->steps;
            q[i] = c->nearest[(int)nearest_integer(v) + 128];
        }
    } else {
        for (int i = 0; i < n; i++) {
            float v = x[i] * inverse;
            v = v > lo ? v : lo;
            q[i] = nearest_integer(v < hi ? v : hi);
        }
    }
    return error_of(x, w, n, scale, 0, q);
}

/* The least-squares scale of the codes, and how much error it removes. */
static float solve(const float *x, const float *w, int n, const float *q, float *ret_gain)
{
    float xq[LANES] = {0}, qq[LANES] = {0};
    for (int i = 0; i < n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            float wq = w[i + l] * q[i + l];
            xq[l] += wq * x[i + l];
            qq[l] += wq * q[i + l];
        }
    }
    float sum_xq = lanes_sum(xq), sum_qq = lanes_sum(qq);
    float scale = sum_qq > 0 ? sum_xq / sum_qq : 0;
    *ret_gain = sum_xq * scale;
    return scale;
}

float fit_scale(const struct fit_codes *c, const float *x, const float *w, int n)
{
    float peak = 0, best = 0, best_gain = 0;
    for (int i = 0; i < n; i++) {
        peak = fabsf(x[i]) > fabsf(peak) ? x[i] : peak;
    }
    float q[FIT_MAX];
    int n_sides = c->lo == -c->hi ? 1 : 2;
    for (int side = 0; side < n_sides; side++) {
        float bound = (float)(side ? c->hi : c->lo);
        for (int s = -STRETCHES; s <= STRETCHES && peak != 0; s++) {
            float scale = peak / (bound + (float)s * STRETCH_STEP);
            for (int i = 0; i < ITERATIONS; i++) {
                float gain;
                fit_round(c, x, w, n, scale, q);
                scale = solve(x, w, n, q, &gain);
                if (!(gain > best_gain)) {
                    break;
                }
                best = scale;
                best_gain = gain;
            }
        }
    }
    return best;
}

float fit_affine_round(int hi, const float *x, const float *w, int n, float scale, float min,
                       float *q)
{
    float inverse = inverse_of(scale), top = (float)hi;
    for (int i = 0; i < n; i++) {
        float v = (x[i] - min) * inverse;
        v = v > 0 ? v : 0;
        q[i] = nearest_integer(v < top ? v : top);
    }
    return error_of(x, w, n, scale, min, q);
}

struct moments {
    double w, x; /* sums of w, w x; the rest depends on the codes */
};

static void solve_affine(const struct moments *s, const float *x, const float *w, int n,
                         const float *q, float max_min, float *scale, float *min)
{
    float lane_q[LANES] = {0}, lane_qq[LANES] = {0}, lane_xq[LANES] = {0};
    for (int i = 0; i < n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            float wq = w[i + l] * q[i + l];
            lane_q[l] += wq;
            lane_qq[l] += wq * q[i + l];
            lane_xq[l] += wq * x[i + l];
        }
    }
    double sq = lanes_sum(lane_q), sqq = lanes_sum(lane_qq), sxq = lanes_sum(lane_xq);
    double det = s->w * sqq - sq * sq;
    double d = det > 0 ? (s->w * sxq - sq * s->x) / det : 0;
    double m = det > 0 ? (sqq * s->x - sq * sxq) / det : s->x / s->w;
    if (m > (double)max_min) {
        m = (double)max_min;
        d = sqq > 0 ? (sxq - m * sq) / sqq : 0;
    }
    *scale = d > 0 ? (float)d : 0;
    *min = (float)m;
}

void fit_affine(int hi, const float *x, const float *w, int n, float max_min, float *ret_scale,
                float *ret_min)
{
    float lowest = max_min, highest = x[0], best_error = INFINITY;
    struct moments sums = {0, 0};
    for (int i = 0; i < n; i++) {
        lowest = x[i] < lowest ? x[i] : lowest;
        highest = x[i] > highest ? x[i] : highest;
        sums.w += (double)w[i];
        sums.x += (double)w[i] * (double)x[i];
    }
    *ret_scale = 0;
    *ret_min = lowest;
    float q[FIT_MAX];
    for (int s = -STRETCHES; s <= STRETCHES; s++) {
        float min = lowest;
        float scale = (highest - lowest) / ((float)hi + (float)s * STRETCH_STEP);
        for (int i = 0; i < ITERATIONS; i++) {
            float error = fit_affine_round(hi, x, w, n, scale, min, q);
            if (error < best_error) {
                best_error = error;
                *ret_scale = scale;
                *ret_min = min;
            } else if (i > 0) {
                break;
            }
            solve_affine(&sums, x, w, n, q, max_min, &scale, &min);
        }
    }
}
