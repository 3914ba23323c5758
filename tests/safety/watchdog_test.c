/* The progress watchdog in virtual time. */
#include "safety/watchdog.h"
#include "tests/test.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

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
        [STATUS_IDLE] = 0,         [STATUS_PREFILL] = 2000,    [STATUS_DECODE] = 2000,
        [STATUS_DRAINING] = 2000};
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
    CHECK_INT(wait_bite(&w, &(struct watchdog_sample){.phase = 77}, &now, 100000), 2000);
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

/* Ops that are known to take long, or were seen to, are no stall. */
static void test_slow_steps_stretch_the_deadline(void)
{
    static const struct {
        uint32_t expect_ms;
        uint64_t want_ms;
    } rows[] = {{0, 2000}, {99, 2000}, {200, 4000}, {499, 10000}, {UINT32_MAX, 10000}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct watchdog w = {0};
        watchdog_start(&w, &limits, 0);
        struct watchdog_sample s = {.phase = STATUS_PREFILL, .expect_ms = rows[i].expect_ms};
        uint64_t now = 0;
        CHECK_INT(wait_bite(&w, &s, &now, 600000), rows[i].want_ms);
    }
    struct watchdog w = {0};
    watchdog_start(&w, &limits, 0);
    struct watchdog_sample s = {.phase = STATUS_PREFILL};
    uint64_t now = 0;
    for (int i = 0; i < 3; i++) { /* silences of 1.5 s */
        CHECK_INT(wait_bite(&w, &s, &now, 1500), 0);
        s.op++;
    }
    uint64_t start = now;
    CHECK_INT(wait_bite(&w, &s, &now, 600000), start + 8 * 1500);
    watchdog_start(&w, &limits, 0); /* steps that are seen at every check are no silence */
    for (now = 0; now < 60000; now += 250) {
        s.step++;
        CHECK_INT(watchdog_check(&w, &s, now), 0);
    }
    start = now - 250;
    CHECK_INT(wait_bite(&w, &s, &now, 600000), start + 2000);
}

/* The machine or the supervisor was stopped, once or again and again. */
static void test_a_stop_is_no_slow_step(void)
{
    struct watchdog w = {0};
    watchdog_start(&w, &limits, 0);
    struct watchdog_sample s = {.phase = STATUS_DECODE};
    CHECK_INT(watchdog_check(&w, &s, 100), 0);
    CHECK_INT(watchdog_check(&w, &s, 3600 * 1000), 0);
    uint64_t now = 3600 * 1000 + 250;
    CHECK_INT(wait_bite(&w, &s, &now, 100000), 3600 * 1000 + 2000);
    watchdog_start(&w, &limits, 0);
    for (now = 0; now < 3600 * 1000; now += 1600) {
        CHECK_INT(watchdog_check(&w, &s, now), 0);
    }
}

/* One that runs gets more time than one that does not, but not for ever. */
static void test_patience(void)
{
    struct watchdog w = {0};
    watchdog_start(&w, &limits, 0);
    struct watchdog_sample s = {.phase = STATUS_DECODE};
    CHECK_INT(watchdog_check(&w, &s, 0), 0);
    CHECK(watchdog_is_busy(&w));
    CHECK(watchdog_has_patience(&w, 2000) && watchdog_has_patience(&w, 5999));
    CHECK(!watchdog_has_patience(&w, 6000));
    s.phase = STATUS_IDLE;
    (void)watchdog_check(&w, &s, 10);
    CHECK(!watchdog_has_patience(&w, 1) && !watchdog_is_busy(&w));
    CHECK(watchdog_is_running("", getpid()));
    pid_t pid = fork();
    if (pid == 0) {
        pause();
    }
    while (watchdog_is_running("", pid)) {
        usleep(1000);
    }
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
    CHECK(!watchdog_is_running("", pid) && !watchdog_is_running("/nonexistent", 1));
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
    test_a_stop_is_no_slow_step();
    test_patience();
    test_waiting_work();
    test_an_unheard_bell();
    test_read();
    return 0;
}
