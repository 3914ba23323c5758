/* Configuration: declared in config.def, read once by the command, handed to the children as a
 * sealed memfd of "key=value" lines (one line per value; a repeated key makes a list). */
#ifndef SHARED_CONFIG_H
#define SHARED_CONFIG_H

#include "shared/base.h"
#include "shared/buf.h"
#include "shared/err.h"

enum config_key {
#define CONFIG(kind, key, def, min, max, flag, values, help) CONFIG_##key,
#include "shared/config.def"
#undef CONFIG
    CONFIG_COUNT
};

enum config_kind { CONFIG_STR, CONFIG_INT, CONFIG_NUM, CONFIG_BOOL, CONFIG_CHOICE, CONFIG_LIST };
enum config_origin { CONFIG_FROM_DEFAULT, CONFIG_FROM_FILE, CONFIG_FROM_ENV, CONFIG_FROM_FLAG };

struct config_list {
    size_t n;
    char **items; /* owned */
};

struct config {
    struct {
        enum config_origin origin;
        char *str;               /* owned, never NULL: STR, CHOICE; the text form of the others */
        int64_t i;               /* INT, BOOL, index of a CHOICE */
        double num;              /* NUM */
        struct config_list list; /* LIST */
    } v[CONFIG_COUNT];
};

/* Defaults only. */
void config_init(struct config *c);
void config_finish(struct config *c);

/* The order of design: defaults, then the file (path, or NULL for $XDG_CONFIG_HOME/rocmforge/
 * rocmforge.conf and /etc/rocmforge/rocmforge.conf, absent is fine), then ROCMFORGE_*. */
MUST_CHECK int config_load(struct config *c, const char *path, struct err *e);

/* Takes the option at argv[i] if it is a setting ("--key value", "--key=value", "-m value",
 * "--no-key" for booleans). Returns the number of arguments taken, 0 if it is no setting,
 * negative with e on a bad value. */
MUST_CHECK int config_take_flag(struct config *c, int argc, char **argv, int i, struct err *e);

/* Sets one value by name; used by file, environment and decode. */
MUST_CHECK int config_set(struct config *c, const char *key, const char *value,
                          enum config_origin origin, struct err *e);

/* "key=value" lines and back. */
void config_encode(const struct config *c, struct buf *ret);
MUST_CHECK int config_decode(struct config *c, const char *text, size_t n, struct err *e);

/* `rocmforge config`: a table with value, origin, flag, environment variable and help. */
void config_print(const struct config *c, struct buf *ret);
/* The options part of a --help text for the given keys. */
void config_help(const enum config_key *keys, size_t n, struct buf *ret);

/* A model argument "PATH" or "NAME=PATH": name is the part before '=', else the file's stem (without
 * ".gguf" and "-00001-of-0000N"). Both results are owned by the caller. */
MUST_CHECK int config_model(const char *arg, char **ret_name, char **ret_path, struct err *e);

#endif
