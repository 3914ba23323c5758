/* Scopes, by the rules of jinja2/idtracking.py. The template, every loop, macro, call block, with,
 * filter block and set block has a scope; an if has none. A scope owns a name when it stores to it,
 * or when it reads it and no scope around knows it; what an owned name is when the scope is entered
 * depends on how it first occurs:
 *   read first                        -> what the context says
 *   stored, and a scope around has it -> that variable's value
 *   stored within an if               -> what the context says
 *   stored at all events              -> nothing yet
 * A scope's names are known in full before the scopes within it are looked at. */
#include "worker/jinja/jinja_scope.h"
#include "worker/jinja/jinja_dict.h"

#include <string.h>

struct function { /* while resolving */
    struct jinja_function *f;
    struct function *outer;
    struct jinja_dict *slots; /* (level, name id) -> slot */
};

struct scope {
    struct scope *outer;
    struct function *function;
    uint32_t level;
    bool conditional;         /* the place at hand is within an if */
    struct jinja_dict *names; /* name id -> index into inits */
    struct jinja_init *inits;
    uint32_t cap_inits;
    struct jinja_name **uses;  /* names to resolve when the scope is known */
    struct jinja_stmt **inner; /* statements with scopes of their own */
    uint32_t n_uses, cap_uses, n_inner, cap_inner;
};

static void *grow(struct jinja *j, void *items, uint32_t n, uint32_t *cap, size_t bytes)
{
    if (n < *cap) {
        return items;
    }
    *cap = *cap ? *cap * 2 : 8;
    void *more = jinja_array(j, *cap, bytes);
    if (n) {
        memcpy(more, items, n * bytes);
    }
    return more;
}

static struct jinja_init *own(struct jinja *j, struct scope *s, uint32_t id)
{
    struct jinja_value *i = jinja_dict_get(j, s->names, jinja_value_int(id));
    return i ? &s->inits[i->i] : NULL;
}

/* The init of the nearest scope from s outwards that knows the name, and how far that is. */
static struct jinja_init *find(struct jinja *j, struct scope *s, uint32_t id, uint32_t *ret_hops)
{
    uint32_t hops = 0;
    for (; s; s = s->outer) {
        jinja_step(j, 1);
        struct jinja_init *init = own(j, s, id);
        if (init) {
            *ret_hops = hops;
            return init;
        }
        hops += s->outer && s->outer->function != s->function;
    }
    return NULL;
}

static void declare(struct jinja *j, struct scope *s, uint32_t id, struct jinja_init init)
{
    struct function *f = s->function;
    struct jinja_value key = jinja_value_int((int64_t)s->level << 32 | id);
    struct jinja_value *slot = jinja_dict_get(j, f->slots, key);
    if (slot) {
        init.slot = (uint32_t)slot->i;
    } else {
        init.slot = f->f->n_slots++;
        jinja_dict_add(j, f->slots, key, jinja_value_int(init.slot));
    }
    uint32_t n = s->names->n;
    s->inits = grow(j, s->inits, n, &s->cap_inits, sizeof(*s->inits));
    s->inits[n] = init;
    jinja_dict_add(j, s->names, jinja_value_int(id), jinja_value_int(n));
}

static void use(struct jinja *j, struct scope *s, struct jinja_name *name)
{
    s->uses = grow(j, s->uses, s->n_uses, &s->cap_uses, sizeof(*s->uses));
    s->uses[s->n_uses++] = name;
}

static void load(struct jinja *j, struct scope *s, struct jinja_name *name)
{
    uint32_t hops;
    if (!find(j, s, name->id, &hops)) {
        declare(j, s, name->id, (struct jinja_init){.kind = JINJA_INIT_CONTEXT, .from = name->id});
    }
    use(j, s, name);
}

