/* Settings: the table, setting by name, the form in which children get them. config_load.c reads
 * the sources, config_show.c prints. Any process, before its threads. No I/O. Invariant: every
 * value stands within its declared range, at every moment. */
#include "shared/config.h"
#include "shared/num.h"
#include "shared/utf8.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct config_row config_rows[CONFIG_COUNT] = {
#define CONFIG(kind, key, def, min, max, flag, values, help)                                       \
    {CONFIG_##kind, #key, def, min, max, flag, values, help, false},
#define CONFIG_LIVE(kind, key, def, min, max, flag, values, help)                                  \
    {CONFIG_##kind, #key, def, min, max, flag, values, help, true},
#include "shared/config.def"
#undef CONFIG_LIVE
#undef CONFIG
};

static void list_clear(struct config_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->items[i]);
    }
    free(l->items);
    *l = (struct config_list){0};
}

static int list_add(struct config_list *l, const char *item)
{
    char **items = realloc(l->items, (l->n + 1) * sizeof(*items));
    if (!items) {
        return -ENOMEM;
    }
    l->items = items;
    /* Not strdup: gcc's analyzer would lose sight of it in the array and report a leak. */
    if (asprintf(&items[l->n], "%s", item) < 0) {
        return -ENOMEM;
    }
    l->n++;
    return 0;
}

void config_init(struct config *c)
{
    *c = (struct config){0};
    for (size_t k = 0; k < CONFIG_COUNT; k++) {
        c->v[k].str = base_alloc(1);
        if (config_rows[k].kind != CONFIG_LIST) {
            int rc =
                config_set(c, config_rows[k].key, config_rows[k].def, CONFIG_FROM_DEFAULT, NULL);
            ASSERT(rc == 0);
        }
    }
}

void config_finish(struct config *c)
{
    for (size_t k = 0; k < CONFIG_COUNT; k++) {
        free(c->v[k].str);
        list_clear(&c->v[k].list);
    }
    *c = (struct config){0};
}

/* The distance of two short names in single-character edits, for "did you mean". */
static size_t edits(const char *a, const char *b)
{
    size_t row[64], n = strlen(b);
    if (n >= COUNT_OF(row)) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= n; j++) {
        row[j] = j;
    }
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t up = row[j];
            row[j] = MIN(MIN(row[j] + 1, row[j - 1] + 1), diagonal + (a[i - 1] != b[j - 1]));
            diagonal = up;
        }
    }
    return row[n];
}

int config_find(const char *key, size_t n)
{
    for (int k = 0; k < CONFIG_COUNT; k++) {
        const char *name = config_rows[k].key;
        size_t i = 0;
        while (i < n && name[i] && (key[i] == '-' ? '_' : key[i]) == name[i]) {
            i++;
        }
        if (i == n && !name[i]) {
            return k;
        }
    }
    return -1;
}

static int unknown_key(const char *key, struct err *e)
{
    size_t best = SIZE_MAX;
    const char *name = NULL;
    for (size_t k = 0; k < CONFIG_COUNT; k++) {
        size_t d = edits(key, config_rows[k].key);
        if (d < best) {
            best = d;
            name = config_rows[k].key;
        }
    }
    if (best <= 2) {
        return err_set(e, ERR_CONFIG, "there is no setting '%.64s'; did you mean '%s'?", key, name);
    }
    return err_set(e, ERR_CONFIG, "there is no setting '%.64s'", key);
}

/* Index of value among "a|b|c". */
static bool parse_choice(const char *choices, const char *value, int64_t *ret)
{
    size_t n = strlen(value);
    for (int64_t i = 0;; i++) {
        const char *end = strchrnul(choices, '|');
        if ((size_t)(end - choices) == n && memcmp(choices, value, n) == 0) {
            *ret = i;
            return true;
        }
        if (!*end) {
            return false;
        }
        choices = end + 1;
    }
}

static int bad_value(const struct config_row *r, const char *value, struct err *e)
{
    switch (r->kind) {
    case CONFIG_INT:
    case CONFIG_NUM:
        return err_set(e, ERR_CONFIG, "'%s' is '%.64s', allowed is a%s number from %.10g to %.10g",
                       r->key, value, r->kind == CONFIG_INT ? " whole" : "", r->min, r->max);
    case CONFIG_CHOICE:
        return err_set(e, ERR_CONFIG, "'%s' is '%.64s', allowed are %s", r->key, value, r->values);
    case CONFIG_STR:
    case CONFIG_LIST:
        break;
    }
    return err_set(e, ERR_CONFIG, "'%s' must be one line of UTF-8 text", r->key);
}

static bool is_line(const char *s)
{
    for (const char *p = s; *p; p++) {
        if ((unsigned char)*p < 0x20 && *p != '\t') {
            return false;
        }
    }
    return utf8_is_valid(s, strlen(s));
}

