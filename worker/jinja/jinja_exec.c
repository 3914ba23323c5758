/* Statements: a walk over the tree that prints. jinja_enter bounds the recursion. */
#include "worker/jinja/jinja_exec.h"
#include "worker/jinja/jinja_dict.h"
#include "worker/jinja/jinja_eval.h"
#include "worker/jinja/jinja_loop.h"
#include "worker/jinja/jinja_macro.h"
#include "worker/jinja/jinja_text.h"

#include <inttypes.h>
#include <string.h>

enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

static enum flow exec_body(struct jinja *j, struct jinja_frame *f, struct jinja_body b);

static void enter_scope(struct jinja *j, struct jinja_frame *f, const struct jinja_scope *s)
{
    jinja_step(j, s->n / 4);
    for (uint32_t i = 0; i < s->n; i++) {
        const struct jinja_init *init = &s->inits[i];
        switch (init->kind) {
        case JINJA_INIT_MISSING:
            f->slots[init->slot].kind = JINJA_MISSING;
            break;
        case JINJA_INIT_CONTEXT:
            f->slots[init->slot] = j->names[init->from];
            break;
        case JINJA_INIT_OUTER:
            f->slots[init->slot] = *jinja_eval_slot(f, init->hops, init->from);
            break;
        case JINJA_INIT_PARAM:
            break;
        }
    }
}

/* A closure made within a scope must not see its variables when the scope is over. */
static void leave_scope(struct jinja *j, struct jinja_frame *f, const struct jinja_scope *s)
{
    jinja_step(j, s->n / 4);
    for (uint32_t i = 0; i < s->n; i++) {
        f->slots[s->inits[i].slot].kind = JINJA_MISSING;
    }
}

/* ---- set ---- */

static void assign(struct jinja *j, struct jinja_frame *f, const struct jinja_target *t,
                   struct jinja_value v)
{
    jinja_step(j, 1);
    struct jinja_value *slot = NULL;
    if (!t->items) {
        slot = jinja_eval_slot(f, t->name.hops, t->name.slot);
    }
    if (slot && t->attr.kind == JINJA_MISSING) {
        *slot = v;
    } else if (slot) {
        if (slot->kind != JINJA_NAMESPACE) {
            jinja_fail(j, "cannot assign attribute on non-namespace object");
        }
        jinja_dict_set(j, slot->dict, t->attr, v);
    } else {
        struct jinja_iter *it = jinja_iter_try(j, v);
        if (!it) {
            jinja_fail(j, "cannot unpack non-iterable %s object", jinja_value_type(v));
        }
        struct jinja_value *items = jinja_value_room(j, t->n), more;
        for (uint32_t i = 0; i < t->n; i++) {
            if (!jinja_iter_next(j, it, &items[i])) {
                jinja_fail(j, "not enough values to unpack (expected %u, got %u)", t->n, i);
            }
        }
        if (jinja_iter_next(j, it, &more)) {
            jinja_fail(j, "too many values to unpack (expected %u)", t->n);
        }
        for (uint32_t i = 0; i < t->n; i++) {
            assign(j, f, &t->items[i], items[i]);
        }
    }
}

/* What the body prints, as a value. False: a jump left it, and nothing was printed. */
static bool capture_body(struct jinja *j, struct jinja_frame *f, const struct jinja_stmt *s,
                         struct jinja_value *ret, enum flow *ret_flow)
{
    size_t mark = jinja_capture(j);
    enter_scope(j, f, &s->scope);
    *ret_flow = exec_body(j, f, s->body);
    if (*ret_flow != FLOW_ON) {
        j->out.len = mark;
        return false;
    }
    *ret = jinja_captured(j, mark);
    if (s->expr) {
        *ret = jinja_eval_filters(j, f, s->expr, *ret);
    }
    return true;
}

