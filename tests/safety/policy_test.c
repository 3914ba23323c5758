/* The restart policy in virtual time. The expected delays are those of the design page, written out
 * by hand. */
#include "safety/policy.h"
#include "safety/process.h"
#include "shared/err.h"
#include "tests/test.h"

#include <signal.h>

static const struct policy_death segv = {.exit_code = -1, .signal = SIGSEGV};
static const struct policy_death killed = {.exit_code = -1, .signal = SIGKILL};

static struct policy_death exited(int code)
{
    return (struct policy_death){.exit_code = code};
}

static void test_blame(void)
{
    struct policy_death d = killed;
    CHECK_INT(policy_blame(&d), POLICY_EXTERNAL);
    d.is_oom_kill = true;
    CHECK_INT(policy_blame(&d), POLICY_OWN);
    d = killed;
    d.has_words = true;
    CHECK_INT(policy_blame(&d), POLICY_OWN);
    d = killed;
    d.is_ordered = true;
    CHECK_INT(policy_blame(&d), POLICY_ORDERED);
    d.is_condemned = true; /* it hung while it was being stopped */
    CHECK_INT(policy_blame(&d), POLICY_OWN);
    CHECK_INT(policy_blame(&segv), POLICY_OWN);
    d = exited(0);
    CHECK_INT(policy_blame(&d), POLICY_OWN);
    d.is_ordered = true;
    CHECK_INT(policy_blame(&d), POLICY_ORDERED);
}

static void test_external_costs_nothing(void)
{
    struct policy p;
    policy_init(&p);
    for (int i = 0; i < 100000; i++) {
        policy_ready(&p, (uint64_t)i * 10);
        struct policy_decision r = policy_died(&p, &killed, (uint64_t)i * 10 + 5);
        CHECK(!r.gives_up && r.delay_ms == 0 && r.blame == POLICY_EXTERNAL);
    }
    struct policy_decision r = policy_died(&p, &segv, 1000005);
    CHECK(!r.gives_up && r.delay_ms == 0);
}

static void test_external_during_load_is_paced(void)
{
    struct policy p;
    policy_init(&p);
    for (int i = 0; i < 20; i++) {
        struct policy_decision r = policy_died(&p, &killed, (uint64_t)i);
        CHECK(!r.gives_up);
        CHECK_INT(r.delay_ms, i < 5 ? 0 : 1000);
    }
}

static void test_backoff_after_ready(void)
{
    static const uint64_t want_ms[] = {0,    200,   200,   200,   1000,  2000, 4000,
                                       8000, 16000, 32000, 60000, 60000, 60000};
    struct policy p;
    policy_init(&p);
    policy_ready(&p, 0);
    uint64_t now = 1000;
    for (size_t i = 0; i < COUNT_OF(want_ms); i++) {
        struct policy_decision r = policy_died(&p, &segv, now);
        CHECK(!r.gives_up && r.blame == POLICY_OWN);
        CHECK_INT(r.delay_ms, want_ms[i]);
        now += r.delay_ms + 50;
    }
    policy_forgive(&p);
    CHECK_INT(policy_died(&p, &segv, now).delay_ms, 0);
}

static void test_slow_deaths_do_not_add_up(void)
{
    struct policy p;
    policy_init(&p);
    policy_ready(&p, 0);
    for (int i = 1; i < 50; i++) { /* one in 20 s: never five in a minute */
        struct policy_decision r = policy_died(&p, &segv, (uint64_t)i * 20000);
        CHECK(!r.gives_up && r.delay_ms <= 200);
    }
}

static void test_work_done_costs_nothing(void)
{
    struct policy p;
    policy_init(&p);
    struct policy_death d = segv;
    d.has_worked = true;
    for (uint64_t i = 0; i < 50; i++) {
        policy_ready(&p, i * 3000);
        CHECK_INT(policy_died(&p, &d, i * 3000 + 50).delay_ms, 0);
    }
    for (uint64_t i = 1; i < 50; i++) { /* in quick succession: paced, but never longer */
        policy_ready(&p, 150000 + i * 300);
        CHECK_INT(policy_died(&p, &d, 150000 + i * 300 + 50).delay_ms, i == 1 ? 0 : 200);
    }
}

/* Whatever happens in whatever order: no delay above a minute, no giving up after it once was
 * ready, and no more than a dozen starts a minute for a child that does nothing but die. */
static void test_bounds_hold_for_any_history(void)
{
    uint64_t seed = 1;
    for (int run = 0; run < 200; run++) {
        struct policy p;
        policy_init(&p);
        policy_ready(&p, 0);
        uint64_t now = 0, starts[12] = {0};
        for (uint64_t n = 0; n < 1000; n++) {
            uint64_t r = test_random(&seed);
            struct policy_death d = segv;
            d.is_condemned = r & 1;
            d = r % 7 == 0 ? exited((int)(r >> 8 & 31)) : d;
            if (n >= 12) {
                CHECK(now - starts[n % 12] >= 60000);
            }
            starts[n % 12] = now;
            if (r & 2) {
                policy_ready(&p, now);
            }
            now += r >> 32 & 255;
            struct policy_decision decision = policy_died(&p, &d, now);
            CHECK(!decision.gives_up && decision.delay_ms <= 60000);
            now += decision.delay_ms;
        }
    }
}

static void test_forgiven_after_quiet_time(void)
{
    struct policy p;
    policy_init(&p);
    policy_ready(&p, 0);
    for (int i = 0; i < 8; i++) {
        CHECK(!policy_died(&p, &segv, 100 + (uint64_t)i).gives_up);
    }
    policy_ready(&p, 1000);
    CHECK_INT(policy_died(&p, &segv, 1000 + 4 * 60000).delay_ms, 16000);
    policy_ready(&p, 400000);
    CHECK_INT(policy_died(&p, &segv, 400000 + 5 * 60000).delay_ms, 0);
}

static void test_first_load(void)
{
    static const int refusals[] = {2, 10, 11, 12, 13, 14, 15, 16, 17, 18};
    struct policy p;
    for (size_t i = 0; i < COUNT_OF(refusals); i++) {
        policy_init(&p);
        struct policy_death d = exited(refusals[i]);
        struct policy_decision r = policy_died(&p, &d, 5);
        CHECK(r.gives_up);
        CHECK_INT(r.exit_code, refusals[i]);
        policy_init(&p);
        policy_ready(&p, 1);
        CHECK(!policy_died(&p, &segv, 2).gives_up);
        r = policy_died(&p, &d, 5); /* the model file went away while we served */
        CHECK(!r.gives_up);
        CHECK_INT(r.delay_ms, 1000);
        CHECK_INT(policy_died(&p, &d, 5000).delay_ms, 2000);
    }
    policy_init(&p);
    struct policy_death d = exited(PROCESS_EXEC_FAILED);
    struct policy_decision r = policy_died(&p, &d, 5);
    CHECK(r.gives_up && r.exit_code == EXIT_GENERAL);
    /* A crash at every load: five tries, then the end. */
    policy_init(&p);
    for (int i = 0; i < 4; i++) {
        CHECK(!policy_died(&p, &segv, (uint64_t)i).gives_up);
    }
    r = policy_died(&p, &segv, 10);
    CHECK(r.gives_up && r.exit_code == EXIT_GENERAL);
}

int main(void)
{
    test_blame();
    test_external_costs_nothing();
    test_external_during_load_is_paced();
    test_backoff_after_ready();
    test_slow_deaths_do_not_add_up();
    test_work_done_costs_nothing();
    test_forgiven_after_quiet_time();
    test_bounds_hold_for_any_history();
    test_first_load();
    return 0;
}
