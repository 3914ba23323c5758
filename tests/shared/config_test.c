/* Configuration: every source, their order, every kind of value, and the words of every refusal. */
#include "tests/test.h"
#include "shared/config.h"

#include <errno.h>
#include <sys/stat.h>

static char dir[] = "/tmp/config_test.XXXXXX";

/* Writes a configuration file and returns its path. */
static const char *file(const char *name, const char *text)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
    return path;
}

static int load(struct config *c, const char *text, struct err *e)
{
    config_init(c);
    return config_load(c, file("test.conf", text), e);
}

static void check_refused(int rc, const struct err *e, int code, const char *words)
{
    if (rc != code || e->code != code || !strstr(e->detail, words)) {
        TEST_FAIL("%d \"%s\", expected %d \"%s\"", rc, e->detail, code, words);
    }
}

static void check_set_refused(const char *key, const char *value, const char *words)
{
    struct config c;
    struct err e = {0};
    config_init(&c);
    check_refused(config_set(&c, key, value, CONFIG_FROM_FLAG, &e), &e, ERR_CONFIG, words);
    CHECK_INT(config_set(&c, key, value, CONFIG_FROM_FLAG, NULL), ERR_CONFIG); /* e is optional */
    config_finish(&c);
}

static void defaults(void)
{
    struct config c;
    config_init(&c);
    CHECK_STR(c.v[CONFIG_host].str, "127.0.0.1");
    CHECK_INT(c.v[CONFIG_port].i, 8080);
    CHECK_STR(c.v[CONFIG_port].str, "8080");
    CHECK(c.v[CONFIG_kv_memory_share].num == 0.25);
    CHECK_INT(c.v[CONFIG_device].i, 0);
    CHECK_STR(c.v[CONFIG_device].str, "auto");
    CHECK_INT(c.v[CONFIG_model].list.n, 0);
    CHECK_STR(c.v[CONFIG_model].str, "");
    for (size_t k = 0; k < CONFIG_COUNT; k++) {
        CHECK_INT(c.v[k].origin, CONFIG_FROM_DEFAULT);
    }
    config_finish(&c);
}

/* What the table itself promises: printable help, ranges that hold the default, distinct letters.
 */