static enum flow exec_captured(struct jinja *j, struct jinja_frame *f, const struct jinja_stmt *s)
{
    enum flow flow;
    struct jinja_value v;
    if (capture_body(j, f, s, &v, &flow)) {
        if (s->kind == JINJA_STMT_SET_BLOCK) {
            assign(j, f, &s->target, v);
        } else {
            jinja_text_put(j, v);
        }
    }
    leave_scope(j, f, &s->scope);
    return flow;
}

static enum flow exec_with(struct jinja *j, struct jinja_frame *f, const struct jinja_stmt *s)
{
    enter_scope(j, f, &s->scope);
    for (uint32_t i = 0; i < s->with->n; i++) {
        assign(j, f, &s->with->targets[i], jinja_eval(j, f, s->with->values[i]));
    }
    enum flow flow = exec_body(j, f, s->body);
    leave_scope(j, f, &s->scope);
    return flow;
}

/* ---- for ---- */

struct tested { /* items that pass the test of a for statement */
    const struct jinja_for *loop;
    struct jinja_frame *outer, *own;
};

static bool next_tested(struct jinja *j, struct jinja_iter *it, struct jinja_value *ret)
{
    struct tested *t = it->state;
    if (!it->source) {
        it->source = jinja_iter_open(j, it->over);
        t->own = jinja_eval_frame(j, &t->loop->test_function, t->outer);
        enter_scope(j, t->own, &t->loop->test_scope);
    }
    while (jinja_iter_next(j, it->source, ret)) {
        assign(j, t->own, &t->loop->test_target, *ret);
        if (jinja_value_is_true(jinja_eval(j, t->own, t->loop->test))) {
            return true;
        }
    }
    return false;
}

static enum flow run_loop(struct jinja *j, struct jinja_frame *f, const struct jinja_stmt *s,
                          struct jinja_value over, int64_t depth0)
{
    const struct jinja_for *loop = s->loop;
    struct jinja_frame *own = loop->is_recursive ? jinja_eval_frame(j, &loop->function, f) : f;
    if (loop->test) {
        struct tested *t = jinja_alloc(j, sizeof(*t));
        *t = (struct tested){.loop = loop, .outer = f};
        over = jinja_iter_lazy(j, next_tested, over, t);
    }
    struct jinja_loop *l = jinja_loop_create(j, over, depth0);
    l->stmt = loop->is_recursive ? s : NULL;
    l->frame = f;
    struct jinja_value *variable = &own->slots[loop->name.slot], item;
    bool completed = false; /* one run of the body, up to its end */
    while (jinja_loop_next(j, l, &item)) {
        assign(j, own, &loop->target, item);
        *variable = (struct jinja_value){.kind = JINJA_LOOP, .loop = l};
        enter_scope(j, own, &s->scope);
        enum flow flow = exec_body(j, own, s->body);
        completed = completed || flow == FLOW_ON;
        if (flow == FLOW_BREAK) {
            break;
        }
    }
    leave_scope(j, own, &s->scope);
    enum flow flow = FLOW_ON;
    if (!completed && loop->otherwise.n) {
        enter_scope(j, own, &loop->otherwise_scope);
        flow = exec_body(j, own, loop->otherwise);
        leave_scope(j, own, &loop->otherwise_scope);
    }
    return flow;
}

struct jinja_value jinja_exec_recurse(struct jinja *j, const struct jinja_loop *l,
                                      const struct jinja_args *args)
{
    if (!l->stmt) {
        jinja_fail(j, "The loop must have the 'recursive' marker to be called recursively.");
    }
    if (args->n_pos != 1 || args->n_kw) {
        jinja_fail(j, "loop() takes one argument");
    }
    size_t mark = jinja_capture(j);
    enum flow flow = run_loop(j, l->frame, l->stmt, args->pos[0], l->depth0 + 1);
    ASSERT(flow == FLOW_ON); /* the parser lets no jump leave a function */
    return jinja_captured(j, mark);
}

/* ---- macros ---- */

