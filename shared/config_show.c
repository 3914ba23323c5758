/* How settings are shown to people: the table of `rocmforge config` and the options of --help.
 * Pure. */
#include "shared/config.h"

#include <stdio.h>
#include <string.h>

enum { HELP_COLUMN = 29, LINE_COLUMNS = 80 };

/* Words of text from column `column` on, wrapped to LINE_COLUMNS, lines indented to `column`. */
static void put_wrapped(struct buf *b, const char *text, size_t column)
{
    size_t at = column;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, " ");
        if (at > column && at + 1 + n > LINE_COLUMNS) {
            buf_printf(b, "\n%*s", (int)column, "");
            at = column;
        } else if (at > column) {
            buf_char(b, ' ');
            at++;
        }
        buf_add(b, p, n);
        at += n;
        p += n + (p[n] == ' ');
    }
    buf_char(b, '\n');
}

/* "--ctx-size", "-c, --ctx-size" or "--[no-]key". */
static void flag_words(size_t k, char ret[CONFIG_VARIABLE_BYTES])
{
    const struct config_row *r = &config_rows[k];
    char letter[8] = "";
    if (r->flag) {
        snprintf(letter, sizeof(letter), "-%c, ", r->flag);
    }
    int n = snprintf(ret, CONFIG_VARIABLE_BYTES, "%s--%s", letter, r->key);
    for (int i = (int)strlen(letter); i < n && i < CONFIG_VARIABLE_BYTES; i++) {
        ret[i] = ret[i] == '_' ? '-' : ret[i];
    }
}

/* What a value may be: "0 to 65535", "a, b or c"; empty for texts. */
static void range_words(const struct config_row *r, struct buf *b)
{
    if (r->kind == CONFIG_INT || r->kind == CONFIG_NUM) {
        buf_printf(b, "%.10g to %.10g", r->min, r->max);
    } else if (r->kind == CONFIG_CHOICE) {
        for (const char *p = r->values; *p; p++) {
            if (*p == '|') {
                buf_str(b, strchr(p + 1, '|') ? ", " : " or ");
            } else {
                buf_char(b, *p);
            }
        }
    }
}

void config_print(const struct config *c, struct buf *ret)
{
    static const char *const origins[] = {"default", "/etc", "file", "variable", "flag"};
    buf_printf(ret, "%-17s %-18s %-9s %-24s %s\n", "SETTING", "VALUE", "FROM", "FLAG", "VARIABLE");
    for (size_t k = 0; k < CONFIG_COUNT; k++) {
        const struct config_row *r = &config_rows[k];
        char flag[CONFIG_VARIABLE_BYTES], variable[CONFIG_VARIABLE_BYTES];
        flag_words(k, flag);
        config_variable(k, variable);
        size_t n = r->kind == CONFIG_LIST ? c->v[k].list.n : 1;
        for (size_t i = 0; i < MAX(n, (size_t)1); i++) {
            const char *value = r->kind != CONFIG_LIST ? c->v[k].str
                                : n                    ? c->v[k].list.items[i]
                                                       : "";
            value = *value ? value : "-";
            if (i == 0) {
                buf_printf(ret, "%-17s %-18s %-9s %-24s %s\n", r->key, value,
                           origins[c->v[k].origin], flag, variable);
            } else {
                buf_printf(ret, "%-17s %s\n", "", value);
            }
        }
        struct buf help;
        buf_init(&help, 0);
        buf_str(&help, r->help);
        if (r->kind != CONFIG_STR && r->kind != CONFIG_LIST) {
            buf_str(&help, " (");
            range_words(r, &help);
            buf_str(&help, ")");
        }
        if (r->is_live) {
            buf_str(&help, "; a reload changes it");
        }
        buf_str(ret, "    ");
        put_wrapped(ret, help.failed ? r->help : help.data, 4);
        buf_finish(&help);
    }
}

void config_help(const enum config_key *keys, size_t n, struct buf *ret)
{
    for (size_t i = 0; i < n; i++) {
        const struct config_row *r = &config_rows[keys[i]];
        char flag[CONFIG_VARIABLE_BYTES], left[2 * CONFIG_VARIABLE_BYTES];
        flag_words(keys[i], flag);
        const char *word = r->values;
        int length = snprintf(left, sizeof(left), "  %s%s%s%s", r->flag ? "" : "    ", flag,
                              *word ? " " : "", word);
        struct buf help;
        buf_init(&help, 0);
        buf_str(&help, r->help);
        if (*r->def) {
            buf_printf(&help, " [%s]", r->def);
        }
        buf_str(ret, left);
        if (length + 2 > HELP_COLUMN) {
            buf_printf(ret, "\n%*s", HELP_COLUMN, "");
        } else {
            buf_printf(ret, "%*s", HELP_COLUMN - length, "");
        }
        put_wrapped(ret, help.failed ? r->help : help.data, HELP_COLUMN);
        buf_finish(&help);
    }
}
