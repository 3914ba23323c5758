/* Lines from a person or a pipe, for the terminal front: with editing and a history file where
 * standard input is a terminal, plain otherwise. One at a time, when asked. One thread (the
 * loop's); one instance per process (the line editor keeps global state). */
#ifndef GATEWAY_LINEEDIT_H
#define GATEWAY_LINEEDIT_H

#include "shared/base.h"
#include <uv.h>

/* line NULL: end of input. Borrowed until it returns. */
typedef void lineedit_fn(void *arg, const char *line);

struct lineedit;

MUST_CHECK int lineedit_open(struct lineedit **ret, uv_loop_t *loop, const char *prompt,
                             lineedit_fn *on_line, void *arg);
/* Writes the history and restores the terminal; memory goes when the loop has let go of it.
 * NULL-safe, sets *l to NULL. */
void lineedit_close(struct lineedit **l);

bool lineedit_is_terminal(const struct lineedit *l);
/* Asks for one line; on_line gets it, never from within this call. */
void lineedit_ask(struct lineedit *l);
/* Ctrl-C while asking: throws the half-typed line away and asks again. */
void lineedit_interrupt(struct lineedit *l);

#endif