static void the_table_is_sound(void)
{
    for (size_t k = 0; k < CONFIG_COUNT; k++) {
        const struct config_row *r = &config_rows[k];
        CHECK(*r->help && *r->values && r->min <= r->max);
        CHECK(strspn(r->key, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(r->key));
        for (size_t j = 0; j < k; j++) {
            CHECK(!r->flag || r->flag != config_rows[j].flag);
            CHECK(strcmp(r->key, config_rows[j].key) != 0);
        }
    }
}

static void ranges(void)
{
    struct config c;
    config_init(&c);
    CHECK_INT(config_set(&c, "port", "0", CONFIG_FROM_FLAG, NULL), 0);
    CHECK_INT(config_set(&c, "port", "65535", CONFIG_FROM_FLAG, NULL), 0);
    CHECK_INT(c.v[CONFIG_port].i, 65535);
    CHECK_INT(config_set(&c, "kv_memory_share", "0.9", CONFIG_FROM_FLAG, NULL), 0);
    CHECK_INT(config_set(&c, "log_level", "debug", CONFIG_FROM_FLAG, NULL), 0);
    CHECK_INT(c.v[CONFIG_log_level].i, 3);
    CHECK_INT(config_set(&c, "ctx-size", "4096", CONFIG_FROM_FLAG, NULL), 0); /* dashes too */
    CHECK_INT(c.v[CONFIG_ctx_size].i, 4096);
    CHECK_INT(config_set(&c, "port", "65536", CONFIG_FROM_FLAG, NULL), ERR_CONFIG);
    CHECK_INT(c.v[CONFIG_port].i, 65535); /* a refusal changes nothing */
    config_finish(&c);

    check_set_refused("port", "65536",
                      "'port' is '65536', allowed is a whole number from 0 to 65535");
    check_set_refused("port", "-1", "from 0 to 65535");
    check_set_refused("port", "80.5", "a whole number");
    check_set_refused("port", "", "'port' is ''");
    check_set_refused("port", " 80", "a whole number");
    check_set_refused("port", "99999999999999999999", "from 0 to 65535");
    check_set_refused("kv_memory_share", "0", "allowed is a number from 0.01 to 0.9");
    check_set_refused("kv_memory_share", "nan", "allowed is a number");
    check_set_refused("kv_memory_share", "inf", "allowed is a number");
    check_set_refused("device", "tpu", "'device' is 'tpu', allowed are auto|cpu|gpu");
    check_set_refused("device", "au", "allowed are");
    check_set_refused("device", "auto|cpu", "allowed are");
    check_set_refused("device", "", "allowed are");
    check_set_refused("host", "a\nport=1", "one line of UTF-8");
    check_set_refused("host", "\xFF", "one line of UTF-8");
    check_set_refused("model", "", "one line of UTF-8");
}

static void unknown_keys(void)
{
    check_set_refused("prot", "1", "there is no setting 'prot'; did you mean 'port'?");
    check_set_refused("ctx-sise", "1", "did you mean 'ctx_size'?");
    check_set_refused("quite_something_else", "1", "there is no setting 'quite_something_else'");
    check_set_refused("", "1", "there is no setting ''");
    check_set_refused("PORT", "1", "there is no setting 'PORT'");
    char name[5000];
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    check_set_refused(name, "1", "there is no setting 'xxx");
}

static void file_syntax(void)
{
    struct config c;
    struct err e = {0};
    int rc = load(&c,
                  "# a comment\n"
                  "\n"
                  "   port=1234\t\r\n"
                  "ctx_size = 4096   # why not\n"
                  "host = \"::1\"   # quoted\n"
                  "api-key-file = \" /a b#c \"\n"
                  "unix = /run/a#b\n"
                  "chat_template = a = b\n"
                  "model = one.gguf\n"
                  "\t# indented comment\n"
                  "model = two.gguf",
                  &e);
    if (rc != 0) {
        TEST_FAIL("%s", e.detail);
    }
    CHECK_INT(c.v[CONFIG_port].i, 1234);
    CHECK_INT(c.v[CONFIG_port].origin, CONFIG_FROM_FILE);
    CHECK_INT(c.v[CONFIG_ctx_size].i, 4096);
    CHECK_STR(c.v[CONFIG_host].str, "::1");
    CHECK_STR(c.v[CONFIG_api_key_file].str, " /a b#c ");
    CHECK_STR(c.v[CONFIG_unix].str, "/run/a#b");
    CHECK_STR(c.v[CONFIG_chat_template].str, "a = b");
    CHECK_INT(c.v[CONFIG_model].list.n, 2);
    CHECK_STR(c.v[CONFIG_model].list.items[0], "one.gguf");
    CHECK_STR(c.v[CONFIG_model].list.items[1], "two.gguf");
    config_finish(&c);
}

static void file_errors_name_the_line(void)
{
    static const struct {
        const char *text, *words;
    } row[] = {
        {"port = 1\n\nport = x\n", "test.conf, line 3: 'port' is 'x'"},
        {"prot = 1", "line 1: there is no setting 'prot'; did you mean 'port'?"},
        {"port 1", "line 1: 'port 1' is not of the form key = value"},
        {"\n= 1", "line 2: there is no setting ''"},
        {"host = \"a", "line 1: the quotes of 'host' do not close"},
        {"host = \"a\" b", "line 1: the quotes of 'host' do not close"},
        {"port =", "line 1: 'port' is ''"},
        {"port = # none", "line 1: 'port' is ''"},
        {"host = \xFF", "line 1: 'host' must be one line of UTF-8"},
    };
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        struct config c;
        struct err e = {0};
        check_refused(load(&c, row[i].text, &e), &e, ERR_CONFIG, row[i].words);
        config_finish(&c);
    }
}

static void unreadable_files(void)
{
    struct config c;
    struct err e = {0};
    config_init(&c);
    check_refused(config_load(&c, "/nonexistent/x.conf", &e), &e, -ENOENT, "/nonexistent/x.conf");
    check_refused(config_load(&c, dir, &e), &e, -EISDIR, dir);
    const char *path = file("binary.conf", "");
    FILE *f = fopen(path, "w");
    CHECK(f && fwrite("port=1\0", 1, 7, f) == 7 && fclose(f) == 0);
    check_refused(config_load(&c, path, &e), &e, ERR_CONFIG, "not a text file");
    path = file("large.conf", "");
    CHECK(truncate(path, 1024 * 1024 + 1) == 0);
    check_refused(config_load(&c, path, &e), &e, ERR_CONFIG, "larger than 1048576 bytes");
    CHECK_INT(config_load(&c, file("empty.conf", ""), &e), 0);
    config_finish(&c);
}

