/* What the ladder came to, over restarts: DIR/ladder, a line for each set of models and version
 * ("KEY rung doublings unix-time"). Read by the supervisor when it starts, written by a helper
 * (rocmforge-probe --remember), because a disk may block. */
#ifndef SAFETY_REMEMBER_H
#define SAFETY_REMEMBER_H

#include "safety/ladder.h"

enum { REMEMBER_KEY_BYTES = 33, REMEMBER_LINES = 16, REMEMBER_LINE_BYTES = 96 };

/* Of these models, this device setting and this version of ours. */
void remember_key(const struct config *c, char ret[REMEMBER_KEY_BYTES]);
/* The line to be written. */
void remember_line(const char *key, const struct ladder *l, int64_t unix_s,
                   char ret[REMEMBER_LINE_BYTES]);

/* What is remembered for the key; nothing where there is nothing, or nothing sane. */
void remember_read(const char *dir, const char *key, struct ladder *ret, uint64_t now_ms);
/* Puts the line in place of that with its key; the newest REMEMBER_LINES stay. 0 or -errno. */
MUST_CHECK int remember_write(const char *dir, const char *line);

#endif
