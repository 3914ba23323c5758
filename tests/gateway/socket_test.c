/* HTTP on real connections: the corpus of requests, pipelining, keep-alive, 100-continue, cut-off
 * bodies, too many connections, and that nothing is left behind. */
#include "tests/gateway/corpus.h"
#include "tests/gateway/rig.h"

#include <sys/socket.h>

/* The case, with "POST /x" turned to a path that reads its body and then finds no JSON in it. */
static void with_real_path(const struct corpus_case *c, struct buf *ret)
{
    static const char from[] = "POST /x ", to[] = "POST /tokenize ";
    const char *p = c->bytes.data, *end = p + c->bytes.len, *q;
    buf_init(ret, 0);
    for (; (q = memmem(p, (size_t)(end - p), from, strlen(from))); p = q + strlen(from)) {
        buf_add(ret, p, (size_t)(q - p));
        buf_str(ret, to);
    }
    buf_add(ret, p, (size_t)(end - p));
}

/* Sends a case and reads every answer. */
static void corpus_case(const struct corpus_case *c, void *arg)
{
    struct client cl;
    struct response res;
    struct buf bytes;
    int n_ok = 0, n_bad = 0;
    bool is_cut = false; /* a 404 that did not read its body ends the connection */
    with_real_path(c, &bytes);
    client_open(&cl, arg);
    client_send(&cl, bytes.data, bytes.len);
    buf_finish(&bytes);
    shutdown(cl.fd, SHUT_WR);
    for (;;) {
        client_read(&cl, &res, false);
        int status = res.status;
        bool is_answer = status == 200 || status == 204 || status == 404 ||
                         (status == 400 && strstr(res.body.data, "\"code\":\"invalid_json\""));
        bool closes = res.closes;
        is_cut = is_cut || (status == 404 && closes);
        response_finish(&res);
        if (status == 0) {
            break;
        }
        if (is_answer) {
            CHECK(n_bad == 0); /* nothing is answered after a refusal */
            n_ok++;
        } else {
            n_bad++;
            CHECK(closes);
            if (atoi(c->expected) != status) {
                TEST_FAIL("%s: status %d, expected %s", c->name, status, c->expected);
            }
        }
    }
    client_close(&cl);
    char got[16];
    snprintf(got, sizeof(got), "ok %d", n_ok);
    bool is_refusal = atoi(c->expected) > 0, is_more = strcmp(c->expected, "more") == 0;
    if (is_refusal ? n_bad != 1 && !is_cut
                   : n_bad != 0 || (!is_more && !is_cut && strcmp(c->expected, got) != 0)) {
        TEST_FAIL("%s: %d answered, %d refused, expected %s", c->name, n_ok, n_bad, c->expected);
    }
}