static void user_file(void)
{
    char path[256];
    struct config c;
    struct err e = {0};
    snprintf(path, sizeof(path), "%s/home", dir);
    CHECK(mkdir(path, 0700) == 0);
    CHECK(setenv("HOME", path, 1) == 0);
    config_init(&c);
    CHECK_INT(config_load(&c, NULL, &e), 0); /* absent is fine */
    snprintf(path, sizeof(path), "%s/home/.config", dir);
    CHECK(mkdir(path, 0700) == 0);
    snprintf(path, sizeof(path), "%s/home/.config/rocmforge", dir);
    CHECK(mkdir(path, 0700) == 0);
    file("home/.config/rocmforge/rocmforge.conf", "port = 7\n");
    CHECK_INT(config_load(&c, NULL, &e), 0);
    CHECK_INT(c.v[CONFIG_port].i, 7);
    snprintf(path, sizeof(path), "%s/xdg", dir);
    CHECK(mkdir(path, 0700) == 0);
    snprintf(path, sizeof(path), "%s/xdg/rocmforge", dir);
    CHECK(mkdir(path, 0700) == 0);
    file("xdg/rocmforge/rocmforge.conf", "port = 8\n");
    snprintf(path, sizeof(path), "%s/xdg", dir);
    CHECK(setenv("XDG_CONFIG_HOME", path, 1) == 0);
    CHECK_INT(config_load(&c, NULL, &e), 0);
    CHECK_INT(c.v[CONFIG_port].i, 8);
    CHECK(setenv("XDG_CONFIG_HOME", "relative", 1) ==
          0); /* to be ignored, says the specification */
    CHECK_INT(config_load(&c, NULL, &e), 0);
    CHECK_INT(c.v[CONFIG_port].i, 7);
    CHECK(unsetenv("XDG_CONFIG_HOME") == 0 && unsetenv("HOME") == 0);
    CHECK_INT(config_load(&c, NULL, &e), 0);
    config_finish(&c);
}

static void environment(void)
{
    struct config c;
    struct err e = {0};
    CHECK(setenv("ROCMFORGE_PORT", "99", 1) == 0);
    CHECK(setenv("ROCMFORGE_MODEL", "a.gguf, b=c.gguf,,", 1) == 0);
    CHECK(setenv("ROCMFORGE_HOST", "", 1) == 0); /* set but empty counts as absent */
    CHECK_INT(load(&c, "port = 1\nmodel = z.gguf\nhost = ::1\n", &e), 0);
    CHECK_INT(c.v[CONFIG_port].i, 99);
    CHECK_INT(c.v[CONFIG_port].origin, CONFIG_FROM_ENV);
    CHECK_INT(c.v[CONFIG_model].list.n, 2); /* replaces the file's, adds nothing to it */
    CHECK_STR(c.v[CONFIG_model].list.items[0], "a.gguf");
    CHECK_STR(c.v[CONFIG_model].list.items[1], "b=c.gguf");
    CHECK_STR(c.v[CONFIG_host].str, "::1");
    config_finish(&c);
    CHECK(setenv("ROCMFORGE_PORT", "many", 1) == 0);
    check_refused(load(&c, "", &e), &e, ERR_CONFIG, "ROCMFORGE_PORT: 'port' is 'many'");
    config_finish(&c);
    CHECK(unsetenv("ROCMFORGE_PORT") == 0 && unsetenv("ROCMFORGE_MODEL") == 0 &&
          unsetenv("ROCMFORGE_HOST") == 0);
}

static int take(struct config *c, const char *a, const char *b, struct err *e)
{
    char first[128], second[128], name[] = "rocmforge";
    snprintf(first, sizeof(first), "%s", a);
    snprintf(second, sizeof(second), "%s", b ? b : "");
    char *argv[] = {name, first, second, NULL};
    return config_take_flag(c, b ? 3 : 2, argv, 1, e);
}

