/* Ten million records between two processes with a sleeping consumer, across many wraps of the
 * index; the round-trip times of ring and channel; a lost bell. Argument: number of records. */
#include "ipc/channel.h"
#include "ipc/memfd.h"
#include "ipc/ring.h"
#include "shared/clock.h"
#include "shared/err.h"
#include "tests/test.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

enum { CAPACITY = 1 << 20, EPOCH = 11, N_ROUND_TRIPS = 20000 };

struct link {
    struct ring to_child, to_parent;
    int fds[2];
    int bells[2];
    void *maps[2];
};

static struct link link_make(void)
{
    struct link l;
    for (int i = 0; i < 2; i++) {
        size_t bytes;
        l.fds[i] = memfd_create_shared("test-ring", ring_memfd_bytes(CAPACITY));
        CHECK(l.fds[i] >= 0);
        CHECK_INT(memfd_map(l.fds[i], 1, SIZE_MAX / 2, false, true, &l.maps[i], &bytes), 0);
        l.bells[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        ring_format(l.maps[i], CAPACITY, EPOCH);
    }
    return l;
}

static void link_attach(struct link *l)
{
    size_t bytes = ring_memfd_bytes(CAPACITY);
    CHECK_INT(ring_attach(&l->to_child, l->maps[0], bytes, EPOCH, l->bells[0]), 0);
    CHECK_INT(ring_attach(&l->to_parent, l->maps[1], bytes, EPOCH, l->bells[1]), 0);
}

/* Takes one record, sleeping on the bell; poll_ms guards a lost bell. */
static void take(struct ring *r, void *buf, struct ring_record *rec, int poll_ms)
{
    for (;;) {
        int n = ring_take(r, buf, rec);
        CHECK(n >= 0);
        if (n == 1) {
            return;
        }
        if (ring_sleep(r)) {
            struct pollfd p = {.fd = r->bell, .events = POLLIN};
            poll(&p, 1, poll_ms);
            ring_wake(r);
        }
    }
}

static size_t length_of(uint64_t i)
{
    return 8 + (i * 7) % 57;
}

static void child_reads_all(struct link *l, uint64_t n)
{
    static uint8_t buf[LIMIT_RECORD_BYTES];
    link_attach(l);
    for (uint64_t i = 0; i < n; i++) {
        struct ring_record rec;
        take(&l->to_child, buf, &rec, -1);
        uint64_t got;
        memcpy(&got, buf, 8);
        CHECK_INT(got, i);
        CHECK_INT(rec.len, length_of(i));
        CHECK_INT(buf[rec.len - 1], rec.len > 8 ? (uint8_t)(i + rec.len - 1) : buf[7]);
    }
}

static void wait_child(pid_t pid)
{
    int status;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void many_records(uint64_t n)
{
    struct link l = link_make();
    pid_t pid = fork();
    if (pid == 0) {
        child_reads_all(&l, n);
        _exit(0);
    }
    link_attach(&l);
    uint64_t start = clock_ns();
    for (uint64_t i = 0; i < n; i++) {
        uint8_t data[64];
        size_t len = length_of(i);
        for (size_t k = 8; k < len; k++) {
            data[k] = (uint8_t)(i + k);
        }
        memcpy(data, &i, 8);
        int err;
        while ((err = ring_put(&l.to_child, 1, data, len, NULL, 0)) == -EAGAIN) {
            usleep(50);
        }
        CHECK_INT(err, 0);
    }
    wait_child(pid);
    double s = (double)(clock_ns() - start) * 1e-9;
    printf("%" PRIu64 " records between two processes in %.2f s (%.2f million/s), %" PRIu64
           " wraps of the payload\n",
           n, s, (double)n / s * 1e-6, l.to_child.own / CAPACITY);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void report(const char *what, uint64_t *ns, size_t n)
{
    qsort(ns, n, sizeof(*ns), by_value);
    printf("%s round trip: median %.1f us, p99 %.1f us\n", what, (double)ns[n / 2] * 1e-3,
           (double)ns[n * 99 / 100] * 1e-3);
}

static void ring_round_trips(void)
{
    static uint64_t ns[N_ROUND_TRIPS];
    static uint8_t buf[LIMIT_RECORD_BYTES];
    struct link l = link_make();
    struct ring_record rec;
    pid_t pid = fork();
    if (pid == 0) {
        link_attach(&l);
        for (int i = 0; i < N_ROUND_TRIPS; i++) {
            take(&l.to_child, buf, &rec, -1);
            CHECK_INT(ring_put(&l.to_parent, 2, buf, rec.len, NULL, 0), 0);
        }
        _exit(0);
    }
    link_attach(&l);
    for (int i = 0; i < N_ROUND_TRIPS; i++) {
        uint64_t start = clock_ns();
        CHECK_INT(ring_put(&l.to_child, 2, &start, sizeof(start), NULL, 0), 0);
        take(&l.to_parent, buf, &rec, -1);
        ns[i] = clock_ns() - start;
        CHECK(memcmp(buf, &start, sizeof(start)) == 0);
    }
    wait_child(pid);
    report("ring", ns, N_ROUND_TRIPS);
}

static void channel_take(struct channel *c, struct channel_msg *m)
{
    int n;
    while ((n = channel_recv(c, m)) == 0) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        poll(&p, 1, -1);
    }
    CHECK_INT(n, 1);
}

static void channel_round_trips(void)
{
    static uint64_t ns[N_ROUND_TRIPS];
    int fds[2];
    CHECK_INT(channel_pair(fds), 0);
    struct msg_drain drain = {.deadline_ms = 1};
    struct msg_empty empty = {0};
    static struct channel_msg m;
    struct channel c;
    pid_t pid = fork();
    if (pid == 0) {
        channel_init(&c, fds[1], MSG_WORKER, MSG_SUPERVISOR);
        c.state = MSG_STATE_RUNNING;
        for (int i = 0; i < N_ROUND_TRIPS; i++) {
            channel_take(&c, &m);
            CHECK_INT(channel_send(&c, MSG_DRAINED, 1, &empty, sizeof(empty), NULL, 0), 0);
        }
        _exit(0);
    }
    channel_init(&c, fds[0], MSG_SUPERVISOR, MSG_WORKER);
    c.state = MSG_STATE_RUNNING;
    for (int i = 0; i < N_ROUND_TRIPS; i++) {
        uint64_t start = clock_ns();
        CHECK_INT(channel_send(&c, MSG_DRAIN, 1, &drain, sizeof(drain), NULL, 0), 0);
        channel_take(&c, &m);
        ns[i] = clock_ns() - start;
        CHECK_INT(m.type, MSG_DRAINED);
    }
    wait_child(pid);
    report("channel", ns, N_ROUND_TRIPS);
}

/* The producer's bell goes nowhere; the consumer still gets everything, at its guard's pace. */
static void a_lost_bell_costs_only_the_guard_time(void)
{
    static uint8_t buf[LIMIT_RECORD_BYTES];
    struct link l = link_make();
    struct ring_record rec;
    pid_t pid = fork();
    if (pid == 0) {
        link_attach(&l);
        l.to_child.bell = -1;
        for (int i = 0; i < 5; i++) {
            usleep(5000);
            CHECK_INT(ring_put(&l.to_child, 1, &i, sizeof(i), NULL, 0), 0);
        }
        _exit(0);
    }
    link_attach(&l);
    uint64_t start = clock_ns();
    for (int i = 0; i < 5; i++) {
        take(&l.to_child, buf, &rec, LIMIT_BELL_POLL_MS);
    }
    CHECK(clock_ns() - start < 5ull * (LIMIT_BELL_POLL_MS + 1000) * 1000000);
    wait_child(pid);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    many_records(argc > 1 ? strtoull(argv[1], NULL, 10) : 10000000);
    ring_round_trips();
    channel_round_trips();
    a_lost_bell_costs_only_the_guard_time();
    return 0;
}
