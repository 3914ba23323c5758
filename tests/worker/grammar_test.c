/* Grammars without a vocabulary: what the automaton of a GBNF text takes and where it may end; what
 * is refused; schemas, by JSON texts that fit and that do not; character classes against a table of
 * UTF-8 that is made another way. */
#include "shared/json.h"
#include "tests/test.h"
#include "worker/grammar/automaton.h"
#include "worker/grammar/charclass.h"
#include "worker/grammar/grammar_budget.h"
#include "worker/grammar/schema.h"

/* 1: taken and complete, 0: taken and not complete, -1: not taken. */
static int run(struct automaton *a, const char *text, size_t n)
{
    uint32_t state = AUTOMATON_BEGIN;
    for (size_t i = 0; i < n; i++) {
        state = automaton_step(a, state, (uint8_t)text[i]);
        CHECK(state != AUTOMATON_FULL);
        if (state == AUTOMATON_DEAD) {
            return -1;
        }
    }
    return automaton_accepts(a, state);
}

static void make(const char *text, struct grammar **g, struct automaton **a)
{
    struct err e = {0};
    int rc = grammar_create(text, strlen(text), g, &e);
    rc = rc < 0 ? rc : automaton_create(*g, a, &e);
    if (rc < 0) {
        TEST_FAIL("%s: %s", text, e.detail);
    }
}

static void expect(const char *grammar, const char *const *texts, const int *wanted, size_t n)
{
    struct grammar *g;
    struct automaton *a;
    make(grammar, &g, &a);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < n; i++) {
            int got = run(a, texts[i], strlen(texts[i]));
            if (got != wanted[i]) {
                TEST_FAIL("%s\n'%s': %d, expected %d", grammar, texts[i], got, wanted[i]);
            }
        }
        automaton_reset(a);
    }
    automaton_destroy(&a);
    grammar_destroy(&g);
}

#define EXPECT(grammar, ...)                                                                       \
    do {                                                                                           \
        static const struct {                                                                      \
            const char *text;                                                                      \
            int wanted;                                                                            \
        } rows_[] = {__VA_ARGS__};                                                                 \
        const char *texts_[COUNT_OF(rows_)];                                                       \
        int wanted_[COUNT_OF(rows_)];                                                              \
        for (size_t i_ = 0; i_ < COUNT_OF(rows_); i_++) {                                          \
            texts_[i_] = rows_[i_].text;                                                           \
            wanted_[i_] = rows_[i_].wanted;                                                        \
        }                                                                                          \
        expect(grammar, texts_, wanted_, COUNT_OF(rows_));                                         \
    } while (0)

