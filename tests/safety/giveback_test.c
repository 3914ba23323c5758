/* What the supervisor tells the worker of the card's memory, and when: above the ceiling; when it
 * may grow; and, once it was bound, whatever holds from then on, for models that it will load. */
#include "safety/giveback.h"
#include "safety/vram.h"
#include "shared/config.h"
#include "tests/test.h"

static struct config config;
static const struct supervisor_options options;
static struct supervisor s;
static struct channel worker;
static uint64_t now_ms = 1000;

#define GIB ((uint64_t)1 << 30)

static void begin(void)
{
    int fds[2];
    CHECK_INT(channel_pair(fds), 0);
    s = (struct supervisor){.options = &options, .cfg = &config, .epoch = {.id = 1}};
    s.worker =
        (struct child){.state = CHILD_READY, .holds_gpu = true, .pidfd = -1, .stderr_fd = -1};
    channel_init(&s.worker.channel, fds[0], MSG_SUPERVISOR, MSG_WORKER);
    channel_init(&worker, fds[1], MSG_WORKER, MSG_SUPERVISOR);
    s.worker.channel.state = worker.state = MSG_STATE_RUNNING;
    s.watch.last.total_bytes = 16 * GIB;
}

static void end(void)
{
    channel_close(&s.worker.channel);
    channel_close(&worker);
}

/* A measurement; true: the worker is told this ceiling. */
static bool is_told(uint64_t ceiling, uint64_t ours)
{
    struct channel_msg m;
    struct msg_budget b;
    s.watch.last.ceiling_bytes = ceiling;
    s.watch.last.ours_bytes = ours;
    giveback_saw(&s, now_ms += 1000);
    int rc = channel_recv(&worker, &m);
    CHECK(rc == 0 || (rc == 1 && m.type == MSG_BUDGET));
    memcpy(&b, m.payload, rc == 1 ? sizeof(b) : 0);
    CHECK(rc == 0 || b.ceiling_bytes == ceiling);
    return rc == 1;
}

static void answer(uint64_t held, uint64_t given, uint64_t left)
{
    struct channel_msg m = {.type = MSG_GAVE};
    struct msg_gave gave = {.round = s.giveback.round,
                            .held_bytes = held,
                            .given_bytes = given,
                            .left_bytes = left};
    memcpy(m.payload, &gave, sizeof(gave));
    giveback_heard(&s, &m, now_ms);
    s.giveback.n_stale = 0; /* as after a while */
}

static void caches(void)
{
    begin();
    CHECK(is_told(10 * GIB, 8 * GIB)); /* each worker is told once, whatever it is */
    answer(8 * GIB, 0, 0);
    CHECK(!is_told(10 * GIB, 8 * GIB));
    CHECK(is_told(6 * GIB, 8 * GIB));
    CHECK(!is_told(5 * GIB, 8 * GIB)); /* not before it has answered */
    answer(5 * GIB, 3 * GIB, 0);
    CHECK(is_told(7 * GIB, 5 * GIB)); /* it may grow */
    end();
}

/* Nothing is left that could grow; the next load is to have what is there then. */
static void the_next_load(void)
{
    begin();
    CHECK(is_told(4 * GIB, 8 * GIB));
    answer(0, 0, 0); /* the idle model went */
    CHECK(!is_told(4 * GIB, GIB));
    CHECK(is_told(10 * GIB, GIB));
    answer(0, 0, 0);
    CHECK(!is_told(10 * GIB, GIB));
    CHECK(is_told(9 * GIB, GIB));
    answer(0, 0, 0);
    giveback_died(&s);
    CHECK(is_told(9 * GIB, GIB)); /* the next one knows of nothing */
    end();
}

int main(void)
{
    caches();
    the_next_load();
    return 0;
}
