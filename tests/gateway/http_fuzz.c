/* Any bytes, cut anywhere: the parser must not misbehave, and must come to the same end however the
 * bytes were cut. The first byte chooses the cut. */
#include "gateway/http.h"
#include "tests/test.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct verdict {
    int result;
    size_t n_requests, n_body, n_headers;
};

static struct verdict judge(const char *p, size_t n, size_t step)
{
    struct verdict v = {0};
    struct http h;
    struct err e;
    http_init(&h);
    int r = HTTP_STEP_MORE;
    for (size_t at = 0; at < n && r >= 0;) {
        size_t take = MIN(step, n - at), used = 0;
        r = http_feed(&h, p + at, take, &used, &e);
        if (r >= 0) {
            CHECK(used <= take);
            at += used;
        }
        if (r == HTTP_STEP_HEAD) {
            size_t value;
            CHECK(h.n_path + h.path <= h.head.len && h.n_host + h.host <= h.head.len);
            http_find(&h, "origin", &value);
            r = http_feed(&h, NULL, 0, &used, &e);
        }
        if (r == HTTP_STEP_DONE) {
            CHECK(h.body.len <= LIMIT_BODY_BYTES && h.n_headers <= LIMIT_HEADERS);
            v.n_requests++;
            v.n_body += h.body.len;
            v.n_headers += h.n_headers;
            http_next(&h);
        }
    }
    v.result = r < 0 ? r : http_is_begun(&h);
    http_finish(&h);
    return v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 1) {
        return 0;
    }
    const char *p = (const char *)data + 1;
    struct verdict a = judge(p, n - 1, n), b = judge(p, n - 1, 1 + data[0] % 16);
    CHECK_INT(a.result, b.result);
    CHECK_INT(a.n_requests, b.n_requests);
    CHECK_INT(a.n_body, b.n_body);
    CHECK_INT(a.n_headers, b.n_headers);
    return 0;
}
