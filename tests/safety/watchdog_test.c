/* The progress watchdog in virtual time. */
#include "safety/watchdog.h"
#include "tests/test.h"

static const struct watchdog_limits limits = {
    .start_ms = 30000, .preflight_ms = 90000, .load_ms = 60000, .step_ms = 10000};

/* Checks the unchanged sample every 250 ms from *now on; returns when the watchdog bites, or 0
 * after max_ms. */
static uint64_t wait_bite(struct watchdog *w, const struct watchdog_sample *s, uint64_t *now,
                          uint64_t max_ms)
{
    for (uint64_t end = *now + max_ms; *now < end; *now += 250) {
        if (watchdog_check(w, s, *now) > 0) {
            return *now;
        }
    }
    return 0;
}

static void test_phases(void)
{
    static const uint64_t want_ms[STATUS_PHASE_COUNT] = {
        [STATUS_STARTING] = 30000, [STATUS_PREFLIGHT] = 90000, [STATUS_LOADING] = 60000,
        [STATUS_IDLE] = 0,         [STATUS_PREFILL] = 10000,   [STATUS_DECODE] = 10000,
        [STATUS_DRAINING] = 10000};
    for (uint32_t phase = 0; phase < STATUS_PHASE_COUNT; phase++) {
        struct watchdog w = {0};
        watchdog_start(&w, &limits, 1000);
        uint64_t now = 1000;
        struct watchdog_sample s = {.phase = phase};
        uint64_t at = wait_bite(&w, &s, &now, 3600 * 1000);
        CHECK_INT(at, want_ms[phase] ? 1000 + want_ms[phase] : 0);
    }
    struct watchdog w = {0}; /* a number that is no phase is judged as computing */
    watchdog_start(&w, &limits, 0);
    uint64_t now = 0;
    CHECK_INT(wait_bite(&w, &(struct watchdog_sample){.phase = 77}, &now, 100000), 10000);
}

static void test_any_sign_of_progress(void)
{
    struct watchdog w = {0};
    watchdog_start(&w, &limits, 0);
    struct watchdog_sample s = {.phase = STATUS_LOADING};
    for (uint64_t now = 0; now < 600000; now += 250) {
        switch (now % 55000) {
        case 0:
            s.beat++;
            break;
        case 11000:
            s.step++;
            break;
        case 22000:
            s.op++;
            break;
        case 33000:
            s.load_done_bytes++;
            break;
        }
        CHECK_INT(watchdog_check(&w, &s, now), 0);
    }
}

static void test_slow_steps_stretch_the_deadline(void)
{
    struct watchdog w = {0};
    watchdog_start(&w, &limits, 0);
    struct watchdog_sample s = {.phase = STATUS_PREFILL};
    uint64_t now = 0;
    for (int i = 0; i < 3; i++) { /* steps of 9 s */
        CHECK_INT(wait_bite(&w, &s, &now, 9000), 0);
        s.beat++;
    }
    uint64_t start = now;
    CHECK_INT(wait_bite(&w, &s, &now, 600000), start + 8 * 9000);
}

/* Decode at a known pace: a hang is found soon, at a fast pace and at a slow one; a first prefill
 * still gets its time. */
static void test_decode_has_a_pace(void)
{
    static const struct {
        uint64_t step_ms, want_ms;
    } rows[] = {{10, 5000}, {200, 5000}, {400, 10000}, {1000, 10000}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct watchdog w = {0};
        watchdog_start(&w, &(struct watchdog_limits){.step_ms = 10000}, 0);
        struct watchdog_sample s = {.phase = STATUS_DECODE};
        uint64_t now = 0;
        while (now < 60000) {
            now += 1000;
            s.step = now / rows[i].step_ms;
            CHECK_INT(watchdog_check(&w, &s, now), 0);
        }
        struct watchdog prefills = w;
        uint64_t start = now;
        CHECK_INT(wait_bite(&w, &s, &now, 600000), start + rows[i].want_ms);
        uint64_t pace_ms = w.pace_ms;
        watchdog_start(&w, &(struct watchdog_limits){.step_ms = 10000}, now);
        CHECK_INT(w.pace_ms, pace_ms); /* its successor is known to be as fast */
        s.phase = STATUS_PREFILL;
        now = start;
        CHECK(wait_bite(&prefills, &s, &now, 600000) >= start + 10000);
    }
}

static void test_a_short_stop_is_no_slow_step(void)
{
    struct watchdog w = {0};
    watchdog_start(&w, &limits, 0);
    struct watchdog_sample s = {.phase = STATUS_DECODE};
    CHECK_INT(watchdog_check(&w, &s, 100), 0);
    CHECK_INT(watchdog_check(&w, &s, 3600 * 1000), 0); /* machine or supervisor was stopped */
    uint64_t now = 3600 * 1000 + 250;
    CHECK_INT(wait_bite(&w, &s, &now, 100000), 3600 * 1000 - 100 + 10000 + 100);
}

static void test_waiting_work(void)
{
    struct watchdog w = {0};
    watchdog_start(&w, &limits, 0);
    struct watchdog_sample s = {.phase = STATUS_IDLE};
    uint64_t now = 0;
    CHECK_INT(wait_bite(&w, &s, &now, 3600 * 1000), 0);
    uint64_t start = now;
    s.is_work_waiting = true; /* the clock starts here, not when it fell idle */
    CHECK_INT(wait_bite(&w, &s, &now, 100000), start + 10000);
}

/* It has nothing to do and does not hear the bell: frozen, whatever a step may take. */
static void test_an_unheard_bell(void)
{
    struct watchdog w = {0};
    struct watchdog_limits patient = {.step_ms = 60 * 1000};
    watchdog_start(&w, &patient, 0);
    struct watchdog_sample s = {.phase = STATUS_IDLE};
    uint64_t now = 0;
    CHECK_INT(wait_bite(&w, &s, &now, 3600 * 1000), 0);
    uint64_t start = now;
    s.is_bell_ringing = true;
    CHECK_INT(wait_bite(&w, &s, &now, 100000), start + WATCHDOG_BELL_MS);
}

static void test_read(void)
{
    _Alignas(64) static char bytes[STATUS_PAGE_BYTES];
    status_format(bytes, 7);
    struct status_page *page = status_attach(bytes, sizeof(bytes), 7);
    CHECK(page);
    status_beat(page, STATUS_DECODE);
    atomic_store(&page->step, 5);
    atomic_store(&page->op, 3);
    atomic_store(&page->n_queued, 2);
    struct watchdog_sample s = {0};
    watchdog_read(page, &s);
    CHECK(s.beat == 1 && s.step == 5 && s.op == 3 && s.phase == STATUS_DECODE && s.is_work_waiting);
}

int main(void)
{
    test_phases();
    test_any_sign_of_progress();
    test_slow_steps_stretch_the_deadline();
    test_decode_has_a_pace();
    test_a_short_stop_is_no_slow_step();
    test_waiting_work();
    test_an_unheard_bell();
    test_read();
    return 0;
}