static void notation(void)
{
    EXPECT("root ::= \"yes\" | \"no\"", {"yes", 1}, {"no", 1}, {"ye", 0}, {"", 0}, {"yess", -1},
           {"x", -1});
    EXPECT("root ::= a b?\na ::= [a-c]+ # comment\n\nb ::= \"!\" |\n  \"?\"\n", {"a", 1},
           {"abc", 1}, {"ab!", 1}, {"ab?", 1}, {"!", -1}, {"ab!!", -1});
    EXPECT("root ::= \"x\"\n  | \"y\"\n  | \"z\" \"\"", {"x", 1}, {"y", 1}, {"z", 1});
    EXPECT("root ::= (\"a\" | \"b\"\n  \"c\")* \"d\"", {"d", 1}, {"abcd", 1}, {"bcad", 1},
           {"bd", -1});
    EXPECT("root ::= [0-9]{3}", {"12", 0}, {"123", 1}, {"1234", -1});
    EXPECT("root ::= [0-9]{2,}", {"1", 0}, {"12", 1}, {"1234567", 1});
    EXPECT("root ::= [0-9]{0,2} \"x\"", {"x", 1}, {"12x", 1}, {"123", -1});
    EXPECT("root ::= \"ab\"{2} \"c\"+", {"ababc", 1}, {"abc", -1}, {"ababccc", 1});
    EXPECT("root ::= [^a-z\\n]", {"A", 1}, {"a", -1}, {"\n", -1}, {"\xc3\xa9", 1}, {"\xc3", 0},
           {"\xf0\x9f\x94\xa5", 1}, {"\xff", -1}, {"\xc0\x80", -1}, {"\xed\xa0\x80", -1});
    EXPECT("root ::= .", {"\n", 1}, {"\xe2\x82\xac", 1}, {"\xe2\x82", 0}, {"ab", -1});
    EXPECT("root ::= \"\\\"\\\\\\n\\x41\\u00e9\\U0001F525\"",
           {"\"\\\nA\xc3\xa9\xf0\x9f\x94\xa5", 1}, {"\"\\\nA\xc3", 0});
    EXPECT("root ::= [\\]\\-\\^a-]", {"]", 1}, {"-", 1}, {"^", 1}, {"a", 1}, {"b", -1});
    /* Recursion in the middle, at the end, and things that may be nothing, again and again. */
    EXPECT("root ::= \"(\" root \")\" | \"\"", {"", 1}, {"()", 1}, {"((()))", 1}, {"((", 0},
           {"())", -1});
    EXPECT("root ::= \"\"+ | (\"\"){2,3} \"b\" \"\"*", {"", 1}, {"b", 1}, {"bb", -1});
    EXPECT("root ::= \"a\" root | \"b\"", {"aaaaaaaab", 1}, {"a", 0});
    EXPECT("root ::= (\"a\"? \"b\"*)* \"c\"", {"c", 1}, {"abbbabc", 1}, {"d", -1});
    EXPECT("root ::= \"a\"* \"a\"{2}", {"a", 0}, {"aa", 1}, {"aaaaa", 1});
    EXPECT(
        "root ::= expr\nexpr ::= term ((\"+\" | \"-\") term)*\nterm ::= [0-9]+ | \"(\" expr \")\"",
        {"1+(2-33)", 1}, {"1+", 0}, {"(1", 0}, {"1)", -1});
}

static void refused(void)
{
    static const char *const rows[] = {
        "",
        "x ::= \"a\"",
        "root ::= missing",
        "root ::= \"a",
        "root ::= [a",
        "root ::= []",
        "root ::= [z-a]",
        "root ::= (\"a\"",
        "root ::= \"a\")",
        "root = \"a\"",
        "root ::= \"a\"\nroot ::= \"b\"",
        "root ::= \"\\q\"",
        "root ::= \"\\x4\"",
        "root ::= \"\\U00110000\"",
        "root ::= \"a\"{2",
        "root ::= \"a\"{3,2}",
        "root ::= \"a\"{x}",
        "root ::= \"a\"{99999999999}",
        "root ::= \"\xff\"",
        "root ::= root \"a\" | \"b\"",
        "root ::= x? root \"a\" | \"b\"\nx ::= \"y\"?",
        "root ::= a\na ::= b \"1\"\nb ::= a \"2\" | \"3\"",
        "root ::= \"\\uD800\"",
        "| ::= \"a\"",
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct grammar *g = NULL;
        struct automaton *a = NULL;
        struct err e = {0};
        int rc = grammar_create(rows[i], strlen(rows[i]), &g, &e);
        rc = rc < 0 ? rc : automaton_create(g, &a, &e);
        if (rc != ERR_GRAMMAR || !e.detail[0]) {
            TEST_FAIL("%s: %d", rows[i], rc);
        }
        grammar_destroy(&g);
    }
    /* Deep, long and wide texts end with an error or a grammar, soon. */
    static char text[400000];
    static const char *const parts[] = {"(", "\"a\" | ", "[a-z]{100}", "x ", "\"\"* ", "a? "};
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        struct grammar *g = NULL;
        struct automaton *a = NULL;
        struct err e = {0};
        size_t n = (size_t)snprintf(text, sizeof(text), "x ::= \"y\"\na ::= \"z\"\nroot ::= ");
        while (n + 20 < sizeof(text)) {
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", parts[i]);
        }
        int rc = grammar_create(text, n, &g, &e);
        rc = rc < 0 ? rc : automaton_create(g, &a, &e);
        CHECK(rc == 0 || rc == ERR_GRAMMAR);
        automaton_destroy(&a);
        grammar_destroy(&g);
    }
}

