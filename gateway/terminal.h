/* The terminal front: what `rocmforge run` and `chat` show. It stands where the HTTP server stands
 * otherwise, on the same link to the worker. Answers go to standard output, everything else
 * (progress, timings, errors) to standard error. One thread (the loop's). */
#ifndef GATEWAY_TERMINAL_H
#define GATEWAY_TERMINAL_H

#include "gateway/front.h"

/* Reads the command line before anything else: argv[0] is "run" or "chat", then that command's own
 * options. Returns 1 to go on, 0 after printing --help, ERR_USAGE with e. Strings are borrowed. */
MUST_CHECK int terminal_parse(int argc, char **argv, struct err *e);

extern const struct front terminal_front;

#endif
