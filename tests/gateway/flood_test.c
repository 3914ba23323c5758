/* Five thousand clients that trickle their headers and never finish, all the time for half a
 * minute: each is answered 408 when its time is up, the gateway stays small, and a normal client
 * hardly feels it. */
#include "shared/clock.h"
#include "shared/limits.h"
#include "tests/gateway/rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum {
    CLIENTS = 5000,
    SPARE_FILES = 200,
    FLOOD_MS = 32 * 1000,
    TRICKLE_MS = 2000, /* a byte so often */
    PACE_US = 4000,    /* of the normal client */
    QUIET_MS = 6000,
    LATE_MS = 2500, /* that a 408 may come after its deadline: the test itself is busy */
    MEMORY_KIB = 96 * 1024,
};

static const char head[] = "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";

struct slow {
    int fd;
    uint64_t begin_ms, next_ms; /* its first byte; its next one */
};

static struct rig rig;
static struct slow clients[CLIENTS];
static _Atomic int n_open, n_answered;
static _Atomic bool stops;

static void begin(struct slow *s, int epoll, uint64_t now)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)rig.port)};
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || connect(s->fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        TEST_FAIL("a slow client cannot connect: %s", strerror(errno));
    }
    CHECK(send(s->fd, head, strlen(head), MSG_NOSIGNAL) == (ssize_t)strlen(head));
    struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = s};
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, s->fd, &ev) == 0);
    s->begin_ms = now;
    s->next_ms = now + TRICKLE_MS;
    atomic_fetch_add(&n_open, 1);
}

/* The one answer, and nothing behind it. */
static void take_answer(struct slow *s)
{
    char text[2048], value[64];
    ssize_t n = 0, got;
    while ((got = recv(s->fd, text + n, sizeof(text) - 1 - (size_t)n, 0)) > 0) {
        n += got;
    }
    text[n] = 0;
    uint64_t took = clock_ms() - s->begin_ms;
    CHECK(sscanf(text, "HTTP/1.1 %63s", value) == 1);
    if (strcmp(value, "408") != 0 || !strstr(text, "Connection: close\r\n") ||
        strstr(text + 9, "HTTP/1.1 ") || took < LIMIT_HEADER_TIMEOUT_MS - 50 ||
        took > LIMIT_HEADER_TIMEOUT_MS + LATE_MS) {
        TEST_FAIL("after %llu ms: %s", (unsigned long long)took, text);
    }
    close(s->fd);
    s->fd = -1;
    atomic_fetch_add(&n_answered, 1);
    atomic_fetch_sub(&n_open, 1);
}

/* Opens them over the time that one lives, so that they end as evenly; each that was answered
 * comes again. */
static void *run_flood(void *arg)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    uint64_t start = clock_ms();
    size_t n_begun = 0, next = 0;
    while (!atomic_load(&stops)) {
        struct epoll_event ev[256];
        int n = epoll_wait(epoll, ev, 256, 5);
        uint64_t now = clock_ms();
        for (int i = 0; i < n; i++) {
            take_answer(ev[i].data.ptr);
            begin(ev[i].data.ptr, epoll, now);
        }
        while (n_begun < CLIENTS &&
               now - start >= n_begun * (LIMIT_HEADER_TIMEOUT_MS - 1000) / CLIENTS) {
            begin(&clients[n_begun++], epoll, now);
        }
        for (size_t i = 0; i < n_begun / 64 + 1 && n_begun; i++, next++) { /* some, in turn */
            struct slow *s = &clients[next % n_begun];
            if (s->next_ms <= now) {
                s->next_ms = now + TRICKLE_MS;
                send(s->fd, "a", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
            }
        }
    }
    for (size_t i = 0; i < n_begun; i++) {
        close(clients[i].fd);
    }
    close(epoll);
    return arg;
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The 99th percentile of a normal client's waits, in ms. */
static double p99(uint64_t ms, double *ret_median)
{
    enum { MOST = FLOOD_MS * 1000 / PACE_US };
    static double took[MOST];
    size_t n = 0;
    struct client c;
    uint64_t end = clock_ms() + ms;
    client_open(&c, &rig);
    while (clock_ms() < end && n < MOST) {
        struct response res;
        uint64_t begin_ns = clock_ns();
        client_request(&c, "POST /v1/completions", NULL, "{\"prompt\":\"say a\"}");
        client_read(&c, &res, false);
        took[n++] = (double)(clock_ns() - begin_ns) * 1e-6;
        CHECK_INT(res.status, 200);
        response_finish(&res);
        usleep(PACE_US);
    }
    client_close(&c);
    qsort(took, n, sizeof(took[0]), by_value);
    *ret_median = took[n / 2];
    return took[n * 99 / 100];
}

int main(void)
{
    struct rlimit files;
    CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
    if (files.rlim_max < CLIENTS + SPARE_FILES) {
        TEST_SKIP("%d files at once are needed, the limit is %llu", CLIENTS + SPARE_FILES,
                  (unsigned long long)files.rlim_max);
    }
    files.rlim_cur = files.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
    const struct rig_options o = {.config = "log_level=error\n"};
    rig_start(&rig, &o);
    rig_worker_start(&rig);
    double quiet_median, median;
    p99(1000, &quiet_median); /* warm */
    double quiet = p99(QUIET_MS, &quiet_median);
    long kib_before = rig_gateway_kib(&rig);

    pthread_t flood;
    CHECK(pthread_create(&flood, NULL, run_flood, NULL) == 0);
    while (atomic_load(&n_open) < CLIENTS) {
        usleep(10000);
    }
    double during = p99(FLOOD_MS - LIMIT_HEADER_TIMEOUT_MS, &median);
    long kib = rig_gateway_kib(&rig);
    int open = atomic_load(&n_open), answered = atomic_load(&n_answered);
    atomic_store(&stops, true);
    pthread_join(flood, NULL);
    printf("%d slow clients open, %d answered 408; gateway %ld KiB (%ld alone);\n"
           "a normal client waits %.3f ms (p99 %.3f), alone %.3f (p99 %.3f)\n",
           open, answered, kib, kib_before, median, during, quiet_median, quiet);
    CHECK(open >= CLIENTS - 64 && answered > CLIENTS);
    CHECK(kib < MEMORY_KIB);
    CHECK(during < 2 * quiet + 1); /* and a millisecond for a machine that does other work */
    rig_stop(&rig);
    return 0;
}