static void flags(void)
{
    struct config c;
    struct err e = {0};
    config_init(&c);
    CHECK_INT(take(&c, "--port", "1", &e), 2);
    CHECK_INT(c.v[CONFIG_port].i, 1);
    CHECK_INT(c.v[CONFIG_port].origin, CONFIG_FROM_FLAG);
    CHECK_INT(take(&c, "--port=2", "x", &e), 1);
    CHECK_INT(c.v[CONFIG_port].i, 2);
    CHECK_INT(take(&c, "-t", "3", &e), 2);
    CHECK_INT(c.v[CONFIG_threads].i, 3);
    CHECK_INT(take(&c, "--host=", NULL, &e), 1);
    CHECK_STR(c.v[CONFIG_host].str, "");
    CHECK_INT(take(&c, "--host=a=b", NULL, &e), 1);
    CHECK_STR(c.v[CONFIG_host].str, "a=b");
    CHECK_INT(take(&c, "-m", "a", &e), 2);
    CHECK_INT(take(&c, "--model=b", NULL, &e), 1);
    CHECK_INT(c.v[CONFIG_model].list.n, 2);

    static const char *const not_ours[] = {"serve",     "-",        "--",   "",
                                           "---port",   "-p",       "-mx",  "--ctx_size",
                                           "--no-port", "--prompt", "--no-"};
    for (size_t i = 0; i < COUNT_OF(not_ours); i++) {
        CHECK_INT(take(&c, not_ours[i], "1", &e), 0);
    }
    check_refused(take(&c, "--port", NULL, &e), &e, ERR_USAGE, "--port needs a value");
    check_refused(take(&c, "-m", NULL, &e), &e, ERR_USAGE, "-m needs a value");
    check_refused(take(&c, "--host", "--port", &e), &e, ERR_USAGE, "--host needs a value");
    check_refused(take(&c, "--threads", "-1", &e), &e, ERR_CONFIG, "'threads' is '-1'");
    check_refused(take(&c, "--port=", NULL, &e), &e, ERR_CONFIG, "'port' is ''");
    config_finish(&c);
}

/* A value yields to its own rank and above, whatever the order of reading. */
static void order_of_sources(void)
{
    for (int first = CONFIG_FROM_SYSTEM_FILE; first <= CONFIG_FROM_FLAG; first++) {
        for (int second = CONFIG_FROM_SYSTEM_FILE; second <= CONFIG_FROM_FLAG; second++) {
            struct config c;
            config_init(&c);
            CHECK_INT(config_set(&c, "port", "1", (enum config_origin)first, NULL), 0);
            CHECK_INT(config_set(&c, "port", "2", (enum config_origin)second, NULL), 0);
            CHECK_INT(c.v[CONFIG_port].i, second >= first ? 2 : 1);
            CHECK_INT(c.v[CONFIG_port].origin, MAX(first, second));
            CHECK_INT(config_set(&c, "model", "1", (enum config_origin)first, NULL), 0);
            CHECK_INT(config_set(&c, "model", "2", (enum config_origin)second, NULL), 0);
            CHECK_INT(c.v[CONFIG_model].list.n, first == second ? 2 : 1);
            CHECK_STR(c.v[CONFIG_model].list.items[0], second > first ? "2" : "1");
            config_finish(&c);
        }
    }
}

static void to_the_children(void)
{
    struct config c, child;
    struct err e = {0};
    struct buf b, again;
    buf_init(&b, 0);
    buf_init(&again, 0);
    config_init(&c);
    config_init(&child);
    CHECK_INT(config_set(&c, "port", "1", CONFIG_FROM_FLAG, NULL), 0);
    CHECK_INT(config_set(&c, "host", " a = b # c \t", CONFIG_FROM_ENV, NULL), 0);
    CHECK_INT(config_set(&c, "model", "n=\"x y\"", CONFIG_FROM_FILE, NULL), 0);
    CHECK_INT(config_set(&c, "model", "z", CONFIG_FROM_FILE, NULL), 0);
    config_encode(&c, &b);
    CHECK(strstr(b.data, "\nport=1\n") && strstr(b.data, "\nmodel=z\n"));
    CHECK_INT(config_decode(&child, b.data, b.len, &e), 0);
    CHECK_INT(child.v[CONFIG_port].i, 1);
    CHECK_STR(child.v[CONFIG_host].str, " a = b # c \t");
    CHECK_INT(child.v[CONFIG_model].list.n, 2);
    config_encode(&child, &again);
    CHECK_STR(again.data, b.data);
    config_finish(&child);

    static const char *const bad[] = {"port", "port=1", "nothing=1\n", "port=1\n\n", "=1\n"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        config_init(&child);
        check_refused(config_decode(&child, bad[i], strlen(bad[i]), &e), &e, ERR_CONFIG, "damaged");
        config_finish(&child);
    }
    config_init(&child);
    check_refused(config_decode(&child, "host=a\0b\n", 9, &e), &e, ERR_CONFIG, "damaged");
    check_refused(config_decode(&child, "port=x\n", 7, &e), &e, ERR_CONFIG, "'port' is 'x'");
    CHECK_INT(config_decode(&child, "", 0, &e), 0);
    config_finish(&child);
    config_finish(&c);
    buf_finish(&b);
    buf_finish(&again);
}

