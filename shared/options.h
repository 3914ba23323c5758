/* Command lines: a command's own options from a table, the settings of
 * config.def that it names besides, and positional arguments. --help is made from the same
 * table. */
#ifndef SHARED_OPTIONS_H
#define SHARED_OPTIONS_H

#include "shared/config.h"

enum option_kind { OPTION_STR, OPTION_INT, OPTION_NUM, OPTION_FLAG };

struct option_spec {
    const char *name; /* without dashes */
    char letter;      /* 0: none */
    enum option_kind kind;
    void *value; /* const char **, int64_t *, double *, bool * */
    double min, max;
    const char *help;
};

struct options {
    const char *usage;   /* "logits -m MODEL ... -o FILE" */
    const char *summary; /* a sentence or more */
    const struct option_spec *specs;
    size_t n_specs;
    const enum config_key *keys; /* settings this tool takes */
    size_t n_keys;
    const char **positional; /* filled; may be NULL when there are none */
    size_t max_positional;
    size_t n_positional; /* result */
};

/* Parses argv[1..]; c must be loaded (config_load). Strings are borrowed from argv.
 * Returns 1 to go on; 0 after printing --help to stdout; ERR_USAGE or ERR_CONFIG with e. */
MUST_CHECK int options_parse(struct options *o, int argc, char **argv, struct config *c,
                             struct err *e);

/* Prints "rocmforge TOOL: text; remedy" to stderr and returns the exit code for it. */
int options_fail(const char *tool, const struct err *e);

#endif
