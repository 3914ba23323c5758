/* Lines for the terminal front (see lineedit.h). libedit's callback interface does the editing, so
 * the loop goes on while a person types. What cannot be polled (a file, /dev/null) does not
 * block. */
#include "gateway/lineedit.h"
#include "shared/buf.h"

#include <editline/readline.h>
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HISTORY_LINES = 1000, LINE_BYTES = 16 * 1024 * 1024 };

struct lineedit {
    uv_poll_t poll;
    uv_timer_t later;
    int n_handles;       /* that the loop still knows */
    lineedit_fn *on_line;
    void *arg;
    const char *prompt;  /* borrowed */
    char *history_path;  /* owned; NULL: none */
    struct buf pending;  /* plain input not yet asked for */
    bool is_terminal, is_pollable, is_asking, is_at_end;
};

static struct lineedit *current; /* libedit's handler has no argument */

static void deliver(struct lineedit *l, const char *line)
{
    l->is_asking = false;
    if (l->is_pollable) {
        uv_poll_stop(&l->poll);
    }
    l->on_line(l->arg, line);
}

static void on_edited(char *line)
{
    struct lineedit *l = current;
    rl_callback_handler_remove(); /* an answer is printed with the terminal in its normal mode */
    if (!line) {
        putchar('\n');
    } else if (*line) {
        add_history(line);
    }
    deliver(l, line);
    free(line);
}

/* Delivers a plain line if a whole one stands in `pending`, or the rest at the end of input. */
static bool deliver_pending(struct lineedit *l)
{
    char *end = l->pending.len ? memchr(l->pending.data, '\n', l->pending.len) : NULL;
    if (!end && !l->is_at_end) {
        return false;
    }
    if (!end && l->pending.len == 0) {
        deliver(l, NULL);
        return true;
    }
    size_t n = end ? (size_t)(end - l->pending.data) : l->pending.len;
    char *line = strndup(l->pending.data, n);
    buf_consume(&l->pending, n + (end != NULL));
    deliver(l, line);
    free(line);
    return true;
}

static void read_plain(struct lineedit *l)
{
    char part[65536];
    ssize_t n = read(STDIN_FILENO, part, sizeof(part));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n > 0) {
        buf_add(&l->pending, part, (size_t)n);
    }
    l->is_at_end = n <= 0 || l->pending.failed;
}

static void on_readable(uv_poll_t *p, int status, int events)
{
    struct lineedit *l = p->data;
    (void)status;
    (void)events;
    if (l->is_terminal) {
        rl_callback_read_char();
        return;
    }
    read_plain(l);
    deliver_pending(l);
}

/* Plain input: first what stands there already, then more. */
static void on_later(uv_timer_t *t)
{
    struct lineedit *l = t->data;
    while (l->is_asking && !deliver_pending(l)) {
        if (l->is_pollable) {
            uv_poll_start(&l->poll, UV_READABLE, on_readable);
            return;
        }
        read_plain(l);
    }
}

/* $XDG_STATE_HOME/rocmforge/history, its folder made if need be; NULL when there is no home. */
static char *history_path(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *path;
    if (!(state && *state) && !home) {
        return NULL;
    }
    int n = state && *state ? asprintf(&path, "%s/rocmforge/history", state)
                            : asprintf(&path, "%s/.local/state/rocmforge/history", home);
    if (n < 0) {
        return NULL;
    }
    for (char *p = path + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(path, 0700);
        *p = '/';
    }
    return path;
}

int lineedit_open(struct lineedit **ret, uv_loop_t *loop, const char *prompt, lineedit_fn *on_line,
                  void *arg)
{
    struct lineedit *l = base_alloc(sizeof(*l));
    *l = (struct lineedit){.prompt = prompt, .on_line = on_line, .arg = arg, .n_handles = 1};
    buf_init(&l->pending, LINE_BYTES);
    l->is_terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    int err = uv_poll_init(loop, &l->poll, STDIN_FILENO);
    if (err < 0 && err != UV_EPERM) {
        free(l);
        return err;
    }
    l->is_pollable = err == 0;
    l->n_handles += l->is_pollable;
    uv_timer_init(loop, &l->later);
    l->poll.data = l->later.data = l;
    current = l;
    if (l->is_terminal) {
        setlocale(LC_CTYPE, "");
        rl_initialize();
        stifle_history(HISTORY_LINES);
        l->history_path = history_path();
        if (l->history_path) {
            read_history(l->history_path);
        }
    }
    *ret = l;
    return 0;
}

static void on_closed(uv_handle_t *h)
{
    struct lineedit *l = h->data;
    if (--l->n_handles == 0) {
        free(l->history_path);
        buf_finish(&l->pending);
        free(l);
    }
}

void lineedit_close(struct lineedit **ref)
{
    struct lineedit *l = *ref;
    if (!l) {
        return;
    }
    *ref = NULL;
    current = NULL;
    if (l->is_terminal && l->is_asking) {
        rl_callback_handler_remove();
    }
    if (l->history_path) {
        mode_t old = umask(077);
        write_history(l->history_path);
        umask(old);
    }
    uv_close((uv_handle_t *)&l->later, on_closed);
    if (l->is_pollable) {
        uv_close((uv_handle_t *)&l->poll, on_closed);
    }
}

bool lineedit_is_terminal(const struct lineedit *l)
{
    return l->is_terminal;
}

void lineedit_ask(struct lineedit *l)
{
    l->is_asking = true;
    if (l->is_terminal) {
        rl_callback_handler_install(l->prompt, on_edited);
        uv_poll_start(&l->poll, UV_READABLE, on_readable);
    } else {
        uv_timer_start(&l->later, on_later, 0, 0);
    }
}

void lineedit_interrupt(struct lineedit *l)
{
    if (l->is_asking && l->is_terminal) {
        rl_callback_handler_remove();
        putchar('\n');
        rl_callback_handler_install(l->prompt, on_edited);
    }
}