static void pipelining(const struct rig *r)
{
    struct client c;
    struct response res;
    struct buf b;
    client_open(&c, r);
    buf_init(&b, 0);
    static const char body[] = "{\"prompt\":\"slow 3\"}";
    buf_printf(&b,
               "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s"
               "GET /v1/models/tiny HTTP/1.1\r\nHost: localhost\r\n\r\n"
               "GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n",
               strlen(body), body);
    client_send(&c, b.data, b.len);
    static const int statuses[] = {200, 200, 404};
    static const char *const parts[] = {"0 1 2 ", "\"id\":\"tiny\"", "not_found"};
    for (int i = 0; i < 3; i++) {
        client_read(&c, &res, false);
        CHECK_INT(res.status, statuses[i]);
        CHECK(strstr(res.body.data, parts[i]) && !res.closes);
        response_finish(&res);
    }
    buf_clear(&b);
    /* More requests than are read ahead at once. */
    for (int i = 0; i < 3000; i++) {
        buf_str(&b, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    client_send(&c, b.data, b.len);
    for (int i = 0; i < 3000; i++) {
        client_read(&c, &res, false);
        CHECK_INT(res.status, 200);
        response_finish(&res);
    }
    client_request(&c, "GET /health", "Connection: close\r\n", NULL);
    client_read(&c, &res, false);
    CHECK(res.status == 200 && res.closes);
    response_finish(&res);
    CHECK(client_is_closed(&c));
    client_close(&c);
    buf_finish(&b);
}

static void expect_continue(const struct rig *r)
{
    struct client c;
    struct response res;
    client_open(&c, r);
    static const char head[] = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
                               "Expect: 100-continue\r\nContent-Length: 18\r\n\r\n";
    client_send(&c, head, strlen(head));
    client_read_until(&c, "HTTP/1.1 100 Continue\r\n\r\n");
    client_send(&c, "{\"prompt\":\"say a\"}", 18);
    client_read(&c, &res, false);
    CHECK_INT(res.status, 200);
    response_finish(&res);
    /* A refusal comes instead of 100. */
    static const char refused[] = "POST /nope HTTP/1.1\r\nHost: localhost\r\n"
                                  "Expect: 100-continue\r\nContent-Length: 18\r\n\r\n";
    client_send(&c, refused, strlen(refused));
    client_read_until(&c, "HTTP/1.1 404 ");
    client_read(&c, &res, false);
    CHECK(res.closes);
    response_finish(&res);
    client_close(&c);
}

/* The refusal arrives although the client is still sending. */
static void refused_while_sending(const struct rig *r)
{
    struct client c;
    struct response res;
    static char body[4 * 1024 * 1024];
    memset(body, ' ', sizeof(body));
    client_open(&c, r);
    static const char head[] = "POST /nope HTTP/1.1\r\nHost: localhost\r\n"
                               "Content-Length: 4194304\r\n\r\n";
    client_send(&c, head, strlen(head));
    client_send(&c, body, sizeof(body));
    client_read(&c, &res, false);
    CHECK_INT(res.status, 404);
    response_finish(&res);
    client_close(&c);
}

static void http_1_0(const struct rig *r)
{
    struct client c;
    struct response res;
    char v[256];
    client_open(&c, r);
    static const char text[] = "POST /v1/completions HTTP/1.0\r\nContent-Length: 33\r\n\r\n"
                               "{\"prompt\":\"say a\",\"stream\":true }";
    client_send(&c, text, strlen(text));
    client_read(&c, &res, false);
    CHECK(res.status == 200 && res.closes && !response_header(&res, "Transfer-Encoding", v));
    CHECK(strstr(res.body.data, "data: [DONE]\n\n"));
    response_finish(&res);
    client_close(&c);
}

static void unix_socket(const struct rig *r)
{
    struct client c;
    struct response res;
    client_open_unix(&c, r);
    client_request(&c, "POST /v1/completions", NULL, "{\"prompt\":\"say a\"}");
    client_read(&c, &res, false);
    CHECK_INT(res.status, 200);
    response_finish(&res);
    client_close(&c);
}

/* Few descriptors: what does not fit is told so at once, what is there goes on, and room is used
 * again. */
static void too_many(void)
{
    enum { MANY = 120 };
    struct rig r;
    struct client c[MANY], one;
    struct response res;
    const struct rig_options o = {.max_files = 128};
    rig_start(&r, &o);
    rig_worker_start(&r);
    int n_served = 0, n_refused = 0;
    for (int i = 0; i < MANY; i++) {
        client_open(&c[i], &r);
        client_request(&c[i], "GET /health", NULL, NULL);
        client_read(&c[i], &res, false);
        CHECK(res.status == 200 || res.status == 503);
        n_served += res.status == 200;
        n_refused += res.status == 503;
        response_finish(&res);
    }
    CHECK(n_served >= 64 && n_refused > 0);
    for (int i = 0; i < MANY; i++) {
        client_close(&c[i]);
    }
    for (int i = 0; i < 100; i++) {
        client_open(&one, &r);
        client_request(&one, "GET /health", NULL, NULL);
        client_read(&one, &res, false);
        bool ok = res.status == 200;
        response_finish(&res);
        client_close(&one);
        if (ok) {
            break;
        }
        CHECK(i < 99);
        usleep(10000);
    }
    rig_stop(&r);
}

/* The supervisor is asked no more at once than it keeps, whether the askers stay or leave. */
static void crash_questions(struct rig *r)
{
    enum { OPEN = 8 };
    static struct channel_msg m;
    struct msg_ask asks[OPEN];
    struct client c[OPEN], one;
    struct response res;
    for (int i = 0; i < OPEN; i++) {
        client_open_unix(&c[i], r);
        client_request(&c[i], i % 2 ? "GET /crashes" : "GET /crashes/x", NULL, NULL);
        CHECK(rig_expect(r, MSG_ASK, &m));
        memcpy(&asks[i], m.payload, sizeof(asks[i]));
        CHECK_STR(asks[i].name, i % 2 ? "" : "x");
    }
    client_close(&c[0]);
    client_open_unix(&one, r);
    client_request(&one, "GET /crashes", NULL, NULL);
    client_read(&one, &res, false);
    CHECK_INT(res.status, err_http(ERR_BUSY));
    response_finish(&res);
    for (int i = 0; i < OPEN; i++) {
        struct msg_told told = {.ask = asks[i].ask, .err = ERR_REPORT_NOT_FOUND};
        CHECK_INT(channel_send(&r->channel, MSG_TOLD, r->epoch, &told, sizeof(told), NULL, 0), 0);
        if (i > 0) {
            client_read(&c[i], &res, false);
            CHECK_INT(res.status, 404);
            response_finish(&res);
            client_close(&c[i]);
        }
    }
    client_request(&one, "GET /crashes", NULL, NULL);
    CHECK(rig_expect(r, MSG_ASK, &m));
    client_close(&one);
}

int main(void)
{
    struct rig r;
    rig_start(&r, NULL);
    rig_worker_start(&r);
    CHECK(corpus_each("tests/gateway/http_corpus.txt", corpus_case, &r) >= 300);
    pipelining(&r);
    expect_continue(&r);
    refused_while_sending(&r);
    http_1_0(&r);
    unix_socket(&r);
    crash_questions(&r);
    rig_stop(&r);
    too_many();
    return 0;
}
