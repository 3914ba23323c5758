/* Command lines of tools: own options, settings, positional arguments, and what is refused. */
#include "tests/test.h"
#include "shared/options.h"

static struct {
    const char *text;
    int64_t n;
    double x;
    bool flag;
} got;
static const struct option_spec specs[] = {
    {"text", 'p', OPTION_STR, &got.text, 0, 0, "a text"},
    {"number", 'n', OPTION_INT, &got.n, -5, 5, "a number"},
    {"real", 0, OPTION_NUM, &got.x, 0, 1, "a real"},
    {"flag", 'f', OPTION_FLAG, &got.flag, 0, 0, "a flag"},
};
static const enum config_key keys[] = {CONFIG_model, CONFIG_threads};
static const char *positional[2];
static struct config config;
static struct err e;
static size_t n_positional;

/* Parses the words of a line. */
static int parse(const char *line)
{
    static char copy[256];
    char *argv[32], *save = NULL, name[] = "tool";
    int argc = 0;
    snprintf(copy, sizeof(copy), "%s", line);
    argv[argc++] = name;
    for (char *p = strtok_r(copy, " ", &save); p; p = strtok_r(NULL, " ", &save)) {
        argv[argc++] = p;
    }
    argv[argc] = NULL;
    struct options o = {.usage = "tool [options]",
                        .summary = "Does things.",
                        .specs = specs,
                        .n_specs = COUNT_OF(specs),
                        .keys = keys,
                        .n_keys = COUNT_OF(keys),
                        .positional = positional,
                        .max_positional = COUNT_OF(positional)};
    memset(&got, 0, sizeof(got));
    config_finish(&config);
    config_init(&config);
    int rc = options_parse(&o, argc, argv, &config, &e);
    n_positional = o.n_positional;
    return rc;
}

static void refused(const char *line, int code, const char *words)
{
    int rc = parse(line);
    if (rc != code || !strstr(e.detail, words)) {
        TEST_FAIL("%s: %d \"%s\", expected %d \"%s\"", line, rc, e.detail, code, words);
    }
}

int main(void)
{
    CHECK_INT(parse(""), 1);
    CHECK(!got.text && n_positional == 0);
    CHECK_INT(parse("one --text t -n -5 --real=0.5 --flag two -m x.gguf --threads=3"), 1);
    CHECK_STR(got.text, "t");
    CHECK(got.n == -5 && got.x == 0.5 && got.flag && n_positional == 2);
    CHECK_STR(positional[0], "one");
    CHECK_STR(positional[1], "two");
    CHECK_INT(config.v[CONFIG_threads].i, 3);
    CHECK_INT(config.v[CONFIG_model].list.n, 1);
    CHECK_INT(parse("- -p -x -f"), 1); /* "-" is a name; a value may begin with a dash */
    CHECK_STR(positional[0], "-");
    CHECK_STR(got.text, "-x");
    CHECK_INT(parse("--text=a=b --text="), 1);
    CHECK_STR(got.text, "");
    refused("one two three", ERR_USAGE, "unexpected argument 'three'; usage: rocmforge tool");
    refused("--nothing", ERR_USAGE, "unexpected argument '--nothing'");
    refused("-x", ERR_USAGE, "unexpected argument '-x'");
    refused("-pt", ERR_USAGE, "unexpected argument '-pt'");
    refused("--text", ERR_USAGE, "--text needs a value");
    refused("--number 6", ERR_USAGE, "--number is '6', allowed -5 to 5");
    refused("--number x", ERR_USAGE, "--number is 'x'");
    refused("--real 1.5", ERR_USAGE, "--real is '1.5', allowed 0 to 1");
    refused("--flag=yes", ERR_USAGE, "--flag takes no value");
    refused("--threads 999", ERR_CONFIG, "'threads' is '999'");
    CHECK_INT(options_fail("tool", &e), EXIT_CONFIG);
    CHECK_INT(parse("--help --nothing"), 0); /* help comes before complaints */
    CHECK_INT(parse("-h"), 0);
    config_finish(&config);
    return 0;
}