static void store(struct jinja *j, struct scope *s, struct jinja_name *name)
{
    uint32_t hops = 0;
    if (!own(j, s, name->id)) {
        struct jinja_init *outer = s->outer ? find(j, s->outer, name->id, &hops) : NULL;
        struct jinja_init init = {.kind = JINJA_INIT_MISSING};
        if (outer) {
            hops += s->outer->function != s->function;
            init = (struct jinja_init){.kind = JINJA_INIT_OUTER, .from = outer->slot, .hops = hops};
        } else if (s->conditional) {
            init = (struct jinja_init){.kind = JINJA_INIT_CONTEXT, .from = name->id};
        }
        declare(j, s, name->id, init);
    }
    use(j, s, name);
}

static void param(struct jinja *j, struct scope *s, struct jinja_name *name)
{
    if (!own(j, s, name->id)) {
        declare(j, s, name->id, (struct jinja_init){.kind = JINJA_INIT_PARAM});
    }
    use(j, s, name);
}

static void target(struct jinja *j, struct scope *s, struct jinja_target *t, bool is_param)
{
    if (t->items) {
        for (uint32_t i = 0; i < t->n; i++) {
            target(j, s, &t->items[i], is_param);
        }
    } else if (t->attr.kind != JINJA_MISSING) {
        load(j, s, &t->name);
    } else if (is_param) {
        param(j, s, &t->name);
    } else {
        store(j, s, &t->name);
    }
}

static void expr(struct jinja *j, struct scope *s, struct jinja_expr *e);

static void arguments(struct jinja *j, struct scope *s, struct jinja_arguments *a)
{
    for (uint32_t i = 0; i < a->n_pos; i++) {
        expr(j, s, a->pos[i]);
    }
    for (uint32_t i = 0; i < a->n_kw; i++) {
        expr(j, s, a->kw[i].value);
    }
    expr(j, s, a->star);
    expr(j, s, a->star_star);
}

static void expr(struct jinja *j, struct scope *s, struct jinja_expr *e)
{
    if (!e || e->kind == JINJA_EXPR_CONSTANT) {
        return;
    }
    if (e->kind == JINJA_EXPR_NAME) {
        load(j, s, &e->name);
        return;
    }
    for (uint32_t i = 0; i < e->n; i++) {
        expr(j, s, e->items[i]);
    }
    for (uint32_t i = 0; i < e->n_links; i++) {
        for (int part = 0; part < 3; part++) {
            expr(j, s, e->links[i].part[part]);
        }
        if (e->links[i].arguments) {
            arguments(j, s, e->links[i].arguments);
        }
    }
}

/* What of the statements belongs to the scope they stand in. */
static void outside(struct jinja *j, struct scope *s, struct jinja_body body)
{
    for (uint32_t i = 0; i < body.n; i++) {
        struct jinja_stmt *st = body.stmts[i];
        bool conditional = s->conditional, has_scope = true;
        switch (st->kind) {
        case JINJA_STMT_IF:
            for (uint32_t b = 0; b < st->n_branches; b++) {
                expr(j, s, st->branches[b].test);
                s->conditional = true;
                outside(j, s, st->branches[b].body);
            }
            s->conditional = conditional;
            has_scope = false;
            break;
        case JINJA_STMT_SET:
            expr(j, s, st->expr);
            target(j, s, &st->target, false);
            has_scope = false;
            break;
        case JINJA_STMT_SET_BLOCK:
            target(j, s, &st->target, false);
            break;
        case JINJA_STMT_MACRO:
            store(j, s, &st->macro->name);
            break;
        case JINJA_STMT_WITH:
            for (uint32_t w = 0; w < st->with->n; w++) {
                expr(j, s, st->with->values[w]);
            }
            break;
        case JINJA_STMT_FOR:
        case JINJA_STMT_CALL:
            expr(j, s, st->expr);
            break;
        case JINJA_STMT_FILTER:
            break;
        default:
            expr(j, s, st->expr);
            has_scope = false;
        }
        if (has_scope) {
            s->inner = grow(j, s->inner, s->n_inner, &s->cap_inner, sizeof(*s->inner));
            s->inner[s->n_inner++] = st;
        }
    }
}