static size_t utf8(uint32_t c, uint8_t out[4])
{
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t heads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n; i-- > 1; c >>= 6) {
        out[i] = (uint8_t)(0x80 | (c & 63));
    }
    out[0] = (uint8_t)(heads[n] | c);
    return n;
}

struct seen {
    const struct charclass *c;
    uint8_t *count; /* by character */
};

static int spell(void *arg, const struct charclass_bytes *b)
{
    struct seen *s = arg;
    for (uint32_t c = 0; c < 0x110000; c++) {
        uint8_t bytes[4];
        bool fits = utf8(c, bytes) == b->n;
        for (size_t i = 0; i < b->n && fits; i++) {
            fits = bytes[i] >= b->lo[i] && bytes[i] <= b->hi[i];
        }
        s->count[c] = (uint8_t)(s->count[c] + fits);
    }
    return 0;
}

/* Every character of a class is spelt once, no other one is. */
static void classes(void)
{
    static const struct {
        uint32_t lo, hi;
        bool invert;
    } rows[] = {{'a', 'z', false},       {'a', 'a', true},         {0, 0x10FFFF, false},
                {0x7F, 0x80, false},     {0x7FF, 0x800, false},    {0x3041, 0x30FF, false},
                {0xD000, 0xE000, false}, {0xFFFF, 0x10000, false}, {0x10FFFE, 0x10FFFF, true},
                {0x40, 0x10FFF0, false}};
    struct seen s = {.count = calloc(0x110000, 1)};
    CHECK(s.count);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct charclass c = {0};
        CHECK(charclass_add(&c, rows[i].lo, rows[i].hi) && charclass_settle(&c, rows[i].invert));
        memset(s.count, 0, 0x110000);
        CHECK_INT(charclass_spell(&c, spell, &s), 0);
        for (uint32_t k = 0; k < 0x110000; k++) {
            bool in = k >= rows[i].lo && k <= rows[i].hi, is_half = k >= 0xD800 && k <= 0xDFFF;
            CHECK_INT(s.count[k], (in != rows[i].invert) && !is_half);
        }
    }
    free(s.count);
}

static void schema(const char *text, const char *const *fits, const char *const *fails)
{
    json_t *json;
    struct buf gbnf;
    struct err e = {0};
    struct grammar *g;
    struct automaton *a;
    CHECK_INT(json_parse(text, strlen(text), &json, &e), 0);
    buf_init(&gbnf, 0);
    if (schema_to_gbnf(json, &gbnf, &e) < 0) {
        TEST_FAIL("%s: %s", text, e.detail);
    }
    make(gbnf.data, &g, &a);
    for (size_t i = 0; fits[i]; i++) {
        if (run(a, fits[i], strlen(fits[i])) != 1) {
            TEST_FAIL("%s\n%s is not taken by\n%s", text, fits[i], gbnf.data);
        }
    }
    for (size_t i = 0; fails[i]; i++) {
        if (run(a, fails[i], strlen(fails[i])) == 1) {
            TEST_FAIL("%s\n%s is taken by\n%s", text, fails[i], gbnf.data);
        }
    }
    automaton_destroy(&a);
    grammar_destroy(&g);
    buf_finish(&gbnf);
    json_decref(json);
}

#define LIST(...)                                                                                  \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

