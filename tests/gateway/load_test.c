/* Many at once, and many after each other: sixteen streams with a quarter of the clients leaving,
 * every text right; and after a thousand requests of all kinds nothing is left in the gateway. */
#include "shared/clock.h"
#include "tests/gateway/rig.h"

#include <poll.h>

enum { CLIENTS = 16, ROUNDS = 12 };

struct load {
    const struct rig *rig;
    int number;
    int n_left, n_read;
};

/* The texts of a stream, one after the other. */
static void check_stream(const char *body, int n)
{
    const char *at = body;
    for (int i = 0; i < n; i++) {
        char part[64];
        snprintf(part, sizeof(part), "\"delta\":{\"content\":\"%d \"}", i);
        at = strstr(at, part);
        if (!at) {
            TEST_FAIL("token %d of %d is missing: %s", i, n, body);
        }
    }
    CHECK(strstr(at, "\"finish_reason\":\"length\"") && strstr(at, "data: [DONE]\n\n"));
}

static void *run_client(void *arg)
{
    struct load *l = arg;
    for (int round = 0; round < ROUNDS; round++) {
        struct client c;
        struct response res;
        char body[256];
        int n = 5 + (l->number * 7 + round * 13) % 200;
        snprintf(body, sizeof(body),
                 "{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"count %d\"}]}",
                 n);
        client_open(&c, l->rig);
        client_request(&c, "POST /v1/chat/completions", NULL, body);
        if ((l->number + round) % 4 == 0) {
            client_read_until(&c, "\"content\":\"0 \"");
            l->n_left++;
        } else {
            client_read(&c, &res, false);
            CHECK_INT(res.status, 200);
            check_stream(res.body.data, n);
            response_finish(&res);
            l->n_read++;
        }
        client_close(&c);
    }
    return NULL;
}

static void sixteen_streams(struct rig *r)
{
    pthread_t threads[CLIENTS];
    struct load loads[CLIENTS];
    int n_left = 0;
    for (int i = 0; i < CLIENTS; i++) {
        loads[i] = (struct load){.rig = r, .number = i};
        CHECK(pthread_create(&threads[i], NULL, run_client, &loads[i]) == 0);
    }
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(threads[i], NULL);
        n_left += loads[i].n_left;
        CHECK_INT(loads[i].n_left + loads[i].n_read, ROUNDS);
    }
    CHECK_INT(n_left, CLIENTS * ROUNDS / 4);
    RIG_WAIT(r->n_done == CLIENTS * ROUNDS);
    RIG_WAIT(r->status->n_active == 0);
}

static long metric(const struct rig *r, const char *name)
{
    char *text = client_body(r, "GET /metrics", NULL, 200);
    char line[128];
    snprintf(line, sizeof(line), "\n%s ", name);
    const char *at = strstr(text, line);
    CHECK(at);
    long v = strtol(at + strlen(line), NULL, 10);
    free(text);
    return v;
}

/* Numbers go round the journal's table, which takes memory where it was used. */
static void use_whole_journal(struct rig *r)
{
    struct buf b;
    buf_init(&b, 0);
    buf_str(&b, "{\"prompt\":[\"say a\"");
    for (int i = 1; i < LIMIT_PROMPTS; i++) {
        buf_str(&b, ",\"say a\"");
    }
    buf_str(&b, "]}");
    for (int i = 0; i <= LIMIT_LIVE_REQUESTS / LIMIT_PROMPTS; i++) {
        struct response res;
        client_once(r, "POST /v1/completions", NULL, b.data, &res);
        CHECK_INT(res.status, 200);
        response_finish(&res);
    }
    buf_finish(&b);
}

