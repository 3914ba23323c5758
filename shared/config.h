/* Configuration: declared in config.def, read once by the command, handed to the children as a
 * sealed memfd of "key=value" lines (one line per value; a repeated key makes a list). */
#ifndef SHARED_CONFIG_H
#define SHARED_CONFIG_H

#include "shared/base.h"
#include "shared/buf.h"
#include "shared/err.h"

enum config_key {
#define CONFIG(kind, key, def, min, max, flag, values, help) CONFIG_##key,
#define CONFIG_LIVE CONFIG
#include "shared/config.def"
#undef CONFIG_LIVE
#undef CONFIG
    CONFIG_COUNT
};

enum config_kind { CONFIG_STR, CONFIG_INT, CONFIG_NUM, CONFIG_CHOICE, CONFIG_LIST };
/* In order of rank: a value is replaced only from the same rank or a higher one, so sources may be
 * read in any order. */
enum config_origin {
    CONFIG_FROM_DEFAULT,
    CONFIG_FROM_SYSTEM_FILE, /* /etc/rocmforge/rocmforge.conf */
    CONFIG_FROM_FILE,
    CONFIG_FROM_ENV,
    CONFIG_FROM_FLAG,
};

/* A line of config.def. */
struct config_row {
    enum config_kind kind;
    const char *key, *def;
    double min, max;
    char flag; /* short option letter, or 0 */
    const char *values, *help;
    bool is_live; /* a reload changes it in running processes */
};
extern const struct config_row config_rows[CONFIG_COUNT];

/* Index of the key written as n bytes, with dashes or underscores; -1. */
int config_find(const char *key, size_t n);

enum { CONFIG_VARIABLE_BYTES = 80 };
/* The environment variable of a key. */
void config_variable(size_t key, char ret[CONFIG_VARIABLE_BYTES]);

struct config_list {
    size_t n;
    char **items; /* owned */
};

struct config {
    struct {
        enum config_origin origin;
        char *str;               /* owned, never NULL: STR, CHOICE; the text form of the others */
        int64_t i;               /* INT, index of a CHOICE */
        double num;              /* NUM */
        struct config_list list; /* LIST */
    } v[CONFIG_COUNT];
};

/* Defaults only. */
void config_init(struct config *c);
void config_finish(struct config *c);

/* Reads the file, then the environment. path: must exist; NULL: /etc/rocmforge/rocmforge.conf, then
 * rocmforge/rocmforge.conf in $XDG_CONFIG_HOME (or ~/.config), absent is fine.
 * File: "key = value" lines; a line that begins with '#', and what follows " #", is a comment; a
 * value in double quotes is taken as it stands. Environment: ROCMFORGE_KEY; a list's items are
 * separated by commas; set but empty counts as absent.
 * Errors: ERR_CONFIG (e names file and line, key, value and what is allowed), -errno of reading. */
MUST_CHECK int config_load(struct config *c, const char *path, struct err *e);

/* Takes the option at argv[i] if it is a setting ("--key value", "--key=value", "-m value").
 * Returns the number of arguments taken, 0 if it is no setting, ERR_CONFIG on a bad value,
 * ERR_USAGE on a missing one (a value that begins with "--" needs '='). */
MUST_CHECK int config_take_flag(struct config *c, int argc, char **argv, int i, struct err *e);

/* Sets one value by name (dashes count as underscores). A list takes value as a further item, after
 * dropping what came from a lower rank. Values are one line of UTF-8. Errors: ERR_CONFIG. */
MUST_CHECK int config_set(struct config *c, const char *key, const char *value,
                          enum config_origin origin, struct err *e);

bool config_differs(const struct config *a, const struct config *b, enum config_key key);

/* "key=value" lines and back; the origins are not carried (decoded values count as flags). */
void config_encode(const struct config *c, struct buf *ret);
MUST_CHECK int config_decode(struct config *c, const char *text, size_t n, struct err *e);

/* `rocmforge config`: value, origin, flag, environment variable and help of every setting. */
void config_print(const struct config *c, struct buf *ret);
/* The options part of a --help text for the given keys. */
void config_help(const enum config_key *keys, size_t n, struct buf *ret);

/* A model argument "PATH" or "NAME=PATH": name is the part before '=', else the file's stem
 * (without ".gguf" and "-00001-of-0000N"). Both results are owned by the caller. */
MUST_CHECK int config_model(const char *arg, char **ret_name, char **ret_path, struct err *e);

#endif
