/* JSON: limits, refusals with their place, and writing. */
#include "tests/test.h"
#include "shared/json.h"
#include "shared/limits.h"

static void check_refused(const char *text, size_t n, const char *words)
{
    json_t *v = NULL;
    struct err e = {0};
    int rc = json_parse(text, n, &v, &e);
    if (rc != ERR_BAD_JSON || e.code != rc || v != NULL || !strstr(e.detail, words)) {
        TEST_FAIL("%.40s: %d \"%s\", expected \"%s\"", text, rc, e.detail, words);
    }
}

static void check_same(const char *text, const char *expected)
{
    json_t *v;
    struct err e = {0};
    if (json_parse(text, strlen(text), &v, &e) != 0) {
        TEST_FAIL("%s: %s", text, e.detail);
    }
    struct buf b;
    buf_init(&b, 0);
    json_put_value(&b, v);
    CHECK_STR(b.data, expected);
    buf_finish(&b);
    json_decref(v);
}

static void values(void)
{
    check_same(" {\"b\" : [1, -2,3.0, 0.1,1e3] , \"a\":{}}\r\n\t",
               "{\"b\":[1,-2,3.0,0.1,1000.0],\"a\":{}}");
    check_same("null", "null");
    check_same("true", "true");
    check_same("\"\"", "\"\"");
    check_same("[[],[[]],{\"\":{}}]", "[[],[[]],{\"\":{}}]");
    check_same("9223372036854775807", "9223372036854775807");
    check_same("-9223372036854775808", "-9223372036854775808");
    check_same("1e308", "1e+308");
    check_same("\"\\u0041\\n\\u20ac\\ud83d\\ude00\\/\"", "\"A\\n\xE2\x82\xAC\xF0\x9F\x98\x80/\"");
    check_same("\"a\\u0000b\"", "\"a\\u0000b\""); /* NUL is a character like others */
}

static void syntax_is_refused_with_its_place(void)
{
    static const struct {
        const char *text, *words;
    } row[] = {
        {"", "line 1"},
        {" ", "line 1"},
        {"{", "line 1"},
        {"{\"a\":1,}", "line 1, column 8"},
        {"[1\n,2\n,]", "line 3, column 2"},
        {"[1] x", "line 1, column 5"},
        {"[1][2]", "line 1"},
        {"'a'", "line 1"},
        {"{a:1}", "line 1"},
        {"01", "line 1"},
        {"+1", "line 1"},
        {".5", "line 1"},
        {"NaN", "line 1"},
        {"// no\n1", "line 1"},
        {"\"\n\"", "newline"},
        {"\"\x01\"", "control character"},
        {"\"\\x\"", "escape"},
        {"\"\\ud800\"", "invalid Unicode"},
        {"\"\\udc00\"", "invalid Unicode"},
        {"{\"a\":1,\"a\":2}", "duplicate"},
        {"{\"a\\u0000\":1}", "NUL"},
        {"]", "line 1"},
        {"}}}}", "line 1"},
    };
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        check_refused(row[i].text, strlen(row[i].text), row[i].words);
    }
    check_refused("1\0", 2, "a zero byte at byte 1");
    check_refused("[\"\0\"]", 5, "a zero byte at byte 2");
    check_refused("\xEF\xBB\xBF{}", 5, "line 1"); /* a byte order mark is not white space */
}

static void huge_numbers_are_refused(void)
{
    check_refused("9223372036854775808", 19, "too big integer");
    check_refused("-9223372036854775809", 20, "too big negative integer");
    check_refused("[1e309]", 7, "overflow");
    char digits[5002];
    memset(digits, '9', sizeof(digits));
    check_refused(digits, sizeof(digits), "integer");
    digits[1] = '.'; /* many digits are no harm after the point */
    json_t *v;
    CHECK(json_parse(digits, sizeof(digits), &v, NULL) == 0);
    CHECK(json_real_value(v) == 10.0);
    json_decref(v);
}

static void bad_utf8_is_refused(void)
{
    static const char *const bad[] = {"\"\xFF\"",         "\"\xC0\x80\"",         "\"\xE2\x82\"",
                                      "\"\xED\xA0\x80\"", "\"\xF4\x90\x80\x80\"", "\"\x80\""};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        check_refused(bad[i], strlen(bad[i]), "unable to decode byte");
    }
}

/* What a person typed must not reach a log through an error. */
static void errors_do_not_quote_the_text(void)
{
    static const char *const texts[] = {"{\"a\": secret}", "[\"secret\" 1]",
                                        "{\"secret\":1,\"secret\":2}", "[1,2] secret"};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        json_t *v;
        struct err e = {0};
        CHECK_INT(json_parse(texts[i], strlen(texts[i]), &v, &e), ERR_BAD_JSON);
        CHECK(!strstr(e.detail, "secret"));
    }
}

static void depth_is_limited(void)
{
    char *text = malloc(2000002);
    CHECK(text);
    for (size_t depth = LIMIT_JSON_DEPTH; depth <= LIMIT_JSON_DEPTH + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        json_t *v;
        if (depth <= LIMIT_JSON_DEPTH) {
            CHECK_INT(json_parse(text, 2 * depth, &v, NULL), 0);
            json_decref(v);
        } else {
            check_refused(text, 2 * depth, "nested deeper than 64 at byte 64");
        }
    }
    memset(text, '[', 2000000); /* the bomb */
    check_refused(text, 2000000, "nested deeper");
    for (size_t i = 0; i < 2000000; i += 5) {
        memcpy(text + i, "{\"a\":", 5);
    }
    check_refused(text, 2000000, "nested deeper");
    /* Brackets within strings are text. */
    memset(text, '[', 2000000);
    text[0] = text[1999999] = '"';
    memcpy(text + 1, "\\\"\\\\", 4);
    json_t *v;
    CHECK_INT(json_parse(text, 2000000, &v, NULL), 0);
    json_decref(v);
    free(text);
}

