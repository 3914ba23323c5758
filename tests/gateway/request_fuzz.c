/* Any bytes as a body of any API: refused with a place, or turned into messages that pass the check
 * the worker makes. The first byte chooses the API. */
#include "gateway/request.h"
#include "tests/test.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 1) {
        return 0;
    }
    struct request r;
    struct request_err e;
    enum request_api api = (enum request_api)(1u << data[0] % 7);
    int rc = request_parse(api, (const char *)data + 1, n - 1, &r, &e);
    if (rc < 0) {
        CHECK(e.err.code == rc && e.err.detail[0] && memchr(e.param, 0, sizeof(e.param)));
        return 0;
    }
    bool is_generate = r.api == REQUEST_COMPLETIONS || r.api == REQUEST_CHAT;
    size_t n_messages = is_generate ? r.n_prompts : api == REQUEST_MODEL ? 0 : 1;
    for (size_t i = 0; i < n_messages; i++) {
        struct buf b;
        buf_init(&b, LIMIT_BULK_BYTES);
        request_encode(&r, i, 0, 2, &b);
        CHECK(!b.failed);
        CHECK_INT(msg_check(is_generate ? MSG_GENERATE : MSG_TEXT, MSG_RING, MSG_GATEWAY,
                            MSG_WORKER, MSG_STATE_RUNNING, b.data, b.len, 0),
                  0);
        buf_finish(&b);
    }
    request_finish(&r);
    return 0;
}