static bool is_named(const struct jinja_keyword *kw, const struct jinja_name *name)
{
    return jinja_value_is_str(kw->name, name->s, name->n);
}

/* Takes the named argument that belongs to `name`; false when there is none. */
static bool take_keyword(struct jinja *j, const struct jinja_args *args, bool *taken,
                         const struct jinja_name *name, struct jinja_value *ret)
{
    jinja_step(j, args->n_kw);
    for (uint32_t i = 0; i < args->n_kw; i++) {
        if (!taken[i] && is_named(&args->kw[i], name)) {
            taken[i] = true;
            *ret = args->kw[i].value;
            return true;
        }
    }
    return false;
}

static void bind_rest(struct jinja *j, struct jinja_frame *f, const struct jinja_macro *m,
                      const struct jinja_args *args, const bool *taken)
{
    const struct jinja_def *def = m->stmt->macro;
    int n_name = (int)MIN(m->name.n, 100u);
    const char *name = m->name.s ? m->name.s : "caller";
    n_name = m->name.s ? n_name : 6;
    struct jinja_dict *rest = def->kwargs.s ? jinja_dict_create(j, args->n_kw) : NULL;
    for (uint32_t i = 0; i < args->n_kw; i++) {
        if (!taken[i] && !rest) {
            struct jinja_value kw = args->kw[i].name;
            jinja_fail(j, "macro '%.*s' takes no keyword argument '%.*s'", n_name, name,
                       (int)MIN(kw.n, 100u), kw.s);
        }
        if (!taken[i]) {
            jinja_dict_set(j, rest, args->kw[i].name, args->kw[i].value);
        }
    }
    if (rest) {
        f->slots[def->kwargs.slot] = jinja_dict_value(rest);
    }
    uint32_t n = MIN(args->n_pos, def->n_params);
    if (def->varargs.s) {
        f->slots[def->varargs.slot] = jinja_value_items(
            JINJA_TUPLE, n < args->n_pos ? args->pos + n : args->pos, args->n_pos - n);
    } else if (args->n_pos > n) {
        jinja_fail(j, "macro '%.*s' takes not more than %u argument(s)", n_name, name,
                   def->n_params);
    }
}

static void bind_macro(struct jinja *j, struct jinja_frame *f, const struct jinja_macro *m,
                       const struct jinja_args *args)
{
    const struct jinja_def *def = m->stmt->macro;
    bool *taken = jinja_array(j, args->n_kw, sizeof(*taken));
    for (uint32_t i = 0; i < def->n_params; i++) {
        const struct jinja_name *name = &def->params[i].name;
        if (i < args->n_pos) {
            f->slots[name->slot] = args->pos[i];
        } else {
            take_keyword(j, args, taken, name, &f->slots[name->slot]);
        }
    }
    if (def->caller.s && !def->has_caller_param) {
        struct jinja_value *caller = &f->slots[def->caller.slot];
        if (!take_keyword(j, args, taken, &def->caller, caller) || caller->kind == JINJA_NONE) {
            *caller = jinja_value_hint(j, "No caller defined");
        }
    }
    bind_rest(j, f, m, args, taken);
}

struct jinja_value jinja_exec_macro(struct jinja *j, const struct jinja_macro *m,
                                    const struct jinja_args *args)
{
    const struct jinja_stmt *s = m->stmt;
    const struct jinja_def *def = s->macro;
    struct jinja_frame *f = jinja_eval_frame(j, &def->function, m->frame);
    bind_macro(j, f, m, args);
    enter_scope(j, f, &s->scope);
    for (uint32_t i = 0; i < def->n_params; i++) {
        const struct jinja_parameter *param = &def->params[i];
        struct jinja_value *slot = &f->slots[param->name.slot];
        if (slot->kind != JINJA_MISSING) {
            continue;
        }
        *slot = param->def ? jinja_eval(j, f, param->def)
                           : jinja_value_hint(j, "parameter '%.*s' was not provided",
                                              (int)MIN(param->name.n, 100u), param->name.s);
    }
    size_t mark = jinja_capture(j);
    enum flow flow = exec_body(j, f, s->body);
    ASSERT(flow == FLOW_ON); /* the parser lets no jump leave a function */
    return jinja_captured(j, mark);
}