static void schemas(void)
{
    schema(
        "{\"type\":\"object\"}",
        LIST("{}", "{\"a\":1}", "{ \"a\" : [1, -2.5e3, {\"b\":null}], \"c\":\"\\u00e9\xc3\xa9\"}"),
        LIST("[]", "{", "{a:1}", "{\"a\":01}", "{\"a\":1,}", "1"));
    schema("{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"minLength\":1},"
           "\"age\":{\"type\":\"integer\"},\"tags\":{\"type\":\"array\",\"items\":{\"enum\":[\"a\","
           "\"b\"]},"
           "\"maxItems\":2}},\"required\":[\"name\"],\"title\":\"Person\"}",
           LIST("{\"name\":\"Z\"}", "{\"name\": \"Z\", \"age\": 3}",
                "{\"name\":\"Z\",\"tags\":[\"a\",\"b\"]}",
                "{\"name\":\"\\n\",\"age\":-1,\"tags\":[]}"),
           LIST("{}", "{\"name\":\"\"}", "{\"age\":3,\"name\":\"Z\"}",
                "{\"name\":\"Z\",\"age\":1.5}", "{\"name\":\"Z\",\"tags\":[\"c\"]}",
                "{\"name\":\"Z\",\"tags\":[\"a\",\"a\",\"a\"]}", "{\"name\":\"Z\",\"x\":1}"));
    schema(
        "{\"properties\":{\"a\":{\"const\":1},\"b\":{\"type\":\"null\"}},\"additionalProperties\":"
        "{\"type\":\"boolean\"}}",
        LIST("{}", "{\"a\":1}", "{\"b\":null}", "{\"a\":1,\"b\":null,\"c\":true,\"d\":false}",
             "{\"z\":true}"),
        LIST("{\"a\":2}", "{\"c\":1}"));
    schema("{\"type\":[\"string\",\"null\"]}", LIST("\"x\"", "null"), LIST("1", "true"));
    schema(
        "{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"array\",\"items\":{\"type\":\"integer\"},"
        "\"minItems\":2}]}",
        LIST("1", "[1,2]", "[ 1, 2, 3]"), LIST("[1]", "[]", "\"1\""));
    schema("{\"prefixItems\":[{\"type\":\"string\"},{\"type\":\"integer\"}],\"items\":false}",
           LIST("[\"a\",1]"), LIST("[\"a\"]", "[1,\"a\"]", "[\"a\",1,2]"));
    schema("{\"$ref\":\"#/$defs/node\",\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{"
           "\"v\":{\"type\":\"integer\"},\"next\":{\"anyOf\":[{\"$ref\":\"#/$defs/node\"},"
           "{\"type\":\"null\"}]}},\"required\":[\"v\",\"next\"],\"additionalProperties\":false}}}",
           LIST("{\"v\":1,\"next\":null}", "{\"v\":1,\"next\":{\"v\":2,\"next\":null}}"),
           LIST("{\"v\":1}", "{\"v\":1,\"next\":{}}"));
    schema("{\"enum\":[\"a\\\"b\",1,null,[true],{\"k\":\"\\n\"}]}",
           LIST("\"a\\\"b\"", "1", "null", "[true]", "{\"k\":\"\\n\"}"), LIST("\"a\"", "2"));
    schema("{}", LIST("1", "\"x\"", "[{}]"), LIST("x", ""));
    schema("{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
           LIST("\"ab\"", "\"\xc3\xa9\\n\"", "\"abc\""), LIST("\"a\"", "\"abcd\""));

    static const char *const bad[] = {
        "{\"type\":\"integer\",\"minimum\":3}",
        "{\"type\":\"string\",\"pattern\":\"a\"}",
        "{\"type\":\"thing\"}",
        "{\"enum\":[]}",
        "{\"anyOf\":[]}",
        "{\"allOf\":[{},{}]}",
        "{\"$ref\":\"#/nowhere\"}",
        "{\"$ref\":\"http://example.com\"}",
        "{\"not\":{}}",
        "{\"required\":[\"a\"],\"properties\":{}}",
        "{\"type\":\"array\",\"minItems\":-1}",
        "{\"type\":\"array\",\"minItems\":3,\"maxItems\":2}",
        "{\"properties\":{\"a\":false}}",
        "{\"properties\":{\"a\":7}}",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        json_t *json;
        struct buf gbnf;
        struct err e = {0};
        CHECK_INT(json_parse(bad[i], strlen(bad[i]), &json, &e), 0);
        buf_init(&gbnf, 0);
        int rc = schema_to_gbnf(json, &gbnf, &e);
        if (rc != ERR_GRAMMAR || !e.detail[0]) {
            TEST_FAIL("%s: %d\n%s", bad[i], rc, gbnf.data);
        }
        buf_finish(&gbnf);
        json_decref(json);
    }
}

