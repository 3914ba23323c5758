/* Everything that a clock ends: slow and silent clients, idle connections, held requests, quiet
 * streams, slow readers, a worker that does not listen. All at once, each in a thread, with 500
 * slow clients in the background that a normal one must not feel. */
#include "shared/clock.h"
#include "shared/limits.h"
#include "tests/gateway/rig.h"

#include <poll.h>
#include <sys/socket.h>

enum { SLOW_CLIENTS = 500 };

static struct rig rig, rig_empty, rig_deaf;

static void sleep_ms(unsigned ms)
{
    usleep(ms * 1000);
}

/* Sends a byte a second until the answer is there; checks when it came. */
static void trickle(const char *head, const char *byte, double from_s, double to_s)
{
    struct client c;
    struct response res;
    uint64_t begin = clock_ms();
    client_open(&c, &rig);
    client_send(&c, head, strlen(head));
    struct pollfd p = {.fd = c.fd, .events = POLLIN};
    while (poll(&p, 1, 1000) == 0) {
        client_send(&c, byte, 1);
        CHECK(clock_ms() - begin < 60000);
    }
    double took = (double)(clock_ms() - begin) / 1000;
    client_read(&c, &res, false);
    if (res.status != 408 || took < from_s || took > to_s) {
        TEST_FAIL("status %d after %.1f s, expected 408 after %.0f to %.0f", res.status, took,
                  from_s, to_s);
    }
    CHECK(res.closes);
    response_finish(&res);
    client_close(&c);
}

static void *slow_headers(void *arg)
{
    trickle("GET /health HTTP/1.1\r\nHost: localhost\r\nX: ", "a", 9, 13);
    return arg;
}

static void *slow_body(void *arg)
{
    trickle("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", " ",
            29, 34);
    return arg;
}

static void expect_close(struct client *c, double from_s, double to_s)
{
    char byte;
    uint64_t begin = clock_ms();
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    CHECK(poll(&p, 1, 100000) == 1);
    ssize_t n = recv(c->fd, &byte, 1, 0);
    double took = (double)(clock_ms() - begin) / 1000;
    if (n > 0 || took < from_s || took > to_s) {
        TEST_FAIL("%zd bytes after %.1f s, expected the end after %.0f to %.0f", n, took, from_s,
                  to_s);
    }
    client_close(c);
}

static void *says_nothing(void *arg)
{
    struct client c;
    client_open(&c, &rig);
    expect_close(&c, 9, 13);
    return arg;
}

static void *idles(void *arg)
{
    struct client c;
    struct response res;
    client_open(&c, &rig);
    client_request(&c, "GET /health", NULL, NULL);
    client_read(&c, &res, false);
    response_finish(&res);
    expect_close(&c, 74, 79);
    return arg;
}

/* While it queues or computes, a stream is kept alive by comments; its head comes with the first.
 */
static void *quiet_stream(void *arg)
{
    for (int i = 0; i < 2; i++) {
        struct client c;
        uint64_t begin = clock_ms();
        client_open(&c, &rig);
        client_request(&c, "POST /v1/completions", NULL,
                       i ? "{\"prompt\":\"silent\",\"stream\":true}"
                         : "{\"prompt\":\"hang\",\"stream\":true}");
        client_read_until(&c, "\r\n: waiting\n\n\r\n");
        CHECK(strncmp(c.in.data, "HTTP/1.1 200 OK\r\n", 17) == 0);
        CHECK(clock_ms() - begin >= 4900 && clock_ms() - begin < 7000);
        buf_clear(&c.in);
        client_read_until(&c, ": waiting\n\n");
        CHECK(clock_ms() - begin >= 9900 && clock_ms() - begin < 13000);
        client_close(&c);
    }
    return arg;
}

