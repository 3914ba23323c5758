/* The functions that both rigs share (kernels/hip/gpu_rig.h) beside double precision, over their
 * whole range, and at its ends. */
#include "kernels/hip/gpu.h"
#include "tests/test.h"

enum { STEPS = 200003 };

/* In units of the last digit of a float that is as large as `exact`. */
static double ulps(float y, double exact)
{
    int e;
    (void)frexp(exact, &e);
    return fabs((double)y - exact) / ldexp(1, e - 24);
}

static double at(int i, double low, double high)
{
    return (double)(float)(low + (high - low) * i / (STEPS - 1));
}

static void test_errors(void)
{
    double exp2_error = 0, log2_error = 0, near_one_error = 0, rcp_error = 0, rsq_error = 0;
    for (int i = 0; i < STEPS; i++) {
        double x = at(i, -125.99, 127.99), positive = (double)(float)exp2(x);
        double near = at(i, 0.7, 1.42), near_log = log2(near);
        exp2_error = fmax(exp2_error, ulps(gpu_exp2((float)x), exp2(x)));
        log2_error = fmax(log2_error, ulps(gpu_log2((float)positive), log2(positive)));
        float got = gpu_log2((float)near);
        near_one_error =
            fmax(near_one_error, near_log == 0 ? fabs((double)got) : ulps(got, near_log));
        rcp_error = fmax(rcp_error, fabs(x) < 0.01 ? 0 : ulps(gpu_rcp((float)-x), 1 / -x));
        rsq_error = fmax(rsq_error, ulps(gpu_rsq((float)positive), 1 / sqrt(positive)));
    }
    printf("errors in ulp: exp2 %.2f, log2 %.2f (near 1: %.2f), rcp %.2f, rsq %.2f\n", exp2_error,
           log2_error, near_one_error, rcp_error, rsq_error);
    CHECK(exp2_error < 1 && log2_error < 3 && near_one_error < 3 && rcp_error <= 0.5 &&
          rsq_error < 1.5);
}

static void test_ends(void)
{
    const float inf = INFINITY, nan = NAN, small = 0x1p-127f;
    CHECK(gpu_exp2(0) == 1 && gpu_exp2(1) == 2 && gpu_exp2(-126) == 0x1p-126f);
    CHECK(gpu_exp2(small) == 1 && gpu_exp2(-126.01f) == 0 && gpu_exp2(-inf) == 0);
    CHECK(gpu_exp2(127) == 0x1p127f && gpu_exp2(128) == inf && gpu_exp2(inf) == inf);
    CHECK(gpu_log2(1) == 0 && gpu_log2(8) == 3 && gpu_log2(0x1p-126f) == -126);
    CHECK(gpu_log2(small) == -inf && gpu_log2(0) == -inf && gpu_log2(-0.0f) == -inf);
    CHECK(gpu_log2(inf) == inf && gpu_log2(0x1p127f) == 127);
    CHECK(gpu_rcp(4) == 0.25f && gpu_rcp(small) == inf && gpu_rcp(-small) == -inf);
    CHECK(gpu_rcp(inf) == 0 && gpu_rcp(-inf) == 0 && signbit(gpu_rcp(-inf)));
    CHECK(gpu_rcp(0x1.8p126f) == 0);
    CHECK(gpu_rsq(0.25f) == 2 && gpu_rsq(small) == inf && gpu_rsq(inf) == 0);
    CHECK(isnan(gpu_log2(-1)) && isnan(gpu_log2(-inf)) && isnan(gpu_rsq(-1)));
    CHECK(isnan(gpu_exp2(nan)) && isnan(gpu_log2(nan)) && isnan(gpu_rcp(nan)) &&
          isnan(gpu_rsq(nan)));
}

int main(void)
{
    test_errors();
    test_ends();
    return 0;
}
