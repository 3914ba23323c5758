/* Binds arguments to parameters and dispatches calls. */
#include "worker/jinja/jinja_call.h"
#include "worker/jinja/jinja_dict.h"
#include "worker/jinja/jinja_exec.h"
#include "worker/jinja/jinja_loop.h"
#include "worker/jinja/jinja_macro.h"

#include <inttypes.h>
#include <string.h>

const struct jinja_builtin *jinja_call_find(const struct jinja_builtin *table, size_t n,
                                            const char *name, size_t n_name)
{
    for (size_t i = 0; i < n; i++) {
        if (strlen(table[i].name) == n_name && memcmp(table[i].name, name, n_name) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

static int find_param(const char *params, struct jinja_value name)
{
    int i = 0;
    for (const char *p = params; *p; i++) {
        size_t n = strcspn(p, " ?");
        if (jinja_value_is_str(name, p, n)) {
            return i;
        }
        p += n;
        p += strspn(p, "? ");
    }
    return -1;
}

static void bind(struct jinja *j, const struct jinja_builtin *b, const struct jinja_args *args,
                 struct jinja_value *arg)
{
    uint32_t n = 0;
    for (const char *p = b->params; *p; n++) {
        size_t len = strcspn(p, " ?");
        if (n < args->n_pos) {
            arg[n] = args->pos[n];
        } else if (p[len] != '?') {
            bool given = false;
            for (uint32_t i = 0; i < args->n_kw; i++) {
                given = given || jinja_value_is_str(args->kw[i].name, p, len);
            }
            if (!given) {
                jinja_fail(j, "%s() needs the argument '%.*s'", b->name, (int)len, p);
            }
        }
        p += len;
        p += strspn(p, "? ");
    }
    if (args->n_pos > n) {
        jinja_fail(j, "%s() takes at most %u arguments (%u given)", b->name, n, args->n_pos);
    }
    for (uint32_t i = 0; i < args->n_kw; i++) {
        struct jinja_value name = args->kw[i].name;
        int at = find_param(b->params, name);
        if (at < 0) {
            jinja_fail(j, "%s() got an unexpected keyword argument '%.*s'", b->name,
                       (int)MIN(name.n, 100u), name.s);
        }
        if (arg[at].kind != JINJA_MISSING) {
            jinja_fail(j, "%s() got multiple values for argument '%.*s'", b->name, (int)name.n,
                       name.s);
        }
        arg[at] = args->kw[i].value;
    }
}

struct jinja_value jinja_call_builtin(struct jinja *j, const struct jinja_builtin *b,
                                      struct jinja_value self, const struct jinja_args *args)
{
    struct jinja_value arg[JINJA_PARAMS] = {{.kind = JINJA_MISSING}};
    jinja_step(j, 2);
    if (b->params[0] != '*') {
        bind(j, b, args, arg);
    }
    return b->fn(j, self, arg, args);
}

static struct jinja_value call_joiner(struct jinja *j, struct jinja_joiner *joiner,
                                      const struct jinja_args *args)
{
    if (args->n_pos || args->n_kw) {
        jinja_fail(j, "a joiner takes no arguments");
    }
    if (!joiner->used) {
        joiner->used = true;
        return JINJA_LITERAL("");
    }
    return joiner->separator;
}

struct jinja_value jinja_call_value(struct jinja *j, struct jinja_value callee,
                                    const struct jinja_args *args)
{
    struct jinja_value v;
    switch ((enum jinja_kind)callee.kind) {
    case JINJA_UNDEFINED:
        jinja_value_use_undefined(j, callee);
    case JINJA_METHOD:
        return jinja_call_builtin(j, callee.method->builtin, callee.method->self, args);
    case JINJA_FUNCTION:
        return jinja_call_builtin(j, callee.function, jinja_value_none(), args);
    case JINJA_JOINER:
        return call_joiner(j, callee.joiner, args);
    case JINJA_MACRO:
    case JINJA_LOOP:
        jinja_enter(j);
        v = callee.kind == JINJA_MACRO ? jinja_exec_macro(j, callee.macro, args)
                                       : jinja_exec_recurse(j, callee.loop, args);
        jinja_exit(j);
        return v;
    default:
        jinja_fail(j, "'%s' object is not callable", jinja_value_type(callee));
    }
}

int64_t jinja_call_int(struct jinja *j, struct jinja_value arg, int64_t def)
{
    int64_t i = def;
    if (arg.kind != JINJA_MISSING && !jinja_value_as_int(arg, &i)) {
        if (arg.kind == JINJA_UNDEFINED) {
            jinja_value_use_undefined(j, arg);
        }
        jinja_fail(j, "'%s' object cannot be interpreted as an integer", jinja_value_type(arg));
    }
    return i;
}

bool jinja_call_bool(struct jinja_value arg, bool def)
{
    return arg.kind == JINJA_MISSING ? def : jinja_value_is_true(arg);
}

struct jinja_value jinja_call_str(struct jinja *j, struct jinja_value arg, const char *def)
{
    if (arg.kind == JINJA_MISSING && def) {
        return jinja_value_str(def, strlen(def));
    }
    if (arg.kind == JINJA_UNDEFINED) {
        jinja_value_use_undefined(j, arg);
    }
    if (arg.kind != JINJA_STR) {
        jinja_fail(j, "expected a str, not a %s", jinja_value_type(arg));
    }
    return arg;
}
