/* Whatever parses is written, parses again, and is the same. */
#include "tests/test.h"
#include "shared/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    json_t *v, *again;
    struct err e = {0};
    struct buf b;
    buf_init(&b, 0);
    json_put_string(&b, (const char *)data, n);
    CHECK_INT(json_parse(b.data, b.len, &v, &e), 0);
    CHECK(json_is_string(v) && json_string_length(v) >= n);
    json_decref(v);
    buf_clear(&b);
    if (json_parse((const char *)data, n, &v, &e) == 0) {
        json_put_value(&b, v);
        CHECK_INT(json_parse(b.data, b.len, &again, &e), 0);
        CHECK(json_equal(v, again));
        json_decref(v);
        json_decref(again);
    } else {
        CHECK(e.code == ERR_BAD_JSON && *e.detail);
    }
    buf_finish(&b);
    return 0;
}
