/* UTF-8 against RFC 3629 and tables 3-7 to 3-11 of the Unicode standard. */
#include "tests/test.h"
#include "shared/base.h"
#include "shared/utf8.h"

/* Every code point there and back; surrogates and what lies beyond have no form. */
static void every_code_point(void)
{
    for (uint32_t cp = 0; cp <= 0x110010; cp++) {
        char s[4];
        int n = utf8_encode(cp, s);
        bool has_form = cp < 0xD800 || (cp > 0xDFFF && cp <= 0x10FFFF);
        CHECK_INT(n, !has_form ? 0 : cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4);
        if (n == 0) {
            continue;
        }
        uint32_t back = ~cp;
        CHECK_INT(utf8_decode(s, (size_t)n, &back), n);
        CHECK_INT(back, cp);
        for (size_t cut = 0; cut < (size_t)n; cut++) {
            CHECK_INT(utf8_decode(s, cut, &back), 0);
        }
    }
}

/* All byte strings of up to three bytes, and of four where the first is F0-F7: exactly as many are
 * one character as there are code points of that length. With the test above, these are those. */
static void nothing_else_is_valid(void)
{
    size_t n_valid[5] = {0};
    uint32_t cp;
    for (uint32_t v = 0; v < 1u << 24; v++) {
        char s[3] = {(char)(v >> 16), (char)(v >> 8), (char)v};
        n_valid[3] += utf8_decode(s, 3, &cp) == 3;
        if ((v & 0xff) == 0) {
            n_valid[2] += utf8_decode(s, 2, &cp) == 2;
        }
        if ((v & 0xffff) == 0) {
            n_valid[1] += utf8_decode(s, 1, &cp) == 1;
        }
    }
    CHECK_INT(n_valid[1], 0x80);
    CHECK_INT(n_valid[2], 0x800 - 0x80);
    CHECK_INT(n_valid[3], 0x10000 - 0x800 - 0x800);
    /* The third and fourth bytes of four are judged by their upper two bits only: 4 x 4 classes. */
    for (uint32_t v = 0; v < 1u << 11; v++) {
        for (uint32_t classes = 0; classes < 16; classes++) {
            char s[4] = {(char)(0xF0 | v >> 8), (char)v, (char)(classes >> 2 << 6 | 0x15),
                         (char)(classes << 6 | 0x2A)};
            n_valid[4] += utf8_decode(s, 4, &cp) == 4;
        }
    }
    CHECK_INT(n_valid[4], 0x100000 / 64 / 64);
}

static void edges(void)
{
    static const struct {
        const char *s;
        size_t n;
        int expected;
    } row[] = {
        {"\x00", 1, 1},
        {"\x7F", 1, 1},
        {"\x80", 1, -1},
        {"\xBF", 1, -1},
        {"\xC0\x80", 2, -1},
        {"\xC1\xBF", 2, -1},
        {"\xC2", 1, 0},
        {"\xC2\x7F", 2, -1},
        {"\xC2\xC0", 2, -1},
        {"\xDF\xBF", 2, 2},
        {"\xE0\x9F\xBF", 3, -1},
        {"\xE0\x9F", 2, -1},
        {"\xE0\xA0\x80", 3, 3},
        {"\xE0\xA0", 2, 0},
        {"\xED\x9F\xBF", 3, 3},
        {"\xED\xA0\x80", 3, -1},
        {"\xED\xBF\xBF", 3, -1},
        {"\xEF\xBF\xBF", 3, 3},
        {"\xF0\x8F\xBF\xBF", 4, -1},
        {"\xF0\x90\x80\x80", 4, 4},
        {"\xF4\x8F\xBF\xBF", 4, 4},
        {"\xF4\x90\x80\x80", 4, -1},
        {"\xF5\x80\x80\x80", 4, -1},
        {"\xFE", 1, -1},
        {"\xFF", 1, -1},
        {"\xF0\x90\x80", 3, 0},
        {"\xF0\x90\x80\x41", 4, -1},
        {"", 0, 0},
    };
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        uint32_t cp;
        int got = utf8_decode(row[i].s, row[i].n, &cp);
        if (got != row[i].expected) {
            TEST_FAIL("row %zu: %d, expected %d", i, got, row[i].expected);
        }
    }
}

/* U stands for U+FFFD; the inputs are tables 3-8 to 3-11. */
static void repair(void)
{
    static const struct {
        const char *bytes, *expected;
    } row[] = {
        {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "UUUUUUUUA"},
        {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "UUUUUUUUA"},
        {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "UUUUUAUUB"},
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "UUUUA"},
        {"a\xE2\x82\xAC", "a\xE2\x82\xAC"},
        {"a\xE2\x82", "aU"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        char out[64], expected[64] = "";
        for (const char *p = row[i].expected; *p; p++) {
            char one[2] = {*p, 0};
            strcat(expected, *p == 'U' ? "\xEF\xBF\xBD" : one);
        }
        size_t n = utf8_repair(row[i].bytes, strlen(row[i].bytes), out);
        out[n] = 0;
        CHECK_STR(out, expected);
        CHECK(utf8_is_valid(out, n));
    }
}

/* A stream cut anywhere: what utf8_complete_prefix holds back is exactly the unfinished character.
 */
static void complete_prefix(void)
{
    static const char text[] = "a\xC3\xA9z\xE2\x82\xAC\xF0\x9F\x98\x80!";
    static const size_t expected[] = {0, 1, 1, 3, 4, 4, 4, 7, 7, 7, 7, 11, 12};
    CHECK_INT(sizeof(text) - 1, 12);
    for (size_t n = 0; n <= 12; n++) {
        CHECK_INT(utf8_complete_prefix(text, n), expected[n]);
    }
    CHECK_INT(utf8_complete_prefix("a\x80\x80\x80\x80", 5), 5); /* garbage is not waited for */
    CHECK_INT(utf8_complete_prefix("a\xFF", 2), 2);
    CHECK_INT(utf8_complete_prefix("\xF0\x9F\x98", 3), 0);
}

/* Whatever the bytes: repairing gives valid text, and repairing it again changes nothing. */
static void repair_random(void)
{
    uint64_t seed = 3;
    for (int round = 0; round < 20000; round++) {
        char in[16], out[48], again[144];
        size_t n = test_random(&seed) % (sizeof(in) + 1);
        for (size_t i = 0; i < n; i++) {
            uint64_t r = test_random(&seed);
            in[i] = (char)(r & 1 ? r >> 8 : 0x80 | r >> 8); /* half of them high */
        }
        size_t n_out = utf8_repair(in, n, out);
        CHECK(n_out <= 3 * n && utf8_is_valid(out, n_out));
        CHECK_INT(utf8_is_valid(in, n), n_out == n && memcmp(in, out, n) == 0);
        CHECK_INT(utf8_repair(out, n_out, again), n_out);
        CHECK(memcmp(out, again, n_out) == 0);
    }
}

/* Nothing that a terminal obeys, in one byte or two; all else as it was. */
static void tame(void)
{
    static const char in[] = "\x1b[2J\x07 \xc2\x9b" "31m \xc2\xa0\xc3\xa9 \x9b\x7f\t\xe2\x82\xac";
    char out[3 * sizeof(in)];
    size_t n = utf8_tame(in, sizeof(in) - 1, out);
    out[n] = 0;
    CHECK_STR(out, " [2J   31m \xc2\xa0\xc3\xa9 \xef\xbf\xbd  \xe2\x82\xac");
}

int main(void)
{
    tame();
    every_code_point();
    nothing_else_is_valid();
    edges();
    repair();
    complete_prefix();
    repair_random();
    return 0;
}
