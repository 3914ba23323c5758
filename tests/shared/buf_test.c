#include "tests/test.h"
#include "shared/buf.h"

static void grows(void)
{
    struct buf b;
    buf_init(&b, 0);
    CHECK(b.len == 0 && !b.failed);
    char expected[3000] = "";
    for (int i = 0; i < 257; i++) {
        buf_printf(&b, "%d,", i);
        sprintf(expected + strlen(expected), "%d,", i);
        CHECK_INT(b.len, strlen(expected));
        CHECK_STR(b.data, expected);
    }
    buf_char(&b, 'x');
    buf_str(&b, "yz");
    buf_add(&b, "\0w", 2);
    CHECK(memcmp(b.data + b.len - 5, "xyz\0w", 6) == 0); /* with the terminator */
    buf_add(&b, NULL, 0);
    CHECK(!b.failed);
    buf_clear(&b);
    CHECK(b.len == 0 && b.data[0] == 0);
    buf_finish(&b);
    CHECK(!b.data);
}

static void consumes(void)
{
    struct buf b;
    buf_init(&b, 0);
    buf_consume(&b, 0); /* nothing was ever added */
    buf_str(&b, "abcdef");
    buf_consume(&b, 2);
    CHECK_STR(b.data, "cdef");
    buf_consume(&b, 0);
    buf_consume(&b, 4);
    CHECK(b.len == 0 && b.data[0] == 0);
    buf_finish(&b);
}

/* Fails once, stays failed, keeps what it had; clearing makes it usable again. */
static void limit_fails_and_stays_failed(void)
{
    struct buf b;
    buf_init(&b, 8);
    buf_str(&b, "12345678");
    CHECK(!b.failed && b.len == 8);
    buf_char(&b, '9');
    CHECK(b.failed && b.len == 8);
    CHECK_STR(b.data, "12345678");
    buf_clear(&b);
    CHECK(!b.failed);
    buf_printf(&b, "%s", "123456789");
    CHECK(b.failed && b.len == 0);
    buf_str(&b, "1");
    CHECK(b.failed && b.len == 0);
    buf_finish(&b);
    CHECK(b.limit == 8 && !b.failed);
}

static void impossible_sizes_fail(void)
{
    struct buf b;
    buf_init(&b, 0);
    buf_str(&b, "abc");
    buf_add(&b, "", SIZE_MAX / 2); /* more than malloc gives: nothing is read */
    CHECK(b.failed && b.len == 3);
    CHECK_STR(b.data, "abc");
    buf_clear(&b);
    buf_str(&b, "abc");
    buf_add(&b, "", SIZE_MAX); /* the sum wraps */
    CHECK(b.failed && b.len == 3);
    buf_finish(&b);
}

int main(void)
{
    grows();
    consumes();
    limit_fails_and_stays_failed();
    impossible_sizes_fail();
    return 0;
}
