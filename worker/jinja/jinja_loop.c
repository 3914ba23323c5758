/* The state of a for statement. Memory is the render's arena. */
#include "worker/jinja/jinja_loop.h"

#include <string.h>

struct jinja_loop *jinja_loop_create(struct jinja *j, struct jinja_value over, int64_t depth0)
{
    struct jinja_loop *l = jinja_alloc(j, sizeof(*l));
    *l = (struct jinja_loop){.over = over, .index0 = -1, .length = -1, .depth0 = depth0};
    l->it = jinja_iter_open(j, over);
    return l;
}

bool jinja_loop_next(struct jinja *j, struct jinja_loop *l, struct jinja_value *ret)
{
    struct jinja_value v = l->after;
    if (v.kind != JINJA_MISSING) {
        l->after.kind = JINJA_MISSING;
    } else if (!jinja_iter_next(j, l->it, &v)) {
        return false;
    }
    l->index0++;
    l->before = l->current;
    l->current = v;
    *ret = v;
    return true;
}

static bool peek(struct jinja *j, struct jinja_loop *l)
{
    struct jinja_value v;
    if (l->after.kind == JINJA_MISSING && jinja_iter_next(j, l->it, &v)) {
        l->after = v;
    }
    return l->after.kind != JINJA_MISSING;
}

int64_t jinja_loop_length(struct jinja *j, struct jinja_loop *l)
{
    if (l->length < 0 && !jinja_value_length(j, l->over, &l->length)) {
        struct jinja_value rest = jinja_iter_rest(j, l->it);
        l->it = jinja_iter_open(j, rest);
        l->length = l->index0 + 1 + rest.n + (l->after.kind != JINJA_MISSING);
    }
    return l->length;
}

bool jinja_loop_attr(struct jinja *j, struct jinja_loop *l, const char *name, size_t n,
                     struct jinja_value *ret)
{
    struct jinja_value is = jinja_value_str(name, n);
#define NAMED(s) jinja_value_is_str(is, s, sizeof(s) - 1)
    if (NAMED("index")) {
        *ret = jinja_value_int(l->index0 + 1);
    } else if (NAMED("index0")) {
        *ret = jinja_value_int(l->index0);
    } else if (NAMED("first")) {
        *ret = jinja_value_bool(l->index0 == 0);
    } else if (NAMED("last")) {
        *ret = jinja_value_bool(!peek(j, l));
    } else if (NAMED("length")) {
        *ret = jinja_value_int(jinja_loop_length(j, l));
    } else if (NAMED("revindex")) {
        *ret = jinja_value_int(jinja_loop_length(j, l) - l->index0);
    } else if (NAMED("revindex0")) {
        *ret = jinja_value_int(jinja_loop_length(j, l) - l->index0 - 1);
    } else if (NAMED("previtem")) {
        *ret = l->index0 == 0 ? jinja_value_hint(j, "there is no previous item") : l->before;
    } else if (NAMED("nextitem")) {
        *ret = peek(j, l) ? l->after : jinja_value_hint(j, "there is no next item");
    } else if (NAMED("depth")) {
        *ret = jinja_value_int(l->depth0 + 1);
    } else if (NAMED("depth0")) {
        *ret = jinja_value_int(l->depth0);
    } else {
        return false;
    }
#undef NAMED
    return true;
}

static struct jinja_value loop_cycle(struct jinja *j, struct jinja_value self,
                                     const struct jinja_value *arg, const struct jinja_args *args)
{
    (void)arg;
    if (args->n_pos == 0 || args->n_kw) {
        jinja_fail(j, "loop.cycle() needs items");
    }
    return args->pos[self.loop->index0 % args->n_pos];
}

static struct jinja_value loop_changed(struct jinja *j, struct jinja_value self,
                                       const struct jinja_value *arg, const struct jinja_args *args)
{
    (void)arg;
    struct jinja_value now = jinja_value_items(JINJA_TUPLE, args->pos, args->n_pos);
    struct jinja_loop *l = self.loop;
    if (l->changed.kind != JINJA_MISSING && jinja_value_equal(j, l->changed, now)) {
        return jinja_value_bool(false);
    }
    l->changed = now;
    return jinja_value_bool(true);
}

const struct jinja_builtin jinja_loop_methods[] = {
    {"cycle", "*", loop_cycle},
    {"changed", "*", loop_changed},
};
const size_t jinja_loop_n_methods = COUNT_OF(jinja_loop_methods);
