/* Checked arithmetic and strict parsing, against 128-bit arithmetic and by hand. */
#include "tests/test.h"
#include "shared/num.h"

static const uint64_t edge[] = {0,
                                1,
                                2,
                                31,
                                0xffffffff,
                                0x100000000,
                                UINT64_MAX / 3,
                                UINT64_MAX / 2,
                                (uint64_t)1 << 63,
                                UINT64_MAX - 1,
                                UINT64_MAX};

__extension__ typedef unsigned __int128 wide;

static void arithmetic(void)
{
    for (size_t i = 0; i < COUNT_OF(edge); i++) {
        for (size_t j = 0; j < COUNT_OF(edge); j++) {
            wide sum = (wide)edge[i] + edge[j], product = (wide)edge[i] * edge[j];
            uint64_t r = 12345;
            CHECK_INT(num_add(edge[i], edge[j], &r), sum <= UINT64_MAX);
            CHECK(r == (sum <= UINT64_MAX ? (uint64_t)sum : 12345));
            r = 12345;
            CHECK_INT(num_mul(edge[i], edge[j], &r), product <= UINT64_MAX);
            CHECK(r == (product <= UINT64_MAX ? (uint64_t)product : 12345));
        }
        for (unsigned shift = 0; shift < 64; shift++) {
            uint64_t align = (uint64_t)1 << shift, r = 12345;
            wide up = ((wide)edge[i] + align - 1) / align * align;
            /* The intermediate sum may overflow where the result is only just too large as well. */
            CHECK_INT(num_align(edge[i], align, &r), up <= UINT64_MAX);
            CHECK(r == (up <= UINT64_MAX ? (uint64_t)up : 12345));
        }
        uint64_t r;
        CHECK(!num_align(edge[i], 0, &r) && !num_align(edge[i], 3, &r) &&
              !num_align(edge[i], 6, &r));
    }
    CHECK_INT(num_pad(33, 32), 64);
    CHECK_INT(num_pad(32, 32), 32);
    CHECK_INT(num_pad(0, 32), 0);
}

static void integers(void)
{
    static const char *const bad[] = {"",
                                      "-",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1x",
                                      "0x1",
                                      "1.",
                                      "--1",
                                      "1e3",
                                      "1,000",
                                      "\xD9\xA1",
                                      "18446744073709551616",
                                      "99999999999999999999999"};
    uint64_t u = 7;
    int64_t i = 7;
    for (size_t k = 0; k < COUNT_OF(bad); k++) {
        CHECK(!num_parse_u64(bad[k], &u) && !num_parse_i64(bad[k], &i));
    }
    CHECK(!num_parse_u64("-1", &u));
    CHECK(u == 7 && i == 7);
    CHECK(num_parse_u64("0", &u) && u == 0);
    CHECK(num_parse_u64("007", &u) && u == 7);
    CHECK(num_parse_u64("18446744073709551615", &u) && u == UINT64_MAX);
    CHECK(num_parse_i64("-0", &i) && i == 0);
    CHECK(num_parse_i64("9223372036854775807", &i) && i == INT64_MAX);
    CHECK(num_parse_i64("-9223372036854775807", &i) && i == -INT64_MAX);
    CHECK(num_parse_i64("-9223372036854775808", &i) && i == INT64_MIN);
    CHECK(!num_parse_i64("9223372036854775808", &i));
    CHECK(!num_parse_i64("-9223372036854775809", &i));
}

static void reals(void)
{
    static const char *const bad[] = {"",    "nan", "inf", "-inf", "0x1p3", " 1",   "1 ",
                                      "1,5", "1e",  ".",   "e5",   "1e999", "1..2", "--1"};
    double v = 7;
    for (size_t k = 0; k < COUNT_OF(bad); k++) {
        CHECK(!num_parse_f64(bad[k], &v) && v == 7);
    }
    CHECK(num_parse_f64("0.25", &v) && v == 0.25);
    CHECK(num_parse_f64("-1.5e3", &v) && v == -1500);
    CHECK(num_parse_f64(".5", &v) && v == 0.5);
    CHECK(num_parse_f64("5.", &v) && v == 5);
    CHECK(num_parse_f64("1e308", &v) && v == 1e308);
}

int main(void)
{
    arithmetic();
    integers();
    reals();
    return 0;
}
