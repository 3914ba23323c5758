/* The evaluator of expressions: a walk over the tree. Each node costs a step; jinja_enter bounds
 * the recursion. */
#include "worker/jinja/jinja_eval.h"
#include "worker/jinja/jinja_attr.h"
#include "worker/jinja/jinja_dict.h"
#include "worker/jinja/jinja_iter.h"
#include "worker/jinja/jinja_op.h"
#include "worker/jinja/jinja_text.h"

#include <string.h>

struct jinja_frame *jinja_eval_frame(struct jinja *j, const struct jinja_function *fn,
                                     struct jinja_frame *outer)
{
    struct jinja_frame *f =
        jinja_alloc(j, sizeof(*f) + (size_t)fn->n_slots * sizeof(struct jinja_value));
    f->outer = outer;
    return f;
}

struct jinja_value *jinja_eval_slot(struct jinja_frame *f, uint32_t hops, uint32_t slot)
{
    for (; hops; hops--) {
        f = f->outer;
    }
    return &f->slots[slot];
}

/* ---- arguments ---- */

static void add_star(struct jinja *j, struct jinja_value list, struct jinja_args *ret)
{
    struct jinja_value more = jinja_iter_list(j, list);
    struct jinja_value *pos = jinja_value_room(j, (size_t)ret->n_pos + more.n);
    if (ret->n_pos) {
        memcpy(pos, ret->pos, ret->n_pos * sizeof(*pos));
    }
    if (more.n) {
        memcpy(pos + ret->n_pos, more.items, more.n * sizeof(*pos));
    }
    ret->pos = pos;
    ret->n_pos += more.n;
}

static void add_star_star(struct jinja *j, struct jinja_value v, struct jinja_args *ret)
{
    if (v.kind != JINJA_DICT) {
        jinja_fail(j, "the argument after ** must be a dict, not a %s", jinja_value_type(v));
    }
    uint32_t n = ret->n_kw;
    struct jinja_keyword *kw = jinja_array(j, (size_t)n + v.dict->n, sizeof(*kw));
    if (n) {
        memcpy(kw, ret->kw, n * sizeof(*kw));
    }
    for (uint32_t i = 0; i < v.dict->n; i++) {
        struct jinja_value key = v.dict->entries[i].key;
        if (key.kind != JINJA_STR) {
            jinja_fail(j, "keywords must be strings");
        }
        for (uint32_t k = 0; k < ret->n_kw; k++) {
            jinja_step(j, 1);
            if (jinja_value_equal(j, ret->kw[k].name, key)) {
                jinja_fail(j, "got multiple values for keyword argument '%.*s'",
                           (int)MIN(key.n, 100u), key.s);
            }
        }
        kw[n++] = (struct jinja_keyword){key, v.dict->entries[i].value};
    }
    ret->kw = kw;
    ret->n_kw = n;
}

/* caller: one more named argument, or NULL. */
static struct jinja_args eval_arguments(struct jinja *j, struct jinja_frame *f,
                                        const struct jinja_arguments *a,
                                        const struct jinja_keyword *caller)
{
    if (a->constant && !caller) {
        return *a->constant;
    }
    struct jinja_args args = {.n_pos = a->n_pos, .n_kw = a->n_kw + (caller != NULL)};
    if (a->n_pos) {
        struct jinja_value *pos = jinja_value_room(j, a->n_pos);
        for (uint32_t i = 0; i < a->n_pos; i++) {
            pos[i] = jinja_eval(j, f, a->pos[i]);
        }
        args.pos = pos;
    }
    if (args.n_kw) {
        struct jinja_keyword *kw = jinja_array(j, args.n_kw, sizeof(*kw));
        for (uint32_t i = 0; i < a->n_kw; i++) {
            kw[i] = (struct jinja_keyword){a->kw[i].name, jinja_eval(j, f, a->kw[i].value)};
        }
        if (caller) {
            kw[a->n_kw] = *caller;
        }
        args.kw = kw;
    }
    if (a->star) {
        add_star(j, jinja_eval(j, f, a->star), &args);
    }
    if (a->star_star) {
        add_star_star(j, jinja_eval(j, f, a->star_star), &args);
    }
    return args;
}

/* ---- chains ---- */

static struct jinja_value eval_filter(struct jinja *j, struct jinja_frame *f,
                                      const struct jinja_link *l, struct jinja_value v)
{
    struct jinja_args args = eval_arguments(j, f, l->arguments, NULL);
    j->line = l->line;
    if (!l->builtin) {
        jinja_fail(j, "there is no %s named '%.*s'", l->kind == JINJA_LINK_TEST ? "test" : "filter",
                   (int)MIN(l->name.n, 100u), l->name.s);
    }
    return jinja_call_builtin(j, l->builtin, v, &args);
}

static struct jinja_value eval_part(struct jinja *j, struct jinja_frame *f,
                                    const struct jinja_expr *e)
{
    return e ? jinja_eval(j, f, e) : jinja_value_none();
}