static size_t longest_line(const char *text)
{
    size_t longest = 0;
    while (*text) {
        size_t n = strcspn(text, "\n");
        longest = MAX(longest, n);
        text += n + (text[n] == '\n');
    }
    return longest;
}

static void shown(void)
{
    struct config c;
    struct buf b;
    enum config_key keys[CONFIG_COUNT];
    buf_init(&b, 0);
    config_init(&c);
    CHECK_INT(config_set(&c, "port", "1", CONFIG_FROM_FLAG, NULL), 0);
    CHECK_INT(config_set(&c, "model", "one.gguf", CONFIG_FROM_ENV, NULL), 0);
    CHECK_INT(config_set(&c, "model", "two.gguf", CONFIG_FROM_ENV, NULL), 0);
    config_print(&c, &b);
    CHECK(strstr(b.data, "a reload changes it"));
    CHECK(strstr(b.data, "\nport              1                  flag      --port "));
    CHECK(strstr(b.data, "ROCMFORGE_PORT\n    TCP port; "));
    CHECK(strstr(b.data, "(0 to 65535)"));
    CHECK(strstr(b.data, "one.gguf           variable  -m, --model"));
    CHECK(strstr(b.data, "\n                  two.gguf\n"));
    CHECK(longest_line(b.data) <= 100);
    buf_clear(&b);
    for (size_t k = 0; k < CONFIG_COUNT; k++) {
        keys[k] = (enum config_key)k;
    }
    config_help(keys, CONFIG_COUNT, &b);
    CHECK(strstr(b.data, "  -m, --model MODEL "));
    CHECK(strstr(b.data, "      --port N "));
    CHECK(strstr(b.data, "--device auto|cpu|gpu  where to compute [auto]"));
    CHECK(longest_line(b.data) <= 80);
    buf_finish(&b);
    config_finish(&c);
}

static void models(void)
{
    static const struct {
        const char *arg, *name, *path;
    } good[] = {
        {"/m/Qwen2.5-0.5B-Q4_0.gguf", "Qwen2.5-0.5B-Q4_0", "/m/Qwen2.5-0.5B-Q4_0.gguf"},
        {"x.gguf", "x", "x.gguf"},
        {"x", "x", "x"},
        {"chat=/m/x.gguf", "chat", "/m/x.gguf"},
        {"./a=b.gguf", "a=b", "./a=b.gguf"},
        {"/m=n/x.gguf", "x", "/m=n/x.gguf"},
        {"a=b=c.gguf", "a", "b=c.gguf"},
        {"big-00001-of-00003.gguf", "big", "big-00001-of-00003.gguf"},
        {"big-00001-of-0003.gguf", "big-00001-of-0003", "big-00001-of-0003.gguf"},
        {"big-00001-of-00003", "big", "big-00001-of-00003"},
        {".gguf", ".gguf", ".gguf"},
        {"-00001-of-00003.gguf", "-00001-of-00003", "-00001-of-00003.gguf"},
    };
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        char *name, *path;
        struct err e = {0};
        CHECK_INT(config_model(good[i].arg, &name, &path, &e), 0);
        CHECK_STR(name, good[i].name);
        CHECK_STR(path, good[i].path);
        free(name);
        free(path);
    }
    static const char *const bad[] = {"", "a=", "=b", "=", "/models/", "a=/models/"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        char *name = NULL, *path = NULL;
        struct err e = {0};
        check_refused(config_model(bad[i], &name, &path, &e), &e, ERR_CONFIG, "PATH and NAME=PATH");
        CHECK(!name && !path);
    }
}

int main(void)
{
    for (size_t k = 0; k < CONFIG_COUNT; k++) { /* the developer's own settings */
        char variable[CONFIG_VARIABLE_BYTES];
        config_variable(k, variable);
        CHECK(unsetenv(variable) == 0);
    }
    CHECK(unsetenv("XDG_CONFIG_HOME") == 0 && mkdtemp(dir));
    defaults();
    the_table_is_sound();
    ranges();
    unknown_keys();
    file_syntax();
    file_errors_name_the_line();
    unreadable_files();
    user_file();
    environment();
    flags();
    order_of_sources();
    to_the_children();
    shown();
    models();
    char command[300];
    snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command) != 0;
}
