/* What a caller of worker/template.h sees: errors with line and name, the template's own
 * exceptions, limits. That templates print what Jinja2 prints is the matter of
 * template_families_test and template/differential.py. */
#include "shared/json.h"
#include "shared/limits.h"
#include "tests/test.h"
#include "worker/template.h"

/* 0 with the text in out, or the error. */
static int render(const char *source, size_t n, const char *context, int64_t now, struct buf *out,
                  struct err *e)
{
    struct template *t = NULL;
    json_t *v = NULL;
    CHECK(json_parse(context, strlen(context), &v, e) == 0);
    buf_init(out, 0);
    buf_str(out, "");
    int rc = template_create(source, n, &t, e);
    if (rc == 0) {
        rc = template_render(t, v, now, out, e);
    }
    template_destroy(&t);
    CHECK(!t);
    json_decref(v);
    return rc;
}

static void check_output(const char *source, const char *context, const char *expected)
{
    struct buf out;
    struct err e = {0};
    if (render(source, strlen(source), context, 0, &out, &e) < 0) {
        TEST_FAIL("%s: %s", source, e.detail);
    }
    CHECK_STR(out.data, expected);
    buf_finish(&out);
}

static void check_error(const char *source, const char *expected)
{
    struct buf out;
    struct err e = {0};
    int rc =
        render(source, strlen(source), "{\"d\": {\"a\": 1}, \"l\": [1], \"n\": null}", 0, &out, &e);
    if (rc == 0) {
        TEST_FAIL("%s printed \"%s\", expected the error %s", source, out.data, expected);
    }
    CHECK_INT(rc, ERR_TEMPLATE);
    CHECK_INT(e.code, ERR_TEMPLATE);
    CHECK_STR(e.detail, expected);
    CHECK_INT(out.len, 0); /* nothing on failure */
    buf_finish(&out);
}

static void check_errors(void)
{
    check_error("a\n{{ nope.x }}", "line 2: 'nope' is undefined");
    check_error("\n\n{{ d.b.c }}", "line 3: 'dict object' has no attribute 'b'");
    check_error("{{ d['b'] + 1 }}", "line 1: 'dict object' has no attribute 'b'");
    check_error("{{ l[3].x }}", "line 1: list object has no element 3");
    check_error("{{ n.strip() }}", "line 1: 'None' has no attribute 'strip'");
    check_error("{{ nope() }}", "line 1: 'nope' is undefined");
    check_error("{% set x = 1 %}\n{{ x + 'a' }}",
                "line 2: unsupported operand type(s) for +: 'int' and 'str'");
    check_error("{{ 'a' + 1 }}", "line 1: can only concatenate str (not \"int\") to str");
    check_error("{{ 1 < 'a' }}", "line 1: '<' not supported between instances of 'int' and 'str'");
    check_error("{{ l.append(2) }}",
                "line 1: access to attribute 'append' of 'list' object is unsafe.");
    check_error("{{ d.update({}) }}",
                "line 1: access to attribute 'update' of 'dict' object is unsafe.");
    check_error("{{ 1|nosuch }}", "line 1: there is no filter named 'nosuch'");
    check_error("{{ 1 is nosuch }}", "line 1: there is no test named 'nosuch'");
    check_error("{{ 'a'|replace('b') }}", "line 1: replace() needs the argument 'new'");
    check_error("{{ 9223372036854775807 + 1 }}", "line 1: an integer of more than 64 bits");
    check_error("{% for a, b in [[1]] %}{% endfor %}",
                "line 1: not enough values to unpack (expected 2, got 1)");
    check_error("{% macro m(a) %}{{ a.x }}{% endmacro %}\n{{ m() }}",
                "line 1: parameter 'a' was not provided");
    check_error("{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
                "line 1: macro 'm' takes not more than 1 argument(s)");
    /* syntax */
    check_error("{% if 1 %}\n{{ 1 }}", "line 2: expected 'elif', found the end of the template");
    check_error("{{ 1 +", "line 1: expected an expression, found the end of the template");
    check_error("{{ 1 2 }}", "line 1: expected '}}', found a constant");
    check_error("{% frob %}", "line 1: expected a tag that is known, found 'frob'");
    check_error("{% for x in l %}{% endif %}",
                "line 1: expected a tag that is known, or 'endfor', found 'endif'");
    check_error("{{ 'abc }}", "line 1: the end of a text is missing");
    check_error("{# abc", "line 1: the end of a comment is missing");
    check_error("{% raw %} abc", "line 1: the end of a raw block is missing");
    check_error("{{ (1] }}", "line 1: unexpected ']', expected ')'");
    check_error("{{ $ }}", "line 1: unexpected character '$'");
    check_error("{% break %}",
                "line 1: expected a for statement around break and continue, found '%}'");
    check_error("{% include 'x' %}", "line 1: expected a tag that is known, found 'include'");
}