static int set(struct config *c, size_t k, const char *value, enum config_origin origin,
               struct err *e)
{
    const struct config_row *r = &config_rows[k];
    int64_t i = 0;
    double num = 0;
    bool ok = is_line(value);
    if (r->kind == CONFIG_INT) {
        ok = ok && num_parse_i64(value, &i) && (double)i >= r->min && (double)i <= r->max;
    } else if (r->kind == CONFIG_NUM) {
        ok = ok && num_parse_f64(value, &num) && num >= r->min && num <= r->max;
    } else if (r->kind == CONFIG_CHOICE) {
        ok = ok && parse_choice(r->values, value, &i);
    } else if (r->kind == CONFIG_LIST) {
        ok = ok && *value;
    }
    if (!ok) {
        return bad_value(r, value, e);
    }
    if (origin < c->v[k].origin) {
        return 0;
    }
    if (r->kind == CONFIG_LIST) {
        if (origin > c->v[k].origin) {
            list_clear(&c->v[k].list);
        }
        if (list_add(&c->v[k].list, value) < 0) {
            return err_set(e, -ENOMEM, "while setting '%s'", r->key);
        }
    } else {
        char *str = strdup(value);
        if (!str) {
            return err_set(e, -ENOMEM, "while setting '%s'", r->key);
        }
        free(c->v[k].str);
        c->v[k].str = str;
        c->v[k].i = i;
        c->v[k].num = num;
    }
    c->v[k].origin = origin;
    return 0;
}

int config_set(struct config *c, const char *key, const char *value, enum config_origin origin,
               struct err *e)
{
    int k = config_find(key, strlen(key));
    return k < 0 ? unknown_key(key, e) : set(c, (size_t)k, value, origin, e);
}

void config_variable(size_t k, char ret[CONFIG_VARIABLE_BYTES])
{
    snprintf(ret, CONFIG_VARIABLE_BYTES, "ROCMFORGE_%s", config_rows[k].key);
    for (char *p = ret; *p; p++) {
        *p = (char)toupper((unsigned char)*p);
    }
}

/* --- to the children --- */

bool config_differs(const struct config *a, const struct config *b, enum config_key key)
{
    const struct config_list *x = &a->v[key].list, *y = &b->v[key].list;
    if (config_rows[key].kind != CONFIG_LIST) {
        return strcmp(a->v[key].str, b->v[key].str) != 0;
    }
    bool differs = x->n != y->n;
    for (size_t i = 0; i < x->n && !differs; i++) {
        differs = strcmp(x->items[i], y->items[i]) != 0;
    }
    return differs;
}

void config_encode(const struct config *c, struct buf *ret)
{
    for (size_t k = 0; k < CONFIG_COUNT; k++) {
        if (config_rows[k].kind != CONFIG_LIST) {
            buf_printf(ret, "%s=%s\n", config_rows[k].key, c->v[k].str);
        }
        for (size_t i = 0; i < c->v[k].list.n; i++) {
            buf_printf(ret, "%s=%s\n", config_rows[k].key, c->v[k].list.items[i]);
        }
    }
}

int config_decode(struct config *c, const char *text, size_t n, struct err *e)
{
    for (size_t i = 0; i < n;) {
        const char *line = text + i, *end = memchr(line, '\n', n - i);
        const char *equals = end ? memchr(line, '=', (size_t)(end - line)) : NULL;
        int k = equals ? config_find(line, (size_t)(equals - line)) : -1;
        if (k < 0 || memchr(line, 0, (size_t)(end - line))) {
            return err_set(e, ERR_CONFIG, "the handed-over settings are damaged at byte %zu", i);
        }
        char *value = strndup(equals + 1, (size_t)(end - equals - 1));
        if (!value) {
            return err_set(e, -ENOMEM, "while setting '%s'", config_rows[k].key);
        }
        int rc = set(c, (size_t)k, value, CONFIG_FROM_FLAG, e);
        free(value);
        if (rc < 0) {
            return rc;
        }
        i = (size_t)(end - text) + 1;
    }
    return 0;
}

/* --- a model argument --- */

/* Length of a file name without ".gguf" and "-00001-of-0000N". */
static size_t stem_length(const char *file)
{
    size_t n = strlen(file);
    if (n > 5 && strcmp(file + n - 5, ".gguf") == 0) {
        n -= 5;
    }
    if (n > 15 && file[n - 15] == '-' && memcmp(file + n - 9, "-of-", 4) == 0 &&
        strspn(file + n - 14, "0123456789") == 5 && strspn(file + n - 5, "0123456789") >= 5) {
        n -= 15;
    }
    return n;
}

int config_model(const char *arg, char **ret_name, char **ret_path, struct err *e)
{
    const char *equals = strchr(arg, '='), *slash = strchr(arg, '/');
    bool is_named = equals && (!slash || equals < slash);
    const char *path = is_named ? equals + 1 : arg;
    const char *base = strrchr(path, '/');
    const char *name = is_named ? arg : base ? base + 1 : path;
    size_t n = is_named ? (size_t)(equals - arg) : stem_length(name);
    if (!*path || n == 0 || (base && !base[1])) {
        return err_set(e, ERR_CONFIG, "'model' is '%.200s', allowed are PATH and NAME=PATH", arg);
    }
    char *own_name = strndup(name, n), *own_path = strdup(path);
    if (!own_name || !own_path) {
        free(own_name);
        free(own_path);
        return err_set(e, -ENOMEM, "while reading 'model'");
    }
    *ret_name = own_name;
    *ret_path = own_path;
    return 0;
}
