/* Templates made to exhaust something: each must end soon, with an error or not, in bounded memory.
 */
#include "shared/clock.h"
#include "shared/json.h"
#include "shared/limits.h"
#include "tests/test.h"
#include "worker/template.h"

#include <sys/resource.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { ALLOWED_MS = 0 }; /* a sanitizer's time says nothing */
#else
enum { ALLOWED_MS = 50 };
#endif

/* before, unit `times` times, after */
static const struct hostile {
    const char *name, *before, *unit;
    int times;
    const char *after;
} cases[] = {
    /* loops and recursion */
    {"nested loops",
     "{% for a in range(100000) %}{% for b in range(100000) %}{{ a }}{% endfor %}{% endfor %}", "",
     0, ""},
    {"empty loops",
     "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "", 0, ""},
    {"recursive macro", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "", 0, ""},
    {"branching macro",
     "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(40) }}", "",
     0, ""},
    {"recursive loop", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "", 0, ""},
    {"caller recursion",
     "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}", "", 0, ""},
    {"default recursion", "{% macro m(a=m()) %}{% endmacro %}{{ m() }}", "", 0, ""},
    {"range", "{{ range(1000000000)|list }}", "", 0, ""},
    {"range to the limit", "{{ range(-9223372036854775807, 9223372036854775807) }}", "", 0, ""},
    {"lazy chain",
     "{% set ns=namespace(s=[1]) %}{% for i in range(5000) %}{% set ns.s = ns.s|map('abs') %}{% "
     "endfor %}{{ ns.s|list }}",
     "", 0, ""},
    /* size */
    {"long text", "{{ 'a' * 1000000000 }}", "", 0, ""},
    {"many texts", "{% for i in range(100000) %}{% set x = 'a' * 1000000 %}{% endfor %}", "", 0,
     ""},
    {"text doubled",
     "{% set ns = namespace(s='abcdefgh') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s "
     "%}{% endfor %}",
     "", 0, ""},
    {"list doubled",
     "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% "
     "endfor %}",
     "", 0, ""},
    {"captures",
     "{% set ns = namespace(s='a') %}{% for i in range(100) %}{% set ns.s %}{{ ns.s }}{{ ns.s }}{% "
     "endset %}{% endfor %}",
     "", 0, ""},
    {"replace", "{{ ('a'*10000)|replace('a', 'b'*10000) }}", "", 0, ""},
    {"replace nothing", "{{ ('a'*1000000)|replace('', 'b'*10000) }}", "", 0, ""},
    {"join", "{{ range(100000)|join('a'*100000) }}", "", 0, ""},
    {"indent", "{{ ('a\n'*1000)|indent(100000) }}", "", 0, ""},
    {"center", "{{ 'a'|center(1000000000) }}", "", 0, ""},
    {"zfill", "{{ 'a'.zfill(9223372036854775807) }}", "", 0, ""},
    {"expandtabs", "{{ '\t\t'.expandtabs(9223372036854775807) }}", "", 0, ""},
    {"width of %", "{{ '%2000000000d' % 1 }}", "", 0, ""},
    {"width of format", "{{ '{:>1000000000}'.format(1) }}", "", 0, ""},
    {"nested width", "{{ '{:{}}'.format('a', 100000000) }}", "", 0, ""},
    {"precision", "{{ '%.2000000000f' % 1.5 }}", "", 0, ""},
    {"percents", "{{ ('%(a)s'*1000000) % {'a': 'x'*1000} }}", "", 0, ""},
    {"slices", "{{ [1]|slice(1000000000)|list|length }}", "", 0, ""},
    {"sum of lists", "{{ ([[1]]*50000)|sum(start=[])|length }}", "", 0, ""},
    {"power", "{{ 9 ** 9 ** 9 ** 9 }}", "", 0, ""},
    {"integer", "{{ 99999999999999999999 }}", "", 0, ""},
    /* depth of values */
    {"nested list",
     "{% set ns = namespace(s=[]) %}{% for i in range(100000) %}{% set ns.s = [ns.s] %}{% endfor "
     "%}{{ ns.s }}",
     "", 0, ""},
    {"shared lists printed",
     "{% set ns = namespace(s=[]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% "
     "endfor %}{{ ns.s }}",
     "", 0, ""},
    {"shared lists as JSON",
     "{% set ns = namespace(s=[]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor "
     "%}{{ ns.s|tojson }}",
     "", 0, ""},
    {"shared lists compared",
     "{% set ns = namespace(s=[], t=[]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% "
     "set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.s == ns.t }}",
     "", 0, ""},
    {"shared tuples hashed",
     "{% set ns = namespace(s=()) %}{% for i in range(60) %}{% set ns.s = (ns.s, ns.s) %}{% endfor "
     "%}{{ {ns.s: 1} }}",
     "", 0, ""},
    {"namespace in itself", "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}", "", 0, ""},
    /* work per byte */
    {"upper", "{% for i in range(1000) %}{{ ('aé'*1000000)|upper|length }}{% endfor %}", "", 0, ""},
    {"lower",
     "{% set s='éa'*200000 %}{% for i in range(100000) %}{% if s|lower == 'x' %}{% endif %}{% "
     "endfor %}",
     "", 0, ""},
    {"title", "{{ ('ab '*2000000)|title|length }}", "", 0, ""},
    {"sigmas", "{{ ('Σ.'*1000000)|lower|length }}", "", 0, ""},
    {"search",
     "{% set s='ab'*4000000 %}{% for i in range(100000) %}{% if 'zz' in s %}{% endif %}{% endfor "
     "%}",
     "", 0, ""},
    {"length",
     "{% set s='é'*4000000 %}{% for i in range(100000) %}{{ s|length }}{{ s[3000000] }}{% endfor "
     "%}",
     "", 0, ""},
    {"compare",
     "{% set s='ab'*4000000 %}{% set t='ab'*4000000 %}{% for i in range(100000) %}{% if s == t "
     "%}{% endif %}{% endfor %}",
     "", 0, ""},
    {"split",
     "{% set s='a '*400000 %}{% for i in range(100000) %}{% set x = s.split() %}{% endfor %}", "",
     0, ""},
    {"strip", "{{ ('a'*1000000).strip('b'*1000000 ~ 'a') }}", "", 0, ""},
    {"rfind", "{{ ('a'*3000000).rfind('a'*1000 ~ 'b') }}", "", 0, ""},
    {"rfind of many", "{{ ('a'*300000).rfind('b' ~ 'a'*10000) }}", "", 0, ""},
    {"count", "{{ ('a'*10000000).count('a') }}", "", 0, ""},
    {"hash", "{% set k='k'*10000000 %}{% for i in range(100000) %}{% set d={k: 1} %}{% endfor %}",
     "", 0, ""},
    {"reverse", "{{ ('é'*10000000)[::-1]|length }}", "", 0, ""},
    {"words", "{% for i in range(1000) %}{{ ('ab '*1000000)|wordcount }}{% endfor %}", "", 0, ""},
    {"urlencode", "{{ ('é'*3000000)|urlencode|length }}", "", 0, ""},
    {"escape", "{{ ('<'*6000000)|e|length }}", "", 0, ""},
    {"sort", "{% for i in range(1000) %}{{ (range(100000)|sort|list|length) }}{% endfor %}", "", 0,
     ""},
    {"JSON", "{% for i in range(100000) %}{% set x = range(1000)|list|tojson %}{% endfor %}", "", 0,
     ""},
    {"floats",
     "{% for i in range(100000) %}{% for k in range(100) %}{{ 0.1 * i }}{% endfor %}{% endfor %}",
     "", 0, ""},
    {"numbers read",
     "{% for i in range(100000) %}{% for k in range(100) %}{{ '0.12345678'|float }}{% endfor %}{% "
     "endfor %}",
     "", 0, ""},
    {"dates",
     "{% for i in range(100000) %}{{ strftime_now('%A %B %c %c %c %c %c %c') }}{% endfor %}", "", 0,
     ""},
    {"calls",
     "{% macro m(a,b,c,d) %}x{% endmacro %}{% for i in range(100000) %}{% for k in range(100) %}{{ "
     "m(1,2,3,4) }}{% endfor %}{% endfor %}",
     "", 0, ""},
    {"keywords",
     "{% macro m() %}{{ kwargs }}{% endmacro %}{% set d = {} %}{% for i in range(100000) %}{{ "
     "m(**dict(a=i, b=2, c=3)) }}{% endfor %}",
     "", 0, ""},
    /* source */
    {"parentheses", "{{ ", "(", 100000, ""},
    {"brackets", "{{ ", "[", 100000, ""},
    {"braces", "{{ ", "{1:", 80000, ""},
    {"subscripts", "{{ ", "x[", 100000, ""},
    {"calls within calls", "{{ ", "x(", 100000, ""},
    {"nots", "{{ ", "not ", 60000, "1 }}"},
    {"signs", "{{ ", "-", 200000, "x }}"},
    {"ternaries", "{{ ", "1 if 1 else ", 20000, "2 }}"},
    {"ternaries without else", "{{ 1", " if 1", 50000, " }}"},
    {"blocks", "", "{% if 1 %}", 20000, ""},
    {"loops", "", "{% for x in y %}", 15000, ""},
    {"macros", "", "{% macro m() %}", 15000, ""},
    {"targets", "{% set ", "(", 100000, ""},
    {"tests", "{{ 1", " is not eq x", 20000, " }}"},
    {"sum", "{{ 1", " + 1", 60000, " }}"},
    {"comparisons", "{{ 1", " < 2", 60000, " }}"},
    {"chain", "{{ x", ".a", 100000, " }}"},
    {"filters", "{{ x", "|trim", 50000, " }}"},
    {"concatenation", "{{ 1", " ~ 1", 60000, " }}"},
    {"arguments", "{{ dict(", "a=1,", 60000, ") }}"},
    {"parameters", "{% macro m(", "a,", 100000, ") %}"},
    {"branches", "{% if 0 %}", "{% elif 0 %}", 20000, "{% endif %}"},
    {"prints", "", "{{a}}", 50000, ""},
    {"sets", "", "{% set a=1 %}", 20000, ""},
    {"raws", "", "{% raw ", 35000, ""},
    {"comments", "", "{#", 130000, ""},
    {"open braces", "", "{", 260000, ""},
    {"escapes", "{{ '", "\\n", 130000, "' }}"},
};

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void make(const struct hostile *h, struct buf *ret)
{
    buf_init(ret, 0);
    buf_str(ret, h->before);
    for (int i = 0; i < h->times; i++) {
        buf_str(ret, h->unit);
    }
    buf_str(ret, h->after);
    CHECK(!ret->failed && ret->len <= LIMIT_TEMPLATE_BYTES);
}

int main(void)
{
    double worst = 0;
    const char *worst_name = "";
    json_t *context = json_object();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf source, out;
        struct template *t = NULL;
        struct err e = {0};
        make(&cases[i], &source);
        buf_init(&out, 0);
        double best = 1e9;
        for (int turn = 0; turn < 3 && best > 0.5 * ALLOWED_MS; turn++) { /* machines stumble */
            double start = cpu_ms();
            buf_clear(&out);
            int rc = template_create(source.data, source.len, &t, &e);
            rc = rc == 0 ? template_render(t, context, 0, &out, &e) : rc;
            CHECK(rc == 0 || (rc == ERR_TEMPLATE && e.detail[0]));
            CHECK(out.len <= LIMIT_TEMPLATE_OUTPUT_BYTES);
            template_destroy(&t);
            best = fmin(best, cpu_ms() - start);
        }
        if (best > worst) {
            worst = best;
            worst_name = cases[i].name;
        }
        if (ALLOWED_MS && best > ALLOWED_MS) {
            TEST_FAIL("%s: %.0f ms, allowed %d", cases[i].name, best, ALLOWED_MS);
        }
        if (getenv("VERBOSE")) {
            printf("%-24s %6.1f ms %s\n", cases[i].name, best, e.detail);
        }
        buf_finish(&out);
        buf_finish(&source);
    }
    json_decref(context);
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    CHECK(!ALLOWED_MS || use.ru_maxrss < 96 * 1024);
    printf("%zu hostile templates; the worst takes %.1f ms (%s); %ld MiB at most\n",
           COUNT_OF(cases), worst, worst_name, use.ru_maxrss / 1024);
    return 0;
}
