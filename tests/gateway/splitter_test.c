/* What chat models write, taken apart: the same parts however the text is cut. Parts are written as
 * R(reasoning), T(text), C(name arguments), neighbours of a kind joined. */
#include "gateway/splitter.h"
#include "tests/test.h"

struct seen {
    struct buf out;
    int last;
};

static void on_part(void *arg, enum splitter_part part, const char *text, size_t n,
                    const char *arguments, size_t n_arguments)
{
    struct seen *s = arg;
    if ((int)part != s->last || part == SPLITTER_PART_CALL) {
        buf_str(&s->out, s->last >= 0 ? ")" : "");
        buf_char(&s->out, "RTC"[part]);
        buf_char(&s->out, '(');
    }
    s->last = (int)part;
    buf_add(&s->out, text, n);
    if (arguments) {
        buf_char(&s->out, ' ');
        buf_add(&s->out, arguments, n_arguments);
    }
}

static void expect(const char *text, bool reasoning, bool calls, const char *wanted)
{
    size_t n = strlen(text);
    for (size_t step = 1; step <= n + 1; step += step < 8 ? 1 : n) {
        struct splitter s;
        struct seen seen = {.last = -1};
        buf_init(&seen.out, 0);
        buf_str(&seen.out, "");
        splitter_init(&s, reasoning, calls);
        for (size_t at = 0; at < n; at += step) {
            CHECK(splitter_feed(&s, text + at, MIN(step, n - at), false, on_part, &seen));
        }
        CHECK(splitter_feed(&s, "", 0, true, on_part, &seen));
        buf_str(&seen.out, seen.last >= 0 ? ")" : "");
        if (strcmp(seen.out.data, wanted) != 0) {
            TEST_FAIL("'%s' in pieces of %zu\n got    %s\n wanted %s", text, step, seen.out.data,
                      wanted);
        }
        buf_finish(&seen.out);
        splitter_finish(&s);
    }
}

static const struct {
    const char *text, *wanted;
} rows[] = {
    {"", ""},
    {"Hello", "T(Hello)"},
    {" \n Hello ", "T( \n Hello )"},
    {"  ", "T(  )"},
    {"<think>a b</think>\n\nHi", "R(a b)T(Hi)"},
    {"\n<think>\na", "R(\na)"},
    {"<think></think>", ""},
    {"<thin", "T(<thin)"},
    {"a <think>b</think>", "T(a <think>b</think>)"},
    {"<think>a</thin b</think>c<think>d", "R(a</thin b)T(c<think>d)"},
    {"<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>", "C(f {\"x\":1})"},
    {"Well.\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>{\"name\":\"g\","
     "\"arguments\":\"{}\"}</tool_call>\nDone",
     "T(Well.\n)C(f {})C(g {})T(Done)"},
    {"<think>so</think>\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>", "R(so)C(f {})"},
    {"<tool_call>{\"name\":\"f\",\"arguments\":{}}", "C(f {})"},
    {"<tool_call>{\"name\":\"f\"", "T(<tool_call>{\"name\":\"f\")"},
    {"<tool_call>nothing</tool_call> x", "T(<tool_call>nothing</tool_call> x)"},
    {"a <tool", "T(a <tool)"},
    {"a < b <tools>", "T(a < b <tools>)"},
    {"{\"name\":\"f\",\"parameters\":{\"a\":[1]}}", "C(f {\"a\":[1]})"},
    {"[{\"name\":\"f\",\"arguments\":{}},{\"name\":\"g\",\"arguments\":{\"b\":2}}]",
     "C(f {})C(g {\"b\":2})"},
    {"{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{}}}", "C(f {})"},
    {"{\"name\":\"Bob\",\"age\":3}", "T({\"name\":\"Bob\",\"age\":3})"},
    {"{\"answer\": 42, \"x\": {}}", "T({\"answer\": 42, \"x\": {}})"},
    {"[1, 2, 3]", "T([1, 2, 3])"},
    {"[]", "T([])"},
    {"{", "T({)"},
    {"{\"name\":\"f\",\"arguments\":{}} and more", "T({\"name\":\"f\",\"arguments\":{}} and more)"},
};

int main(void)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        expect(rows[i].text, true, true, rows[i].wanted);
    }
    expect("<think>a</think>b", false, true, "T(<think>a</think>b)");
    expect("<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>", true, false,
           "T(<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>)");
    expect("{\"name\":\"f\",\"arguments\":{}}", true, false,
           "T({\"name\":\"f\",\"arguments\":{}})");
    return 0;
}