static void check_raise(void)
{
    char source[1200] = "{{ raise_exception('Only \"user\" and\\nassistant é') }}";
    check_error(source, "Only \"user\" and\nassistant é");
    /* A longer one than an error holds is cut between characters. */
    strcpy(source, "{{ raise_exception('");
    for (int i = 0; i < 500; i++) {
        strcat(source, "é");
    }
    strcat(source, "') }}");
    struct buf out;
    struct err e = {0};
    CHECK_INT(render(source, strlen(source), "{}", 0, &out, &e), ERR_TEMPLATE);
    CHECK_INT(strlen(e.detail), 318);
    CHECK(memcmp(e.detail + 316, "é", 3) == 0);
    buf_finish(&out);
}

static void check_basics(void)
{
    check_output("", "{}", "");
    check_output("plain\n", "{}", "plain");
    check_output("{{ a }}{{ b }}|{{ c }}", "{\"a\": 1, \"b\": null}", "1None|");
    check_output("{{ s|length }} {{ s[1] }} {{ s[::-1] }}", "{\"s\": \"aé🙂\"}", "3 é 🙂éa");
    check_output("{{ 'a\\x00b'|length }}", "{}", "3");
    check_output("{{ range + 1 }}", "{\"range\": 7}", "8"); /* the context goes before our own */
}

static void check_time(void)
{
    struct buf out;
    struct err e = {0};
    const char *source =
        "{{ strftime_now('%d %b %Y|%A %-d %B|%H:%M:%S %p %I|%j %U %W %V %G|%y%%') }}";
    setenv("TZ", "UTC", 1);
    CHECK_INT(render(source, strlen(source), "{}", 1709210096, &out, &e), 0);
    /* date -u -d @1709210096 with the same format */
    CHECK_STR(out.data, "29 Feb 2024|Thursday 29 February|12:34:56 PM 12|060 08 09 09 2024|24%");
    buf_finish(&out);
    CHECK_INT(render(source, strlen(source), "{}", -86400, &out, &e), 0);
    CHECK_STR(out.data, "31 Dec 1969|Wednesday 31 December|00:00:00 AM 12|365 52 52 01 1970|69%");
    buf_finish(&out);
}

/* A template is immutable: rendering changes nothing of it. */
static void check_again(void)
{
    const char *source = "{% set ns = namespace(n=0) %}{% for x in l %}{% set ns.n = ns.n + x %}"
                         "{% endfor %}{{ ns.n }}";
    struct template *t = NULL;
    struct err e = {0};
    json_t *v = NULL;
    CHECK(json_parse("{\"l\": [1, 2, 3]}", 16, &v, &e) == 0);
    CHECK_INT(template_create(source, strlen(source), &t, &e), 0);
    for (int i = 0; i < 3; i++) {
        struct buf out;
        buf_init(&out, 0);
        buf_str(&out, i == 1 ? "before " : ""); /* the text is appended */
        CHECK_INT(template_render(t, v, 0, &out, &e), 0);
        CHECK_STR(out.data, i == 1 ? "before 6" : "6");
        buf_finish(&out);
    }
    template_destroy(&t);
    json_decref(v);
}

static void check_bounds(void)
{
    struct template *t = NULL;
    struct err e = {0};
    char *big = malloc(LIMIT_TEMPLATE_BYTES + 1);
    CHECK(big);
    memset(big, 'a', LIMIT_TEMPLATE_BYTES + 1);
    CHECK_INT(template_create(big, LIMIT_TEMPLATE_BYTES + 1, &t, &e), ERR_TEMPLATE);
    CHECK_INT(template_create(big, LIMIT_TEMPLATE_BYTES, &t, &e), 0);
    template_destroy(&t);
    free(big);
    /* A damaged file's bytes need not be UTF-8. */
    struct buf out;
    CHECK_INT(render("a\xff{{ 'b\xc3' }}\xe2\x82", 15, "{}", 0, &out, &e), 0);
    CHECK_STR(out.data, "a\xEF\xBF\xBD"
                        "b\xEF\xBF\xBD\xEF\xBF\xBD");
    buf_finish(&out);
}

int main(void)
{
    check_basics();
    check_errors();
    check_raise();
    check_time();
    check_again();
    check_bounds();
    return 0;
}
