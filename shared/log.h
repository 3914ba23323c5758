/* Logging: one line per event, to stderr. Text: "12:03:04.567 info  worker: message key=value";
 * JSON: one object per line. Under journald (JOURNAL_STREAM set) text lines carry the <N> priority
 * prefix instead of the time. Thread-safe: one write(2) per line. Libraries do not log. */
#ifndef SHARED_LOG_H
#define SHARED_LOG_H

#include "shared/base.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

/* who: the program's role in every line ("supervisor", "worker", ...); borrowed, static. */
void log_init(const char *who, enum log_level level, enum log_format format);
bool log_enabled(enum log_level level);

/* Once, by a program whose loop must not wait: where stderr is a terminal, lines go to a descriptor
 * of its own from now on that drops what the terminal does not take (Ctrl-S stops one for
 * hours). */
void log_open_terminal(void);
int log_fd(void); /* where lines go */

/* fmt makes the message; the message may not contain secrets or prompt text. */
void log_event(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define log_error(...) log_event(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_event(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_event(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_event(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