/* The method that v.name is, known when the template was parsed. */
static const struct jinja_builtin *known_method(const struct jinja_link *l, struct jinja_value v)
{
    switch ((enum jinja_kind)v.kind) {
    case JINJA_STR:
        return l->method[0];
    case JINJA_LIST:
        return l->method[1];
    case JINJA_DICT:
        return l->method[2];
    default:
        return NULL;
    }
}

static struct jinja_value eval_links(struct jinja *j, struct jinja_frame *f,
                                     const struct jinja_expr *e, struct jinja_value v,
                                     const struct jinja_keyword *caller)
{
    for (uint32_t i = 0; i < e->n_links; i++) {
        const struct jinja_link *l = &e->links[i];
        const struct jinja_builtin *method = NULL;
        jinja_step(j, 1);
        j->line = l->line;
        switch (l->kind) {
        case JINJA_LINK_ATTR:
            if (i + 1 < e->n_links && l[1].kind == JINJA_LINK_CALL &&
                (method = known_method(l, v)) && !caller) {
                struct jinja_args args = eval_arguments(j, f, l[1].arguments, NULL);
                j->line = l->line;
                v = jinja_call_builtin(j, method, v, &args);
                i++;
            } else {
                v = jinja_attr_get(j, v, l->name.s, l->name.n);
            }
            break;
        case JINJA_LINK_ITEM: {
            struct jinja_value key = jinja_eval(j, f, l->part[0]);
            j->line = l->line;
            v = jinja_op_item(j, v, key);
            break;
        }
        case JINJA_LINK_SLICE: {
            struct jinja_value start = eval_part(j, f, l->part[0]);
            struct jinja_value stop = eval_part(j, f, l->part[1]);
            struct jinja_value step = eval_part(j, f, l->part[2]);
            j->line = l->line;
            v = jinja_op_slice(j, v, start, stop, step);
            break;
        }
        case JINJA_LINK_CALL: {
            struct jinja_args args =
                eval_arguments(j, f, l->arguments, i + 1 == e->n_links ? caller : NULL);
            j->line = l->line;
            v = jinja_call_value(j, v, &args);
            break;
        }
        case JINJA_LINK_FILTER:
            v = eval_filter(j, f, l, v);
            break;
        case JINJA_LINK_TEST:
            v = jinja_value_bool(jinja_value_is_true(eval_filter(j, f, l, v)) != l->is_negated);
            break;
        }
    }
    return v;
}

static struct jinja_value eval_chain(struct jinja *j, struct jinja_frame *f,
                                     const struct jinja_expr *e)
{
    return eval_links(j, f, e, jinja_eval(j, f, e->items[0]), NULL);
}

struct jinja_value jinja_eval_call(struct jinja *j, struct jinja_frame *f,
                                   const struct jinja_expr *e, struct jinja_value caller)
{
    struct jinja_keyword kw = {JINJA_LITERAL("caller"), caller};
    jinja_enter(j);
    struct jinja_value v = eval_links(j, f, e, jinja_eval(j, f, e->items[0]), &kw);
    jinja_exit(j);
    return v;
}

struct jinja_value jinja_eval_filters(struct jinja *j, struct jinja_frame *f,
                                      const struct jinja_expr *e, struct jinja_value v)
{
    jinja_enter(j);
    v = eval_links(j, f, e, v, NULL);
    jinja_exit(j);
    return v;
}

/* ---- the rest ---- */

static struct jinja_value eval_name(struct jinja *j, struct jinja_frame *f,
                                    const struct jinja_name *name)
{
    (void)j;
    struct jinja_value v = *jinja_eval_slot(f, name->hops, name->slot);
    return v.kind == JINJA_MISSING ? jinja_value_unnamed(name->s, name->n) : v;
}

static struct jinja_value eval_items(struct jinja *j, struct jinja_frame *f,
                                     const struct jinja_expr *e)
{
    struct jinja_value *items = jinja_value_room(j, e->n);
    for (uint32_t i = 0; i < e->n; i++) {
        items[i] = jinja_eval(j, f, e->items[i]);
    }
    return jinja_value_items(e->kind == JINJA_EXPR_LIST ? JINJA_LIST : JINJA_TUPLE, items, e->n);
}

static struct jinja_value eval_dict(struct jinja *j, struct jinja_frame *f,
                                    const struct jinja_expr *e)
{
    struct jinja_dict *d = jinja_dict_create(j, e->n / 2);
    for (uint32_t i = 0; i < e->n; i += 2) {
        struct jinja_value key = jinja_eval(j, f, e->items[i]);
        jinja_dict_set(j, d, key, jinja_eval(j, f, e->items[i + 1]));
    }
    return jinja_dict_value(d);
}

