/* The log as others see it: one write, one line an event, in both forms. */
#include "tests/test.h"
#include "shared/json.h"
#include "shared/log.h"

#include <errno.h>
#include <fcntl.h>

static int ends[2], saved;

/* Runs one call with stderr going to the pipe. */
#define LOG(call)                                                                                  \
    do {                                                                                           \
        dup2(ends[1], STDERR_FILENO);                                                              \
        call;                                                                                      \
        dup2(saved, STDERR_FILENO);                                                                \
    } while (0)

/* What the last events wrote. */
static const char *written(void)
{
    static char text[65536];
    ssize_t n = read(ends[0], text, sizeof(text) - 1);
    CHECK(n >= 0 || errno == EAGAIN);
    text[n > 0 ? n : 0] = 0;
    return text;
}

static void text_form(void)
{
    log_init("worker", LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    LOG(log_info("loaded %d models", 2));
    const char *line = written();
    CHECK(strlen(line) > 13 && line[2] == ':' && line[5] == ':' && line[8] == '.');
    CHECK_STR(line + 12, " info  worker: loaded 2 models\n");
    LOG(log_debug("not to be seen"));
    CHECK_STR(written(), "");
    CHECK(!log_enabled(LOG_LEVEL_DEBUG) && log_enabled(LOG_LEVEL_WARN));
    LOG(log_error("a\nforged line\r\n\x1b[2J \xc2\x9b" "2J \x9b" "2J"));
    line = written();
    CHECK(!strchr(line, '\x9b'));
    CHECK(strchr(line, '\n') == line + strlen(line) - 1); /* one event, one line */
    CHECK(!strchr(line, '\r') && !strchr(line, '\x1b'));
    int seen = 0;
    LOG((errno = EINTR, log_warn("x"), seen = errno)); /* logging never disturbs errno */
    CHECK_INT(seen, EINTR);
    (void)written();
    char large[10000];
    memset(large, 'x', sizeof(large) - 1);
    large[sizeof(large) - 1] = 0;
    LOG(log_warn("%s", large));
    line = written();
    CHECK(strlen(line) < 4096 && strchr(line, '\n') == line + strlen(line) - 1);
}

static void journal_form(void)
{
    CHECK(setenv("JOURNAL_STREAM", "8:1", 1) == 0);
    log_init("supervisor", LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
    LOG(log_error("e"));
    LOG(log_warn("w"));
    LOG(log_info("i"));
    LOG(log_debug("d"));
    CHECK_STR(written(),
              "<3>supervisor: e\n<4>supervisor: w\n<6>supervisor: i\n<7>supervisor: d\n");
    CHECK(unsetenv("JOURNAL_STREAM") == 0);
}

static void json_form(void)
{
    log_init("gateway", LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    static const char *const messages[] = {"plain", "q\"u\\o\nt\te\x01", "bad \xFF utf8", ""};
    static const char *const expected[] = {"plain", "q\"u\\o\nt\te\x01", "bad \xEF\xBF\xBD utf8",
                                           ""};
    for (size_t i = 0; i < COUNT_OF(messages); i++) {
        LOG(log_warn("%s", messages[i]));
        const char *line = written();
        json_t *v;
        struct err e = {0};
        CHECK(*line && line[strlen(line) - 1] == '\n');
        if (json_parse(line, strlen(line), &v, &e) != 0) {
            TEST_FAIL("%s: %s", line, e.detail);
        }
        CHECK_STR(json_string_value(json_object_get(v, "message")), expected[i]);
        CHECK_STR(json_string_value(json_object_get(v, "level")), "warn");
        CHECK_STR(json_string_value(json_object_get(v, "who")), "gateway");
        CHECK_INT(json_integer_value(json_object_get(v, "pid")), getpid());
        CHECK(strlen(json_string_value(json_object_get(v, "time"))) ==
              strlen("2000-01-01T00:00:00.000Z"));
        json_decref(v);
    }
    static const char *const large[] = {"\x01", "\xFF", "\xF0\x9F\x98\x80", "a\xE2\x82\xAC"};
    for (size_t i = 0; i < COUNT_OF(large); i++) { /* cut off, whole as JSON */
        struct buf b;
        buf_init(&b, 0);
        while (b.len < 10000) {
            buf_str(&b, large[i]);
        }
        LOG(log_warn("%s", b.data));
        const char *line = written();
        json_t *v;
        CHECK_INT(json_parse(line, strlen(line), &v, NULL), 0);
        json_decref(v);
        buf_finish(&b);
    }
}

/* A reader that sleeps costs lines, never time; and it is told. */
static void full_pipe(void)
{
    log_init("worker", LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    CHECK(fcntl(ends[1], F_SETFL, 0) == 0); /* a write that has no room would wait */
    for (int i = 0; i < 5000; i++) {
        LOG(log_info("line %d, which is long enough to fill a pipe soon enough", i));
    }
    for (int i = 0; i < 64 && *written(); i++) {
    }
    LOG(log_info("goes on"));
    const char *line = written();
    CHECK(strstr(line, "worker: nobody read the log, ") && strstr(line, " lines are lost\n"));
    CHECK(strstr(line, "worker: goes on\n"));
    LOG(log_info("and on"));
    CHECK(!strstr(written(), "lost"));
}

/* Neither does a terminal that was stopped. */
static void stopped_terminal(void)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0) {
        TEST_SKIP("no pseudo-terminal can be had (%s); mount devpts; the rest passed",
                  strerror(errno));
    }
    CHECK(grantpt(master) == 0 && unlockpt(master) == 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(slave >= 0);
    dup2(slave, STDERR_FILENO);
    log_open_terminal();
    CHECK(log_fd() != STDERR_FILENO);
    alarm(20); /* it would wait for ever */
    for (int i = 0; i < 3000; i++) {
        log_info("line %d, and nobody reads what stands in this terminal", i);
    }
    alarm(0);
    dup2(saved, STDERR_FILENO);
    close(slave);
    close(master);
}

int main(void)
{
    CHECK(unsetenv("JOURNAL_STREAM") == 0);
    CHECK(pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
    saved = dup(STDERR_FILENO);
    text_form();
    journal_form();
    json_form();
    full_pipe();
    stopped_terminal();
    return 0;
}