/* Reads nothing: the stream is paused, and after 30 s the connection ends. */
static void *never_reads(void *arg)
{
    struct client c;
    const int small = 64 * 1024;
    client_open(&c, &rig);
    setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    client_request(&c, "POST /v1/completions", NULL, "{\"prompt\":\"flood\",\"stream\":true}");
    uint64_t begin = clock_ms();
    struct pollfd p = {.fd = c.fd, .events = POLLRDHUP};
    CHECK(poll(&p, 1, 60000) == 1);
    double took = (double)(clock_ms() - begin) / 1000;
    if (took < 29 || took > 36) {
        TEST_FAIL("a client that does not read was closed after %.1f s", took);
    }
    client_close(&c);
    return arg;
}

/* No worker yet: the request waits five seconds, then 503. */
static void *held(void *arg)
{
    struct response res;
    uint64_t begin = clock_ms();
    client_once(&rig_empty, "POST /v1/completions", NULL, "{\"prompt\":\"say a\"}", &res);
    CHECK(res.status == 503 && strstr(res.body.data, "model_loading"));
    CHECK(clock_ms() - begin >= 4900 && clock_ms() - begin < 8000);
    response_finish(&res);
    return arg;
}

/* The worker says it idles and does not take the request: /ready must not say 200. */
static void *deaf_worker(void *arg)
{
    struct client c;
    free(client_body(&rig_deaf, "GET /ready", NULL, 200));
    client_open(&c, &rig_deaf);
    client_request(&c, "POST /v1/completions", NULL, "{\"prompt\":\"say a\"}");
    sleep_ms(1000);
    free(client_body(&rig_deaf, "GET /ready", NULL, 200));
    sleep_ms(2000);
    char *got = client_body(&rig_deaf, "GET /ready", NULL, 503);
    CHECK(strstr(got, "\"state\":\"stalled\""));
    free(got);
    client_close(&c);
    return arg;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static uint64_t median_us(void)
{
    uint64_t us[300];
    for (size_t i = 0; i < COUNT_OF(us); i++) {
        uint64_t begin = clock_ns();
        free(client_body(&rig, "GET /health", NULL, 200));
        us[i] = (clock_ns() - begin) / 1000;
    }
    qsort(us, COUNT_OF(us), sizeof(us[0]), by_value);
    return us[COUNT_OF(us) / 2];
}

static void slowloris(void)
{
    static struct client slow[SLOW_CLIENTS];
    uint64_t before = median_us();
    for (int i = 0; i < SLOW_CLIENTS; i++) {
        client_open(&slow[i], &rig);
        client_send(&slow[i], "GET /hea", 8);
    }
    uint64_t during = median_us();
    for (int i = 0; i < SLOW_CLIENTS; i++) {
        client_close(&slow[i]);
    }
    printf("median of GET /health: %llu us alone, %llu us beside %d slow clients\n",
           (unsigned long long)before, (unsigned long long)during, SLOW_CLIENTS);
    CHECK(during < before * 4 + 1000);
}

int main(void)
{
    void *(*const scenes[])(void *) = {slow_headers, slow_body,   says_nothing, idles,
                                       quiet_stream, never_reads, held,         deaf_worker};
    pthread_t threads[COUNT_OF(scenes)];
    struct channel_msg ready;
    const struct rig_options o = {.config = "log_level=error\n"};
    rig_start(&rig, &o);
    rig_worker_start(&rig);
    rig_start(&rig_empty, &o);
    rig_start(&rig_deaf, &o);
    rig_attach(&rig_deaf);
    worker_models(&rig_deaf);
    CHECK(rig_expect(&rig_deaf, MSG_READY, &ready));
    slowloris();
    for (size_t i = 0; i < COUNT_OF(scenes); i++) {
        CHECK(pthread_create(&threads[i], NULL, scenes[i], NULL) == 0);
    }
    for (size_t i = 0; i < COUNT_OF(scenes); i++) {
        pthread_join(threads[i], NULL);
    }
    rig_stop(&rig);
    rig_stop(&rig_empty);
    rig_stop(&rig_deaf);
    return 0;
}