static bool compare(struct jinja *j, enum jinja_compare op, struct jinja_value a,
                    struct jinja_value b)
{
    switch (op) {
    case JINJA_EQ:
        return jinja_value_equal(j, a, b);
    case JINJA_NE:
        return !jinja_value_equal(j, a, b);
    case JINJA_LT:
        return jinja_value_compare(j, a, b, "<") == -1;
    case JINJA_LE: {
        int order = jinja_value_compare(j, a, b, "<=");
        return order == -1 || order == 0;
    }
    case JINJA_GT:
        return jinja_value_compare(j, a, b, ">") == 1;
    case JINJA_GE: {
        int order = jinja_value_compare(j, a, b, ">=");
        return order == 1 || order == 0;
    }
    case JINJA_IN:
        return jinja_value_contains(j, b, a);
    case JINJA_NOT_IN:
        return !jinja_value_contains(j, b, a);
    }
    return false;
}

static struct jinja_value eval_compare(struct jinja *j, struct jinja_frame *f,
                                       const struct jinja_expr *e)
{
    struct jinja_value left = jinja_eval(j, f, e->items[0]);
    for (uint32_t i = 1; i < e->n; i++) {
        struct jinja_value right = jinja_eval(j, f, e->items[i]);
        j->line = e->line;
        if (!compare(j, e->ops[i - 1], left, right)) {
            return jinja_value_bool(false);
        }
        left = right;
    }
    return jinja_value_bool(true);
}

static struct jinja_value eval_math(struct jinja *j, struct jinja_frame *f,
                                    const struct jinja_expr *e)
{
    struct jinja_value v = jinja_eval(j, f, e->items[0]);
    for (uint32_t i = 1; i < e->n; i++) {
        struct jinja_value right = jinja_eval(j, f, e->items[i]);
        j->line = e->line;
        v = jinja_op_binary(j, e->ops[i - 1], v, right);
    }
    return v;
}

static struct jinja_value eval_concat(struct jinja *j, struct jinja_frame *f,
                                      const struct jinja_expr *e)
{
    struct jinja_value v = jinja_text_str(j, jinja_eval(j, f, e->items[0]));
    for (uint32_t i = 1; i < e->n; i++) {
        v = jinja_value_concat(j, v, jinja_text_str(j, jinja_eval(j, f, e->items[i])));
    }
    return v;
}

static struct jinja_value eval_if(struct jinja *j, struct jinja_frame *f,
                                  const struct jinja_expr *e)
{
    if (jinja_value_is_true(jinja_eval(j, f, e->items[1]))) {
        return jinja_eval(j, f, e->items[0]);
    }
    return e->items[2] ? jinja_eval(j, f, e->items[2])
                       : jinja_value_hint(j,
                                          "the inline if-expression on line %u evaluated to false "
                                          "and no else section was defined.",
                                          e->line);
}

/* a or b or c, a and b and c: the first that decides, else the last. */
static struct jinja_value eval_logic(struct jinja *j, struct jinja_frame *f,
                                     const struct jinja_expr *e)
{
    struct jinja_value v = jinja_eval(j, f, e->items[0]);
    for (uint32_t i = 1; i < e->n; i++) {
        if (jinja_value_is_true(v) == (e->kind == JINJA_EXPR_OR)) {
            break;
        }
        v = jinja_eval(j, f, e->items[i]);
    }
    return v;
}

static struct jinja_value eval_node(struct jinja *j, struct jinja_frame *f,
                                    const struct jinja_expr *e)
{
    switch (e->kind) {
    case JINJA_EXPR_CONSTANT:
        return e->constant;
    case JINJA_EXPR_NAME:
        return eval_name(j, f, &e->name);
    case JINJA_EXPR_LIST:
    case JINJA_EXPR_TUPLE:
        return eval_items(j, f, e);
    case JINJA_EXPR_DICT:
        return eval_dict(j, f, e);
    case JINJA_EXPR_IF:
        return eval_if(j, f, e);
    case JINJA_EXPR_OR:
    case JINJA_EXPR_AND:
        return eval_logic(j, f, e);
    case JINJA_EXPR_NOT:
        return jinja_value_bool(!jinja_value_is_true(jinja_eval(j, f, e->items[0])));
    case JINJA_EXPR_COMPARE:
        return eval_compare(j, f, e);
    case JINJA_EXPR_MATH:
        return eval_math(j, f, e);
    case JINJA_EXPR_CONCAT:
        return eval_concat(j, f, e);
    case JINJA_EXPR_SIGN:
        return jinja_op_sign(j, e->ops[0], jinja_eval(j, f, e->items[0]));
    case JINJA_EXPR_CHAIN:
        return eval_chain(j, f, e);
    }
    return jinja_value_none();
}

struct jinja_value jinja_eval(struct jinja *j, struct jinja_frame *f, const struct jinja_expr *e)
{
    jinja_step(j, 1);
    jinja_enter(j);
    struct jinja_value v = eval_node(j, f, e);
    jinja_exit(j);
    return v;
}
