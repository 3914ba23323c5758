/* Chat templates: parsed once, when a model is loaded; rendered for each request. Any thread of the
 * worker; nothing blocks. The interpreter is in worker/jinja; here are its two entries. */
#include "worker/template.h"
#include "shared/limits.h"
#include "worker/jinja/jinja_exec.h"
#include "worker/jinja/jinja_global.h"
#include "worker/jinja/jinja_parse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct template
{
    struct jinja jinja; /* owns the tree */
    const struct jinja_template *tree;
};

/* The functions with setjmp change nothing of their own, so all is defined after the jump. */
static int parse(struct template *t, const char *source, size_t n)
{
    if (setjmp(t->jinja.leave)) {
        return t->jinja.code;
    }
    t->tree = jinja_parse(&t->jinja, source, n);
    return 0;
}

int template_create(const char *source, size_t n, struct template **ret, struct err *e)
{
    if (n > LIMIT_TEMPLATE_BYTES) {
        return err_set(e, ERR_TEMPLATE, "a template of %zu bytes, allowed %d", n,
                       LIMIT_TEMPLATE_BYTES);
    }
    struct template *t = calloc(1, sizeof(*t));
    if (!t) {
        return err_set(e, -ENOMEM, "for a chat template");
    }
    jinja_init(&t->jinja, LIMIT_TEMPLATE_STEPS, e);
    int rc = parse(t, source, n);
    buf_finish(&t->jinja.out);
    t->jinja.err = NULL;
    if (rc < 0) {
        template_destroy(&t);
        return rc;
    }
    *ret = t;
    return 0;
}

void template_destroy(struct template **t)
{
    if (*t) {
        jinja_finish(&(*t)->jinja);
        free(*t);
        *t = NULL;
    }
}

/* What every name of the template means at first: the request's, else ours. */
static void look_up_names(struct jinja *j, const struct jinja_template *tree, const json_t *context)
{
    j->names = jinja_value_room(j, tree->n_names);
    for (uint32_t i = 0; i < tree->n_names; i++) {
        struct jinja_value name = tree->names[i];
        const json_t *v = json_object_getn(context, name.s, name.n);
        j->names[i] = v ? jinja_value_from_json(j, v) : jinja_global_find(name.s, name.n);
    }
}

static int render(struct jinja *j, const struct jinja_template *tree, const json_t *context)
{
    if (setjmp(j->leave)) {
        return j->code;
    }
    look_up_names(j, tree, context);
    jinja_exec(j, tree);
    return 0;
}

int template_render(const struct template *t, const json_t *context, int64_t now_unix_s,
                    struct buf *ret, struct err *e)
{
    struct jinja j;
    jinja_init(&j, LIMIT_TEMPLATE_STEPS, e);
    j.now_unix_s = now_unix_s;
    int rc = render(&j, t->tree, context);
    if (rc == 0 && !ret->data && !ret->limit) { /* hand over what may be large */
        *ret = j.out;
        ret->limit = 0;
        j.out = (struct buf){0};
    } else if (rc == 0) {
        buf_add(ret, j.out.data ? j.out.data : "", j.out.len);
        if (ret->failed) {
            rc = err_set(e, -ENOMEM, "for a prompt of %zu bytes", j.out.len);
        }
    }
    jinja_finish(&j);
    return rc;
}
