/* Command lines. Pure but for --help and error output. */
#include "shared/options.h"
#include "shared/num.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_help(const struct options *o)
{
    printf("usage: rocmforge %s\n%s\n\n", o->usage, o->summary);
    for (size_t i = 0; i < o->n_specs; i++) {
        const struct option_spec *s = &o->specs[i];
        static const char *const values[] = {" TEXT", " N", " X", ""};
        char left[64];
        snprintf(left, sizeof(left), "%s%c%s--%s%s", s->letter ? "-" : " ",
                 s->letter ? s->letter : ' ', s->letter ? ", " : "  ", s->name, values[s->kind]);
        printf("  %-26s %s\n", left, s->help);
    }
    struct buf b;
    buf_init(&b, 0);
    config_help(o->keys, o->n_keys, &b);
    fwrite(b.data ? b.data : "", 1, b.len, stdout);
    buf_finish(&b);
}

static bool is_named(const struct option_spec *s, const char *arg, const char **ret_inline_value)
{
    *ret_inline_value = NULL;
    if (arg[0] == '-' && arg[1] != '-' && arg[1] == s->letter && s->letter && !arg[2]) {
        return true;
    }
    size_t n = strlen(s->name);
    if (strncmp(arg, "--", 2) != 0 || strncmp(arg + 2, s->name, n) != 0) {
        return false;
    }
    if (arg[2 + n] == '=') {
        *ret_inline_value = arg + 3 + n;
        return true;
    }
    return !arg[2 + n];
}

static int set_value(const struct option_spec *s, const char *text, struct err *e)
{
    int64_t i;
    double d;
    switch (s->kind) {
    case OPTION_STR:
        *(const char **)s->value = text;
        return 0;
    case OPTION_FLAG:
        *(bool *)s->value = true;
        return 0;
    case OPTION_INT:
        if (!num_parse_i64(text, &i) || (double)i < s->min || (double)i > s->max) {
            break;
        }
        *(int64_t *)s->value = i;
        return 0;
    case OPTION_NUM:
        if (!num_parse_f64(text, &d) || d < s->min || d > s->max) {
            break;
        }
        *(double *)s->value = d;
        return 0;
    }
    return err_set(e, ERR_USAGE, "--%s is '%s', allowed %g to %g", s->name, text, s->min, s->max);
}

/* The number of arguments taken, 0 when argv[i] is none of the tool's own options. */
static int take_own(const struct options *o, int argc, char **argv, int i, struct err *e)
{
    for (size_t k = 0; k < o->n_specs; k++) {
        const struct option_spec *s = &o->specs[k];
        const char *text;
        if (!is_named(s, argv[i], &text)) {
            continue;
        }
        if (s->kind == OPTION_FLAG || text) {
            int err = text && s->kind == OPTION_FLAG
                          ? err_set(e, ERR_USAGE, "--%s takes no value", s->name)
                          : set_value(s, text, e);
            return err < 0 ? err : 1;
        }
        if (i + 1 >= argc) {
            return err_set(e, ERR_USAGE, "--%s needs a value", s->name);
        }
        int err = set_value(s, argv[i + 1], e);
        return err < 0 ? err : 2;
    }
    return 0;
}

int options_parse(struct options *o, int argc, char **argv, struct config *c, struct err *e)
{
    o->n_positional = 0;
    for (int i = 1; i < argc;) {
        const char *arg = argv[i];
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            print_help(o);
            return 0;
        }
        bool is_option = arg[0] == '-' && arg[1];
        int n = is_option ? take_own(o, argc, argv, i, e) : 0;
        if (n == 0 && is_option) {
            n = config_take_flag(c, argc, argv, i, e);
        }
        if (n < 0) {
            return n;
        }
        if (n == 0) {
            if (is_option || o->n_positional >= o->max_positional) {
                return err_set(e, ERR_USAGE, "unexpected argument '%s'; usage: rocmforge %s", arg,
                               o->usage);
            }
            o->positional[o->n_positional++] = arg;
            n = 1;
        }
        i += n;
    }
    return 1;
}

int options_fail(const char *tool, const struct err *e)
{
    char text[ERR_DETAIL_BYTES * 2];
    fprintf(stderr, "rocmforge %s: %s\n", tool, err_format(e, text, sizeof(text)));
    return err_exit_code(e->code);
}