static struct jinja_value make_macro(struct jinja *j, struct jinja_frame *f,
                                     const struct jinja_stmt *s)
{
    struct jinja_macro *m = jinja_alloc(j, sizeof(*m));
    *m = (struct jinja_macro){.stmt = s, .frame = f};
    if (s->kind == JINJA_STMT_MACRO) {
        m->name = jinja_value_str(s->macro->name.s, s->macro->name.n);
    }
    return (struct jinja_value){.kind = JINJA_MACRO, .macro = m};
}

static void exec_call(struct jinja *j, struct jinja_frame *f, const struct jinja_stmt *s)
{
    struct jinja_value caller = make_macro(j, f, s);
    if (s->expr) {
        jinja_text_put(j, jinja_eval_call(j, f, s->expr, caller));
    } else { /* {% generation %} */
        jinja_text_put(j, jinja_call_value(j, caller, &(struct jinja_args){0}));
    }
}

/* ---- all ---- */

static enum flow exec_if(struct jinja *j, struct jinja_frame *f, const struct jinja_stmt *s)
{
    for (uint32_t i = 0; i < s->n_branches; i++) {
        const struct jinja_branch *b = &s->branches[i];
        if (!b->test || jinja_value_is_true(jinja_eval(j, f, b->test))) {
            return exec_body(j, f, b->body);
        }
    }
    return FLOW_ON;
}

static enum flow exec_stmt(struct jinja *j, struct jinja_frame *f, const struct jinja_stmt *s)
{
    switch (s->kind) {
    case JINJA_STMT_TEXT:
        jinja_put(j, s->text.s, s->text.n);
        return FLOW_ON;
    case JINJA_STMT_PRINT:
        jinja_text_put(j, jinja_eval(j, f, s->expr));
        return FLOW_ON;
    case JINJA_STMT_IF:
        return exec_if(j, f, s);
    case JINJA_STMT_FOR:
        return run_loop(j, f, s, jinja_eval(j, f, s->expr), 0);
    case JINJA_STMT_SET:
        assign(j, f, &s->target, jinja_eval(j, f, s->expr));
        return FLOW_ON;
    case JINJA_STMT_SET_BLOCK:
    case JINJA_STMT_FILTER:
        return exec_captured(j, f, s);
    case JINJA_STMT_MACRO:
        *jinja_eval_slot(f, s->macro->name.hops, s->macro->name.slot) = make_macro(j, f, s);
        return FLOW_ON;
    case JINJA_STMT_CALL:
        exec_call(j, f, s);
        return FLOW_ON;
    case JINJA_STMT_WITH:
        return exec_with(j, f, s);
    case JINJA_STMT_BREAK:
        return FLOW_BREAK;
    case JINJA_STMT_CONTINUE:
        return FLOW_CONTINUE;
    }
    return FLOW_ON;
}

static enum flow exec_body(struct jinja *j, struct jinja_frame *f, struct jinja_body b)
{
    enum flow flow = FLOW_ON;
    jinja_enter(j);
    for (uint32_t i = 0; i < b.n && flow == FLOW_ON; i++) {
        jinja_step(j, 1);
        j->line = b.stmts[i]->line;
        flow = exec_stmt(j, f, b.stmts[i]);
    }
    jinja_exit(j);
    return flow;
}

void jinja_exec(struct jinja *j, const struct jinja_template *t)
{
    struct jinja_frame *f = jinja_eval_frame(j, &t->function, NULL);
    enter_scope(j, f, &t->scope);
    enum flow flow = exec_body(j, f, t->body);
    ASSERT(flow == FLOW_ON); /* the parser lets no jump leave a function */
}