static void inside(struct jinja *j, struct scope *s, struct jinja_stmt *st);

static struct scope begin(struct jinja *j, struct scope *outer, struct function *f)
{
    return (struct scope){.outer = outer,
                          .function = f,
                          .level = outer ? outer->level + 1 : 0,
                          .names = jinja_dict_create(j, 0)};
}

static struct function begin_function(struct jinja *j, struct function *outer,
                                      struct jinja_function *f)
{
    return (struct function){.f = f, .outer = outer, .slots = jinja_dict_create(j, 0)};
}

/* Everything of the scope has been seen: names get their slots, then come the scopes within. */
static struct jinja_scope end(struct jinja *j, struct scope *s)
{
    for (uint32_t i = 0; i < s->n_uses; i++) {
        struct jinja_init *init = find(j, s, s->uses[i]->id, &s->uses[i]->hops);
        ASSERT(init); /* load and store declare what they do not find */
        s->uses[i]->slot = init->slot;
    }
    for (uint32_t i = 0; i < s->n_inner; i++) {
        inside(j, s, s->inner[i]);
    }
    return (struct jinja_scope){s->names->n, s->inits};
}

static void inside_for(struct jinja *j, struct scope *outer, struct jinja_stmt *st)
{
    struct function own_function = begin_function(j, outer->function, &st->loop->function);
    struct function *f = st->loop->is_recursive ? &own_function : outer->function;
    struct scope s = begin(j, outer, f);
    param(j, &s, &st->loop->name);
    target(j, &s, &st->loop->target, true);
    outside(j, &s, st->body);
    st->scope = end(j, &s);
    s = begin(j, outer, f);
    outside(j, &s, st->loop->otherwise);
    st->loop->otherwise_scope = end(j, &s);
    if (st->loop->test) {
        struct function test = begin_function(j, outer->function, &st->loop->test_function);
        s = begin(j, outer, &test);
        target(j, &s, &st->loop->test_target, true);
        expr(j, &s, st->loop->test);
        st->loop->test_scope = end(j, &s);
    }
}

static void inside_function(struct jinja *j, struct scope *outer, struct jinja_stmt *st)
{
    struct function f = begin_function(j, outer->function, &st->macro->function);
    struct scope s = begin(j, outer, &f);
    for (uint32_t i = 0; i < st->macro->n_params; i++) {
        param(j, &s, &st->macro->params[i].name);
    }
    struct jinja_name *special[] = {&st->macro->caller, &st->macro->kwargs, &st->macro->varargs};
    for (size_t i = 0; i < COUNT_OF(special); i++) {
        if (special[i]->s) {
            param(j, &s, special[i]);
        }
    }
    for (uint32_t i = 0; i < st->macro->n_params; i++) {
        expr(j, &s, st->macro->params[i].def);
    }
    outside(j, &s, st->body);
    st->scope = end(j, &s);
}

static void inside(struct jinja *j, struct scope *outer, struct jinja_stmt *st)
{
    if (st->kind == JINJA_STMT_FOR) {
        inside_for(j, outer, st);
    } else if (st->kind == JINJA_STMT_MACRO || st->kind == JINJA_STMT_CALL) {
        inside_function(j, outer, st);
    } else {
        struct scope s = begin(j, outer, outer->function);
        for (uint32_t i = 0; st->kind == JINJA_STMT_WITH && i < st->with->n; i++) {
            target(j, &s, &st->with->targets[i], true);
        }
        outside(j, &s, st->body);
        if (st->kind != JINJA_STMT_WITH) {
            expr(j, &s, st->expr); /* the filters see what the body set */
        }
        st->scope = end(j, &s);
    }
}

void jinja_scope_resolve(struct jinja *j, struct jinja_template *t)
{
    struct function f = begin_function(j, NULL, &t->function);
    struct scope s = begin(j, NULL, &f);
    outside(j, &s, t->body);
    t->scope = end(j, &s);
}