/* Rules that name each other thousands of times: every place is one of few, and is met by millions
 * of ways. Refused before those are gone, and not only when a prompt waits for the mask. */
static void many_ways_are_refused(void)
{
    struct buf text;
    struct grammar *g;
    struct automaton *a;
    struct err e = {0};
    buf_init(&text, 0);
    buf_str(&text, "root ::= \"x\" b\nb ::= a");
    for (int i = 0; i < 16000; i++) {
        buf_str(&text, "|a");
    }
    buf_str(&text, "\na ::= \"y\"");
    for (int i = 0; i < 16000; i++) {
        buf_str(&text, "|\"y\"");
    }
    CHECK_INT(grammar_create(text.data, text.len, &g, &e), 0);
    CHECK_INT(automaton_create(g, &a, &e), ERR_GRAMMAR);
    grammar_destroy(&g);
    buf_finish(&text);
}

static void nothing_is_repeated_in_no_time(void)
{
    struct buf text;
    struct grammar *g;
    struct err e = {0};
    buf_init(&text, 0);
    buf_str(&text, "root ::= \"x\"");
    for (int i = 0; i < 30000; i++) {
        buf_str(&text, " \"\"{99999}");
    }
    CHECK_INT(grammar_create(text.data, text.len, &g, &e), 0);
    grammar_destroy(&g);
    buf_finish(&text);
    static const char nul[] = "root ::= \"x\"\0\"y\"";
    CHECK_INT(grammar_create(nul, sizeof(nul) - 1, &g, &e), ERR_GRAMMAR);
}

/* Others have all the memory: an automaton that forgets what it knew has no room to begin anew, and
 * says so until there is; one that begins is told that it is too much now, not that it is wrong. */
static void others_have_the_memory(void)
{
    enum {
        PART = 16 * 1024,
        ALTERNATIVES =
            2047, /* with the ground as many as a table holds: its index has just grown */
    };
    struct buf text;
    struct grammar *g;
    struct automaton *a, *other;
    struct err e = {0};
    size_t taken = 0;
    buf_init(&text, 1 << 20);
    buf_str(&text, "root ::= \"a0\"");
    for (int i = 1; i < ALTERNATIVES; i++) {
        buf_printf(&text, " | \"%c%d\"", 'a' + i % 26, i);
    }
    CHECK_INT(grammar_create(text.data, text.len, &g, &e), 0);
    CHECK_INT(automaton_create(g, &a, &e), 0);
    for (size_t part = GRAMMAR_BUDGET_BYTES; part > 0; part /= 2) {
        while (grammar_budget_take(part)) {
            taken += part;
        }
    }
    automaton_reset(a);
    CHECK(automaton_step(a, AUTOMATON_BEGIN, '!') == AUTOMATON_FULL);
    int rc;
    while ((rc = automaton_create(g, &other, &e)) != 0) { /* wherever it runs out */
        CHECK_INT(rc, ERR_BUSY);
        grammar_budget_give(PART);
        taken -= PART;
    }
    automaton_destroy(&other);
    grammar_budget_give(taken);
    automaton_reset(a);
    CHECK(automaton_step(a, AUTOMATON_BEGIN, 'a') != AUTOMATON_FULL);
    automaton_destroy(&a);
    grammar_destroy(&g);
    buf_finish(&text);
    CHECK(grammar_budget_take(GRAMMAR_BUDGET_BYTES)); /* every byte came back */
    grammar_budget_give(GRAMMAR_BUDGET_BYTES);
}

int main(void)
{
    notation();
    refused();
    many_ways_are_refused();
    nothing_is_repeated_in_no_time();
    classes();
    schemas();
    others_have_the_memory();
    return 0;
}
