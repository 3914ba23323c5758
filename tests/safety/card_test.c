/* What the supervisor makes of a reset of the card: whose doing it was, which death it explains,
 * and when a worker may be started again; and of a card that is wedged. */
#include "safety/card.h"
#include "safety/degrade.h"
#include "tests/test.h"

#include <string.h>

static struct config config;
static const struct supervisor_options options;
static struct supervisor s;
static uint64_t now_ms;

static void begin(uint32_t phase, uint64_t still_ms)
{
    s = (struct supervisor){.options = &options, .cfg = &config};
    s.worker = (struct child){.name = "worker",
                              .state = CHILD_READY,
                              .holds_gpu = true,
                              .pid = 4242,
                              .pidfd = -1,
                              .stderr_fd = -1};
    now_ms = 1000000;
    s.watchdog.last.phase = phase;
    s.watchdog.change_ms = now_ms - still_ms;
}

static void saw(enum msg_card_event event, uint32_t pid, const char *detail)
{
    struct channel_msg m = {.type = MSG_CARD};
    struct msg_card card = {.event = event, .pid = pid};
    snprintf(card.detail, sizeof(card.detail), "%s", detail);
    memcpy(m.payload, &card, sizeof(card));
    card_saw(&s, &m, now_ms);
}

static void whose_reset(void)
{
    static const struct {
        const char *what;
        uint32_t phase;
        uint64_t still_ms;
        uint32_t fault_pid;
        uint64_t fault_age_ms;
        bool is_condemned, is_explained;
    } rows[] = {
        {"it had progressed a moment before", STATUS_DECODE, 300, 0, 0, false, true},
        {"it hung", STATUS_DECODE, 2000, 0, 0, false, false},
        {"it was idle for long", STATUS_IDLE, 600000, 0, 0, false, true},
        {"it had a fault", STATUS_DECODE, 10, 4242, 500, false, false},
        {"it had one long ago", STATUS_DECODE, 10, 4242, 40000, false, true},
        {"another program had a fault", STATUS_DECODE, 10, 77, 500, false, true},
        {"it was being ended because it hung", STATUS_DECODE, 10, 0, 0, true, false},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        begin(rows[i].phase, rows[i].still_ms);
        if (rows[i].fault_pid != 0) {
            now_ms -= rows[i].fault_age_ms;
            saw(MSG_CARD_FAULT, rows[i].fault_pid, "1092:x");
            now_ms += rows[i].fault_age_ms;
        }
        s.worker.state = rows[i].is_condemned ? CHILD_CONDEMNED : CHILD_READY;
        saw(MSG_CARD_RESET_BEGINS, 0, "1");
        now_ms += 400;
        if (card_explains(&s, now_ms) != rows[i].is_explained) {
            TEST_FAIL("%s", rows[i].what);
        }
        CHECK(!card_explains(&s, now_ms)); /* a reset explains one death */
    }
    CHECK(!s.card.is_excuse);
}

static void a_reset_is_no_excuse_for_ever(void)
{
    begin(STATUS_DECODE, 10);
    CHECK(!card_explains(&s, now_ms));
    saw(MSG_CARD_RESET_BEGINS, 0, "");
    now_ms += CARD_EXCUSE_MS;
    CHECK(!card_explains(&s, now_ms));
    begin(STATUS_DECODE, 10);
    s.worker.holds_gpu = false; /* on the CPU: it has nothing to do with it */
    saw(MSG_CARD_RESET_BEGINS, 0, "");
    CHECK(!card_explains(&s, now_ms));
}

static void a_fault_of_who_knows_whom(void)
{
    begin(STATUS_DECODE, 10);
    saw(MSG_CARD_FAULT, 0, "1092:x");
    saw(MSG_CARD_RESET_BEGINS, 0, "");
    CHECK(!card_explains(&s, now_ms));
}

