/* Where settings come from: file, environment, command line. Runs in the command before it starts
 * anything; blocks on the file only. */
#include "shared/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONFIG_FILE_BYTES = 1024 * 1024 };

/* --- file --- */

static char *trim(char *s)
{
    while (*s == ' ' || *s == '\t') {
        s++;
    }
    size_t n = strlen(s);
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\t' || s[n - 1] == '\r')) {
        n--;
    }
    s[n] = 0;
    return s;
}

/* The value part of a line, quotes and comment removed in place; NULL when the quotes do not close.
 */
static char *unquote(char *s)
{
    s = trim(s);
    if (*s == '"') {
        char *end = strrchr(++s, '"');
        char *after = end ? trim(end + 1) : NULL;
        if (!end || (*after && *after != '#')) {
            return NULL;
        }
        *end = 0;
        return s;
    }
    for (char *p = s; *p; p++) {
        if (*p == '#' && (p == s || p[-1] == ' ' || p[-1] == '\t')) {
            *p = 0;
            break;
        }
    }
    return trim(s);
}

static int take_line(struct config *c, char *line, enum config_origin origin, struct err *e)
{
    line = trim(line);
    if (!*line || *line == '#') {
        return 0;
    }
    char *equals = strchr(line, '=');
    if (!equals) {
        return err_set(e, ERR_CONFIG, "'%.64s' is not of the form key = value", line);
    }
    *equals = 0;
    char *value = unquote(equals + 1);
    if (!value) {
        return err_set(e, ERR_CONFIG, "the quotes of '%.64s' do not close", trim(line));
    }
    return config_set(c, trim(line), value, origin, e);
}

/* The whole file, terminated; owned by the caller. NULL with e. */
static char *read_all(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = fd < 0 ? NULL : malloc(CONFIG_FILE_BYTES + 1);
    if (!text) {
        (void)err_set(e, fd < 0 ? -errno : -ENOMEM, "configuration file %.200s", path);
        if (fd >= 0) {
            close(fd);
        }
        return NULL;
    }
    size_t n = 0;
    ssize_t got = 1;
    while (n <= CONFIG_FILE_BYTES && (got > 0 || (got < 0 && errno == EINTR))) {
        got = read(fd, text + n, CONFIG_FILE_BYTES + 1 - n);
        n += got > 0 ? (size_t)got : 0;
    }
    bool is_bad = true;
    if (got < 0) {
        (void)err_set(e, -errno, "configuration file %.200s", path);
    } else if (n > CONFIG_FILE_BYTES) {
        (void)err_set(e, ERR_CONFIG, "%.200s is larger than %d bytes", path, CONFIG_FILE_BYTES);
    } else if (memchr(text, 0, n)) {
        (void)err_set(e, ERR_CONFIG, "%.200s is not a text file", path);
    } else {
        is_bad = false;
        text[n] = 0;
    }
    close(fd);
    if (is_bad) {
        free(text);
        return NULL;
    }
    return text;
}

/* With a comma after the place, in front of what went wrong there. */
static int add_place(struct err *e, int rc, const char *path, int line)
{
    struct err inner = *e;
    return line ? err_set(e, rc, "%.120s, line %d: %.180s", path, line, inner.detail)
                : err_set(e, rc, "%.120s: %.180s", path, inner.detail);
}

static int load_file(struct config *c, const char *path, enum config_origin origin, bool must_exist,
                     struct err *e)
{
    struct err inner = {0};
    char *text = read_all(path, &inner), *line = text;
    bool is_absent = inner.code == -ENOENT || inner.code == -ENOTDIR;
    int rc = is_absent && !must_exist ? 0 : inner.code;
    for (int number = 1; line && rc == 0; number++) {
        char *end = strchr(line, '\n');
        if (end) {
            *end = 0;
        }
        rc = take_line(c, line, origin, &inner);
        if (rc < 0) {
            add_place(&inner, rc, path, number);
        }
        line = end ? end + 1 : NULL;
    }
    free(text);
    if (rc < 0 && e) {
        *e = inner;
    }
    return rc;
}

static int load_user_file(struct config *c, struct err *e)
{
    const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    bool has_xdg =
        xdg && *xdg == '/'; /* relative paths are to be ignored, says the specification */
    if (!has_xdg && !(home && *home)) {
        return 0;
    }
    char *path;
    if (asprintf(&path, "%s%s/rocmforge/rocmforge.conf", has_xdg ? xdg : home,
                 has_xdg ? "" : "/.config") < 0) {
        return err_set(e, -ENOMEM, "while reading the configuration");
    }
    int rc = load_file(c, path, CONFIG_FROM_FILE, false, e);
    free(path);
    return rc;
}

/* --- environment --- */

static int set_items(struct config *c, size_t k, const char *text, struct err *e)
{
    int rc = 0;
    char *copy = strdup(text), *save = NULL;
    if (!copy) {
        return err_set(e, -ENOMEM, "while setting '%s'", config_rows[k].key);
    }
    for (char *item = strtok_r(copy, ",", &save); item && rc == 0;
         item = strtok_r(NULL, ",", &save)) {
        item = trim(item);
        if (*item) {
            rc = config_set(c, config_rows[k].key, item, CONFIG_FROM_ENV, e);
        }
    }
    free(copy);
    return rc;
}

static int load_environment(struct config *c, struct err *e)
{
    for (size_t k = 0; k < CONFIG_COUNT; k++) {
        char name[CONFIG_VARIABLE_BYTES];
        config_variable(k, name);
        const char *value = getenv(name);
        if (!value || !*value) {
            continue;
        }
        struct err inner = {0};
        int rc = config_rows[k].kind == CONFIG_LIST
                     ? set_items(c, k, value, &inner)
                     : config_set(c, config_rows[k].key, value, CONFIG_FROM_ENV, &inner);
        if (rc < 0) {
            add_place(&inner, rc, name, 0);
            if (e) {
                *e = inner;
            }
            return rc;
        }
    }
    return 0;
}

int config_load(struct config *c, const char *path, struct err *e)
{
    int rc;
    if (path) {
        rc = load_file(c, path, CONFIG_FROM_FILE, true, e);
    } else {
        rc = load_file(c, "/etc/rocmforge/rocmforge.conf", CONFIG_FROM_SYSTEM_FILE, false, e);
        if (rc == 0) {
            rc = load_user_file(c, e);
        }
    }
    return rc < 0 ? rc : load_environment(c, e);
}

/* --- command line --- */

int config_take_flag(struct config *c, int argc, char **argv, int i, struct err *e)
{
    const char *arg = argv[i], *value = NULL;
    int k = -1;
    if (arg[0] == '-' && arg[1] == '-') {
        size_t n = strcspn(arg + 2, "=");
        if (memchr(arg + 2, '_', n)) {
            return 0;
        }
        value = arg[2 + n] == '=' ? arg + 2 + n + 1 : NULL;
        k = config_find(arg + 2, n);
    } else if (arg[0] == '-' && arg[1] && !arg[2]) {
        for (int j = 0; j < CONFIG_COUNT; j++) {
            if (config_rows[j].flag == arg[1]) {
                k = j;
            }
        }
    }
    if (k < 0) {
        return 0;
    }
    int taken = 1;
    if (!value) {
        if (i + 1 >= argc || strncmp(argv[i + 1], "--", 2) == 0) {
            return err_set(e, ERR_USAGE, "%.64s needs a value", arg);
        }
        value = argv[i + 1];
        taken = 2;
    }
    int rc = config_set(c, config_rows[k].key, value, CONFIG_FROM_FLAG, e);
    return rc < 0 ? rc : taken;
}
