/* The request parser alone: every case of the corpus, whole and cut at every byte, comes to the
 * same verdict; what it reports of good requests is right. */
#include "gateway/http.h"
#include "tests/gateway/corpus.h"
#include "tests/test.h"

/* Feeds the bytes in pieces of `step`; writes the verdict in the corpus' words. */
static void judge(const struct corpus_case *c, size_t step, char verdict[16], struct err *e)
{
    struct http h;
    http_init(&h);
    int n_requests = 0, r = HTTP_STEP_DONE;
    bool is_open = false; /* a request has begun and not ended */
    for (size_t at = 0; at < c->bytes.len && r >= 0;) {
        size_t n = MIN(step, c->bytes.len - at), used;
        r = http_feed(&h, c->bytes.data + at, n, &used, e);
        if (r < 0) {
            break;
        }
        at += used;
        is_open = true;
        if (r == HTTP_STEP_HEAD) {
            r = http_feed(&h, NULL, 0, &used, e);
        }
        if (r == HTTP_STEP_DONE) {
            n_requests++;
            is_open = false;
            http_next(&h);
        }
    }
    http_finish(&h);
    if (r < 0) {
        snprintf(verdict, 16, "%d", err_http(r));
    } else if (is_open) {
        snprintf(verdict, 16, "more");
    } else {
        snprintf(verdict, 16, "ok %d", n_requests);
    }
}

/* Counts those that are not refused. */
static void one_case(const struct corpus_case *c, void *n_good)
{
    *(int *)n_good += atoi(c->expected) == 0;
    const size_t steps[] = {1, 2, 3, 7, c->bytes.len + 1};
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        char verdict[16];
        struct err e = {0};
        judge(c, steps[i], verdict, &e);
        if (strcmp(verdict, c->expected) != 0) {
            TEST_FAIL("%s in pieces of %zu: %s (%s), expected %s", c->name, steps[i], verdict,
                      e.detail, c->expected);
        }
    }
}

static void parts_are_right(void)
{
    static const char text[] = "POST http://Example.com:81/v1/x?a=b HTTP/1.1\r\nHost: localhost\r\n"
                               "X-One:  two \t\r\nTransfer-Encoding: chunked\r\n"
                               "Expect: 100-continue\r\nConnection: close\r\n\r\n"
                               "3;x\r\nabc\r\n2\r\nde\r\n0\r\nX-One: three\r\n\r\nGET";
    struct http h;
    http_init(&h);
    size_t used, n;
    struct err e;
    CHECK_INT(http_feed(&h, text, strlen(text), &used, &e), HTTP_STEP_HEAD);
    CHECK_INT(h.method, HTTP_POST);
    CHECK(h.n_path == 5 && memcmp(h.head.data + h.path, "/v1/x", 5) == 0);
    CHECK(h.n_host == 14 && memcmp(h.head.data + h.host, "Example.com:81", 14) == 0);
    CHECK(h.wants_continue && h.is_chunked && !h.is_keep_alive && !h.is_1_0);
    const char *v = http_find(&h, "x-one", &n);
    CHECK(v && n == 3 && memcmp(v, "two", 3) == 0);
    CHECK(http_find(&h, "x-on", &n) == NULL);
    size_t rest;
    CHECK_INT(http_feed(&h, text + used, strlen(text) - used, &rest, &e), HTTP_STEP_DONE);
    CHECK_INT(used + rest, strlen(text) - 3);
    CHECK_STR(h.body.data, "abcde");
    CHECK_INT(h.n_headers, 5); /* the trailer was not merged */
    http_finish(&h);
}

/* Connection: close is honoured with and without a body. */
static void keep_alive(void)
{
    static const char *const tails[] = {"\r\n", "Content-Length: 1\r\n\r\nx"};
    static const char *const lines[] = {"", "Connection: close\r\n", "Connection: x, Close\r\n",
                                        "Connection: keep-alive\r\n"};
    static const bool kept[] = {true, false, false, true};
    for (size_t i = 0; i < COUNT_OF(lines) * COUNT_OF(tails); i++) {
        char text[256];
        struct http h;
        struct err e;
        size_t used;
        snprintf(text, sizeof(text), "POST / HTTP/1.1\r\nHost: a\r\n%s%s", lines[i / 2],
                 tails[i % 2]);
        http_init(&h);
        CHECK_INT(http_feed(&h, text, strlen(text), &used, &e), HTTP_STEP_HEAD);
        CHECK_INT(h.is_keep_alive, kept[i / 2]);
        http_finish(&h);
    }
}

/* The cap holds for the sum of chunks, and at exactly the cap a body still passes. */
static void body_cap(void)
{
    static char chunk[65536 + 16];
    int n = snprintf(chunk, sizeof(chunk), "10000\r\n");
    memset(chunk + n, 'x', 65536);
    memcpy(chunk + n + 65536, "\r\n", 2);
    size_t chunk_len = (size_t)n + 65536 + 2;
    static const char head[] =
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (int extra = 0; extra < 2; extra++) {
        struct http h;
        http_init(&h);
        size_t used;
        struct err e;
        CHECK_INT(http_feed(&h, head, strlen(head), &used, &e), HTTP_STEP_HEAD);
        for (int i = 0; i < LIMIT_BODY_BYTES / 65536; i++) {
            CHECK_INT(http_feed(&h, chunk, chunk_len, &used, &e), HTTP_STEP_MORE);
            CHECK_INT(used, chunk_len);
        }
        const char *end = extra ? "1\r\nx\r\n0\r\n\r\n" : "0\r\n\r\n";
        CHECK_INT(http_feed(&h, end, strlen(end), &used, &e),
                  extra ? ERR_TOO_LARGE : HTTP_STEP_DONE);
        http_finish(&h);
    }
}

int main(void)
{
    int n_good = 0;
    int n = corpus_each("tests/gateway/http_corpus.txt", one_case, &n_good);
    CHECK(n - n_good >= 300);
    parts_are_right();
    keep_alive();
    body_cap();
    printf("%d cases, %d of them refused\n", n, n - n_good);
    return 0;
}