static void the_kernel_knows_better(void)
{
    begin(STATUS_DECODE, 5000);
    saw(MSG_CARD_RESET_BEGINS, 0, "");
    saw(MSG_CARD_RECOVERED, 77, "none");
    CHECK(card_is_usable(&s, now_ms));
    CHECK(card_explains(&s, now_ms));
    begin(STATUS_DECODE, 10);
    saw(MSG_CARD_RESET_BEGINS, 0, "");
    saw(MSG_CARD_RECOVERED, 4242, "none");
    CHECK(!card_explains(&s, now_ms));
}

static void when_a_worker_may_start(void)
{
    begin(STATUS_DECODE, 10);
    CHECK(card_is_usable(&s, now_ms) && !card_is_watched(&s, now_ms));
    saw(MSG_CARD_RESET_BEGINS, 0, "");
    CHECK(!card_is_usable(&s, now_ms) && card_is_watched(&s, now_ms));
    s.worker_at_ms = now_ms + POLICY_BACKOFF_MAX_MS; /* after deaths of its own fault */
    saw(MSG_CARD_RESET_ENDS, 0, "");
    CHECK(card_is_usable(&s, now_ms) && !card_is_watched(&s, now_ms));
    CHECK(s.worker_at_ms == now_ms + POLICY_BACKOFF_MAX_MS);
    saw(MSG_CARD_RESET_BEGINS, 0, ""); /* whose end is never told */
    now_ms += CARD_RESET_MS;
    CHECK(card_is_usable(&s, now_ms) && !card_is_watched(&s, now_ms));
    CHECK_INT(s.watch.last.n_resets, 2);
    saw((enum msg_card_event)99, 0, "");
    saw(MSG_CARD_THROTTLED, 0, "1:1");
    saw(MSG_CARD_THROTTLED, 0, "1:2");
    CHECK(card_is_usable(&s, now_ms));
    CHECK_INT(s.watch.last.n_throttles, 2);
}

static void wedged(void)
{
    begin(STATUS_IDLE, 0);
    s.worker.holds_gpu = false; /* (there is no process to end) */
    config.v[CONFIG_cpu_fallback].i = 0;
    saw(MSG_CARD_WEDGED, 0, "rebind");
    CHECK(!card_is_usable(&s, now_ms) && card_is_watched(&s, now_ms) && !degrade_is_cpu(&s));
    config.v[CONFIG_cpu_fallback].i = 2; /* always */
    CHECK(degrade_is_cpu(&s) && s.degrade.ladder.rung == LADDER_FULL);
    card_was_read(&s, now_ms); /* as before: that says nothing */
    CHECK(!card_is_usable(&s, now_ms));
    saw(MSG_CARD_BACK, 0, "");
    CHECK(card_is_usable(&s, now_ms) && !degrade_is_cpu(&s));
    saw(MSG_CARD_WEDGED, 0, "rebind"); /* and BACK is not heard */
    saw(MSG_CARD_UNREAD, 0, "No such file or directory");
    card_was_read(&s, now_ms);
    CHECK(card_is_usable(&s, now_ms));
    saw(MSG_CARD_WEDGED, 0, "rebind");
    saw(MSG_CARD_UNREAD, 0, "No such file or directory");
    saw(MSG_CARD_WEDGED, 0, "rebind"); /* so it is there, and still wedged */
    card_was_read(&s, now_ms);
    CHECK(!card_is_usable(&s, now_ms));
    now_ms += CARD_WEDGED_MS;
    card_tick(&s, now_ms);
    CHECK(card_is_usable(&s, now_ms));
    saw(MSG_CARD_UNREAD, 0, ""); /* of one that is in order */
    card_was_read(&s, now_ms);
    CHECK(card_is_usable(&s, now_ms));
}

int main(void)
{
    whose_reset();
    a_reset_is_no_excuse_for_ever();
    a_fault_of_who_knows_whom();
    the_kernel_knows_better();
    when_a_worker_may_start();
    wedged();
    return 0;
}