static void thousand_requests(struct rig *r)
{
    static const struct {
        const char *what, *body;
    } kinds[] = {
        {"POST /v1/completions", "{\"prompt\":\"count 20\",\"logprobs\":2,\"n\":3}"},
        {"POST /v1/completions", "{\"prompt\":[\"say a|b\",\"count 9\"],\"stream\":true}"},
        {"POST /v1/completions", "{\"prompt\":\"fail numeric_fault\"}"},
        {"POST /v1/completions", "{\"prompt\":\"a\",\"n\":99}"},
        {"POST /tokenize", "{\"content\":\"hello\"}"},
        {"GET /v1/models", NULL},
        {"GET /nope", NULL},
        {"POST /v1/completions", "{\"prompt\":\"hang\"}"}, /* leaves */
    };
    int fds = 0;
    long kib = 0;
    use_whole_journal(r);
    for (int i = 0; i < 1000; i++) {
        struct client c;
        struct response res;
        size_t k = (size_t)i % COUNT_OF(kinds);
        if (i == 200) { /* all paths have been taken; from here on nothing may grow */
            fds = rig_gateway_fds(r);
            kib = rig_gateway_kib(r);
        }
        client_open(&c, r);
        if (k == COUNT_OF(kinds) - 1) { /* the worker counts what has ended a little later */
            RIG_WAIT(r->status->n_active == 0);
        }
        client_request(&c, kinds[k].what, NULL, kinds[k].body);
        if (k == COUNT_OF(kinds) - 1) {
            unsigned n = r->n_cancels;
            RIG_WAIT(r->status->n_active > 0);
            client_close(&c);
            RIG_WAIT(r->n_cancels > n);
        } else {
            client_read(&c, &res, false);
            CHECK(res.status != 0);
            response_finish(&res);
            client_close(&c);
        }
    }
    RIG_WAIT(metric(r, "rocmforge_requests_live") == 0);
    RIG_WAIT(metric(r, "rocmforge_connections") == 1);
    RIG_WAIT(metric(r, "rocmforge_request_body_bytes") == 0);
    RIG_WAIT(rig_gateway_fds(r) <= fds);
    long grown = rig_gateway_kib(r) - kib;
    printf("1000 requests: %d descriptors, %+ld KiB\n", rig_gateway_fds(r), grown);
    if (!rig_is_unsandboxed()) { /* sanitizers and valgrind keep freed memory */
        CHECK(grown < 256);
    }
}

/* A body that takes long to read: half a million keys. */
static void put_large_body(struct buf *b)
{
    buf_init(b, 0);
    buf_str(b, "{\"prompt\":\"say large\",\"x\":{\"k\":1");
    for (int i = 0; i < 480000; i++) {
        buf_printf(b, ",\"k%07d\":1", i);
    }
    buf_str(b, "}}");
}

/* While one is read others are served: what is asked after it is answered before it. On a busy
 * machine it takes some attempts to see that; were it not so, none would show it. */
static void large_bodies_stall_nobody(struct rig *r)
{
    struct buf b;
    struct response res;
    bool was_before = false;
    put_large_body(&b);
    for (int i = 0; i < 100 && !was_before; i++) {
        struct client c;
        client_open(&c, r);
        client_request(&c, "POST /v1/completions", NULL, b.data);
        free(client_body(r, "GET /health", NULL, 200));
        struct pollfd p = {.fd = c.fd, .events = POLLIN};
        was_before = poll(&p, 1, 0) == 0;
        client_read(&c, &res, false);
        CHECK_INT(res.status, 200);
        CHECK(strstr(res.body.data, "\"text\":\"large\""));
        response_finish(&res);
        client_close(&c);
    }
    CHECK(was_before);
    /* Clients that leave meanwhile, and refusals found so late. */
    for (int i = 0; i < 4; i++) {
        struct client c;
        client_open(&c, r);
        client_request(&c, "POST /v1/completions", NULL, b.data);
        client_close(&c);
    }
    buf_consume(&b, 1);
    client_once(r, "POST /v1/completions", NULL, b.data, &res);
    CHECK_INT(res.status, 400);
    CHECK(strstr(res.body.data, "\"code\":\"invalid_json\""));
    response_finish(&res);
    buf_finish(&b);
    RIG_WAIT(metric(r, "rocmforge_request_body_bytes") == 0); /* those of the clients that left */
}

int main(void)
{
    struct rig r;
    const struct rig_options o = {.config = "log_level=error\n"};
    rig_start(&r, &o);
    rig_worker_start(&r);
    uint64_t begin = clock_ms();
    sixteen_streams(&r);
    printf("%d streams in %llu ms\n", CLIENTS * ROUNDS, (unsigned long long)(clock_ms() - begin));
    large_bodies_stall_nobody(&r);
    thousand_requests(&r);
    rig_stop(&r);
    return 0;
}
