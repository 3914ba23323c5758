/* What steps may be expected to take, and when a model counts as slow. */
#include "worker/pace.h"
#include "tests/test.h"

#include <math.h>

/* 500 M parameters of 8 bits in 24 layers; attention of 1024 columns. */
static const struct pace_work work = {
    .step_bytes = 500e6, .row_ops = 1e9, .look_ops = 100e3, .longest = 1.0 / 24};
static const struct pace_rates unknown = {0};

static struct pace begin(const struct pace_rates *first, double longest)
{
    struct pace p;
    struct pace_work own = work;
    own.longest = longest;
    pace_begin(&p, pace_device("cpu"), &own, first);
    return p;
}

static uint32_t expect(const struct pace *p, int64_t n_rows, int64_t n_looks)
{
    return pace_expect_ms(p, &(struct pace_step){n_rows, n_looks});
}

static bool learn(struct pace *p, int64_t n_rows, double ns, double *ret_ns, double *ret_best)
{
    return pace_learn(p, &(struct pace_step){.n_rows = n_rows}, ns, ret_ns, ret_best);
}

static void before_anything_is_measured(void)
{
    /* 512 rows: 512 GOP at 4 GOP/s, a layer of 24 of it */
    struct pace p = begin(&unknown, 1.0 / 24);
    CHECK_INT(expect(&p, 512, 0), 5333);
    CHECK_INT(expect(&p, 1, 0), 20); /* 500 MB at 1 GB/s, and a layer of it */
    p = begin(&unknown, 1);
    CHECK_INT(expect(&p, 512, 0), 128000);
    CHECK_INT(expect(&p, INT64_MAX, INT64_MAX), 3600000); /* overflows nothing */
}

/* By what an earlier worker measured, or what is known of the device: whichever takes longer, bytes
 * or operations; attention counts, too. */
static void by_rates(void)
{
    static const struct pace_rates rates = {.bytes = 10e9, .ops = 100e9};
    struct pace p = begin(&rates, 1);
    CHECK_INT(expect(&p, 512, 0), 5120);
    CHECK_INT(expect(&p, 1, 0), 50);
    CHECK_INT(expect(&p, 512, 512 * 10000), 5120 + 5120);
    static const struct pace_rates card = {.bytes = 800e9, .ops = 60e12};
    p = begin(&card, 1);
    CHECK_INT(expect(&p, 512, 0), 8);
    static const struct pace_rates half = {.ops = 100e9};
    p = begin(&half, 1);
    CHECK_INT(expect(&p, 1, 0), 500);
}

static void after_it_was_measured(void)
{
    struct pace p = begin(&unknown, 0.1);
    double ns, best;
    struct pace_rates r = pace_measured(&p);
    CHECK(r.bytes == 0 && r.ops == 0);
    CHECK(!learn(&p, 100, 2e9, &ns, &best)); /* 20 ms a row */
    CHECK_INT(expect(&p, 500, 0), 1000);     /* a tenth of 10 s */
    for (int i = 0; i < 200; i++) {
        CHECK(!learn(&p, 100, 1e9, &ns, &best)); /* the slow one is forgotten */
    }
    CHECK_INT(expect(&p, 500, 0), 500);
    CHECK(!learn(&p, 1, 40e6, &ns, &best));
    CHECK_INT(expect(&p, 4, 0), 4);
    r = pace_measured(&p); /* 500 MB in 40 ms, 100 GOP in a second */
    CHECK(fabs(r.bytes / 12.5e9 - 1) < 1e-9 && fabs(r.ops / 100e9 - 1) < 1e-9);
    struct pace next = begin(&r, 0.1); /* another worker begins where this one is */
    CHECK_INT(expect(&next, 500, 0), 500);
    CHECK_INT(expect(&next, 4, 0), 4);
}

static void slow_against_itself(void)
{
    struct pace p = begin(&unknown, 0.1);
    double ns = 0, best = 0;
    CHECK(pace_device("cpu") != pace_device("gpu gfx1100") && pace_device("") != 0);
    for (int i = 0; i < 1000; i++) {
        CHECK(!learn(&p, 1, i % 7 == 0 ? 12e6 : 8e6, &ns, &best));
        CHECK(!learn(&p, 8, 60e6, &ns, &best)); /* more rows take longer: no slowness */
    }
    int told = 0, steps = 0;
    for (int i = 0; i < 1000; i++) {
        if (learn(&p, 1, 40e6, &ns, &best)) {
            told++;
            steps = i;
        }
    }
    CHECK_INT(told, 1); /* once */
    CHECK(steps < 100 && best < 13e6 && ns > 30e6);
    CHECK(!learn(&p, 1, 1e6, &ns, &best));
    p = begin(&unknown, 0.1);
    for (int i = 0; i < 1000; i++) { /* a tiny model beside others: nobody would notice */
        CHECK(!learn(&p, 1, i < 500 ? 0.1e6 : 1e6, &ns, &best));
    }
}

int main(void)
{
    before_anything_is_measured();
    by_rates();
    after_it_was_measured();
    slow_against_itself();
    return 0;
}
