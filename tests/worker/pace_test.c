/* What steps may be expected to take, and when a model counts as slow. */
#include "worker/pace.h"
#include "tests/test.h"

static void before_anything_is_measured(void)
{
    struct pace p;
    pace_begin(&p, "cpu", 500e6, 24, true);
    /* 500 M parameters, 512 rows: 512 GFLOP at 4 GFLOP/s, a layer of 24 of it */
    CHECK_INT(pace_expect_ms(&p, 512), 5333);
    CHECK_INT(pace_expect_ms(&p, 1), 125);
    pace_begin(&p, "cpu", 500e6, 24, false);
    CHECK_INT(pace_expect_ms(&p, 512), 128000);
    pace_begin(&p, "cpu", 1e15, 1, false); /* a number of parameters that overflows nothing */
    CHECK_INT(pace_expect_ms(&p, 1 << 20), 3600000);
}

static void after_it_was_measured(void)
{
    struct pace p;
    double ns, best;
    pace_begin(&p, "cpu", 500e6, 10, true);
    CHECK(!pace_learn(&p, 100, 2e9, &ns, &best)); /* 20 ms a row */
    CHECK_INT(pace_expect_ms(&p, 500), 1000);     /* a tenth of 10 s */
    for (int i = 0; i < 200; i++) {
        CHECK(!pace_learn(&p, 100, 1e9, &ns, &best)); /* the slow one is forgotten */
    }
    CHECK_INT(pace_expect_ms(&p, 500), 500);
    CHECK(!pace_learn(&p, 1, 40e6, &ns, &best));
    CHECK_INT(pace_expect_ms(&p, 4), 20);
}

static void another_device(void)
{
    struct pace p = {0};
    double ns, best;
    CHECK(!pace_is_of(&p, "cpu") && !pace_is_of(&p, ""));
    pace_begin(&p, "cpu", 500e6, 10, true);
    CHECK(!pace_learn(&p, 1, 40e6, &ns, &best));
    CHECK(pace_is_of(&p, "cpu") && !pace_is_of(&p, "gpu gfx1100"));
    pace_begin(&p, "gpu gfx1100", 500e6, 10, true);
    CHECK(p.few_ns == 0 && pace_is_of(&p, "gpu gfx1100"));
}

static void slow_against_itself(void)
{
    struct pace p;
    double ns = 0, best = 0;
    pace_begin(&p, "cpu", 500e6, 10, true);
    for (int i = 0; i < 1000; i++) {
        CHECK(!pace_learn(&p, 1, i % 7 == 0 ? 12e6 : 8e6, &ns, &best));
        CHECK(!pace_learn(&p, 8, 60e6, &ns, &best)); /* more rows take longer: no slowness */
    }
    int told = 0, steps = 0;
    for (int i = 0; i < 1000; i++) {
        if (pace_learn(&p, 1, 40e6, &ns, &best)) {
            told++;
            steps = i;
        }
    }
    CHECK_INT(told, 1); /* once */
    CHECK(steps < 100 && best < 13e6 && ns > 30e6);
    CHECK(!pace_learn(&p, 1, 1e6, &ns, &best));
    pace_begin(&p, "cpu", 1e6, 10, true);
    for (int i = 0; i < 1000; i++) { /* a tiny model beside others: nobody would notice */
        CHECK(!pace_learn(&p, 1, i < 500 ? 0.1e6 : 1e6, &ns, &best));
    }
}

int main(void)
{
    before_anything_is_measured();
    after_it_was_measured();
    another_device();
    slow_against_itself();
    return 0;
}
