/* Logging to stderr, one write(2) a line. Any thread. Never waits for a reader: what a full pipe or
 * socket has no room for is lost, and the next line that goes through says how many were. */
#include "shared/log.h"
#include "shared/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOG_LINE_BYTES = 2048 };

static const char *log_who = "rocmforge";
static enum log_level log_threshold = LOG_LEVEL_INFO;
static enum log_format log_form = LOG_FORMAT_TEXT;
static bool log_is_journal;
static _Atomic unsigned log_n_lost;
static int log_out = STDERR_FILENO;

void log_init(const char *who, enum log_level level, enum log_format format)
{
    log_who = who;
    log_threshold = level;
    log_form = format;
    log_is_journal = getenv("JOURNAL_STREAM") != NULL;
}

void log_open_terminal(void)
{
    if (log_out == STDERR_FILENO && isatty(STDERR_FILENO)) {
        int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        log_out = fd >= 0 ? fd : STDERR_FILENO;
    }
}

int log_fd(void)
{
    return log_out;
}

bool log_enabled(enum log_level level)
{
    return level <= log_threshold;
}

/* Appends s as the inside of a JSON string; a line is at most LOG_LINE_BYTES. */
static size_t put_json(char *out, size_t at, size_t cap, const char *s)
{
    size_t start = at;
    char fixed[LOG_LINE_BYTES * 3];
    size_t n = utf8_repair(s, strnlen(s, LOG_LINE_BYTES), fixed);
    for (size_t i = 0; i < n && at + 8 < cap; i++) {
        unsigned char c = (unsigned char)fixed[i];
        if (c == '"' || c == '\\') {
            out[at++] = '\\';
            out[at++] = (char)c;
        } else if (c < 0x20) {
            at += (size_t)snprintf(out + at, 7, "\\u%04x", c);
        } else {
            out[at++] = (char)c;
        }
    }
    return start + utf8_complete_prefix(out + start, at - start);
}

/* A pipe that is writable has room for PIPE_BUF bytes, which a line never exceeds; a terminal has
 * perhaps room for one (log_open_terminal). */
static bool put(const char *line, size_t n)
{
    struct pollfd p = {.fd = log_out, .events = POLLOUT};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) &&
           write(log_out, line, n) == (ssize_t)n;
}

static void write_line(const char *line, size_t n)
{
    unsigned n_lost = atomic_exchange_explicit(&log_n_lost, 0, memory_order_relaxed);
    if (n_lost > 0) {
        char note[96];
        int len = log_form == LOG_FORMAT_JSON
                      ? snprintf(note, sizeof(note),
                                 "{\"level\":\"warn\",\"who\":\"%s\",\"lines_lost\":%u}\n", log_who,
                                 n_lost)
                      : snprintf(note, sizeof(note), "%s: nobody read the log, %u lines are lost\n",
                                 log_who, n_lost);
        if (!put(note, MIN((size_t)len, sizeof(note) - 1))) {
            atomic_fetch_add_explicit(&log_n_lost, n_lost + 1, memory_order_relaxed);
            return;
        }
    }
    if (!put(line, n)) {
        atomic_fetch_add_explicit(&log_n_lost, 1, memory_order_relaxed);
    }
}

void log_event(enum log_level level, const char *fmt, ...)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    static const int priority[] = {3, 4, 6, 7}; /* sd-daemon(3) */
    if (!log_enabled(level)) {
        return;
    }
    int saved_errno = errno;
    char message[LOG_LINE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);

    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm tm;
    char line[LOG_LINE_BYTES * 2];
    size_t n;
    if (log_form == LOG_FORMAT_JSON) {
        gmtime_r(&now.tv_sec, &tm);
        n = strftime(line, sizeof(line), "{\"time\":\"%Y-%m-%dT%H:%M:%S", &tm);
        n += (size_t)snprintf(line + n, sizeof(line) - n,
                              ".%03ldZ\",\"level\":\"%s\",\"who\":\"%s\",\"pid\":%d,\"message\":\"",
                              now.tv_nsec / 1000000, names[level], log_who, (int)getpid());
        n = put_json(line, n, sizeof(line) - 4, message);
        n += (size_t)snprintf(line + n, sizeof(line) - n, "\"}\n");
    } else {
        char tame[LOG_LINE_BYTES * 3]; /* one event, one line, and nothing a terminal obeys */
        size_t n_tame = utf8_tame(message, strlen(message), tame);
        int most = (int)utf8_complete_prefix(tame, MIN(n_tame, (size_t)LOG_LINE_BYTES - 1));
        if (log_is_journal) {
            n = (size_t)snprintf(line, sizeof(line), "<%d>%s: %.*s\n", priority[level], log_who,
                                 most, tame);
        } else {
            localtime_r(&now.tv_sec, &tm);
            n = strftime(line, sizeof(line), "%H:%M:%S", &tm);
            n += (size_t)snprintf(line + n, sizeof(line) - n, ".%03ld %-5s %s: %.*s\n",
                                  now.tv_nsec / 1000000, names[level], log_who, most, tame);
        }
    }
    write_line(line, MIN(n, sizeof(line) - 1));
    errno = saved_errno;
}