static void items_are_limited(void)
{
    size_t n = 2 * (LIMIT_JSON_ITEMS + 1);
    char *text = malloc(n);
    CHECK(text);
    for (size_t i = 0; i < n; i += 2) {
        memcpy(text + i, "1,", 2);
    }
    text[0] = '[';
    text[1] = '1';
    text[n - 1] = ']';
    check_refused(text, n, "items");
    free(text);
}

static void bytes_are_limited(void)
{
    char *text = malloc((size_t)LIMIT_BULK_BYTES + 1);
    CHECK(text);
    check_refused(text, (size_t)LIMIT_BULK_BYTES + 1, "bytes, allowed"); /* not even looked at */
    free(text);
}

static void strings(void)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *expected;
    } row[] = {
        {"", 0, "\"\""},
        {"plain", 5, "\"plain\""},
        {"\"\\/", 3, "\"\\\"\\\\/\""},
        {"\n\r\t\b\f\x01\x1f\x7f", 8, "\"\\n\\r\\t\\u0008\\u000c\\u0001\\u001f\x7f\""},
        {"a\0b", 3, "\"a\\u0000b\""},
        {"\xC3\xA9\xF0\x9F\x98\x80", 6, "\"\xC3\xA9\xF0\x9F\x98\x80\""},
        {"a\xFFz", 3, "\"a\xEF\xBF\xBDz\""},
        {"\xE2\x82", 2, "\"\xEF\xBF\xBD\""},
        {"\xF0\x9F\x98\x22", 4, "\"\xEF\xBF\xBD\\\"\""},
        {"\xED\xA0\x80", 3, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
    };
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        struct buf b;
        buf_init(&b, 0);
        json_put_string(&b, row[i].bytes, row[i].n);
        CHECK_STR(b.data, row[i].expected);
        buf_finish(&b);
    }
}

/* Any bytes make a literal that jansson reads back as the repaired text. */
static void random_strings(void)
{
    uint64_t seed = 5;
    for (int round = 0; round < 5000; round++) {
        char in[24];
        size_t n = test_random(&seed) % (sizeof(in) + 1);
        for (size_t i = 0; i < n; i++) {
            in[i] = (char)(test_random(&seed) >> (round % 3 ? 57 : 56));
        }
        struct buf b, again;
        buf_init(&b, 0);
        buf_init(&again, 0);
        json_put_string(&b, in, n);
        json_t *v;
        CHECK_INT(json_parse(b.data, b.len, &v, NULL), 0);
        json_put_value(&again, v);
        CHECK_STR(again.data, b.data);
        json_decref(v);
        buf_finish(&b);
        buf_finish(&again);
    }
}

static void check_number(double v, const char *expected)
{
    struct buf b;
    buf_init(&b, 0);
    json_put_number(&b, v);
    CHECK_STR(b.data, expected);
    buf_finish(&b);
}

static void numbers(void)
{
    check_number(0, "0");
    check_number(-0.0, "-0");
    check_number(1, "1");
    check_number(0.1, "0.1");
    check_number(0.3, "0.3");
    check_number(0.1 + 0.2, "0.30000000000000004");
    check_number(1e21, "1e+21");
    check_number(123456789012345680.0, "1.2345678901234568e+17");
    check_number(5e-324, "5e-324");
    check_number(2.2250738585072014e-308, "2.2250738585072014e-308");
    check_number(1.7976931348623157e308, "1.7976931348623157e+308");
    check_number((double)3.14159274f, "3.1415927410125732");
    check_number(NAN, "null");
    check_number(INFINITY, "null");
    check_number(-INFINITY, "null");
    uint64_t seed = 9;
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = test_random(&seed);
        double x;
        memcpy(&x, &bits, sizeof(x));
        if (!isfinite(x)) {
            continue;
        }
        struct buf b;
        buf_init(&b, 0);
        json_put_number(&b, x);
        CHECK(strtod(b.data, NULL) == x);
        buf_finish(&b);
    }
}

/* Output over the buffer's limit fails the buffer, quietly and safely. */
static void writing_respects_the_limit(void)
{
    static const char text[] = "{\"a\":[1,2.0,\"x\\ny\",null,{\"b\":false}]}";
    json_t *v;
    CHECK_INT(json_parse(text, strlen(text), &v, NULL), 0);
    for (size_t limit = 1; limit < sizeof(text) + 4; limit++) {
        struct buf b;
        buf_init(&b, limit);
        json_put_value(&b, v);
        CHECK_INT(b.failed, limit < strlen(text));
        buf_finish(&b);
    }
    json_decref(v);
}

int main(void)
{
    values();
    syntax_is_refused_with_its_place();
    huge_numbers_are_refused();
    bad_utf8_is_refused();
    errors_do_not_quote_the_text();
    depth_is_limited();
    items_are_limited();
    bytes_are_limited();
    strings();
    random_strings();
    numbers();
    writing_respects_the_limit();
    return 0;
}
