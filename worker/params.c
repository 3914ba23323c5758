/* Copies of small parameters (see params.h). Runs once, on the thread that opens a model; reads the
 * file. */
#include "worker/params.h"
#include "worker/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { COPY_BYTES = 256 << 10 };

struct copies {
    struct program *p;
    const struct gguf *g;
    const char **at; /* by tensor: its copy; NULL: none yet */
    struct err *e;
    int status;
};

static const char *copy_of(struct copies *c, size_t i)
{
    const struct gguf_tensor *t = &c->g->tensors[i];
    if (!c->at[i] && c->status == 0) {
        c->status = memory_check_file(t->data, t->n_bytes, c->e);
        char *copy = c->status == 0 ? arena_alloc(&c->p->arena, t->n_bytes) : NULL;
        if (copy) {
            c->at[i] = memcpy(copy, t->data, t->n_bytes);
        } else if (c->status == 0) {
            c->status = err_set(c->e, -ENOMEM, "parameters of %s", t->name);
        }
    }
    return c->at[i];
}

static void move(struct copies *c, const float **v)
{
    for (size_t i = 0; *v && i < c->g->n_tensors; i++) {
        const struct gguf_tensor *t = &c->g->tensors[i];
        uintptr_t offset = (uintptr_t)*v - (uintptr_t)t->data;
        if (offset < t->n_bytes) {
            const char *copy = t->n_bytes <= COPY_BYTES ? copy_of(c, i) : NULL;
            *v = copy ? (const float *)(const void *)(copy + offset) : *v;
            return;
        }
    }
}

static void move_all(struct copies *c, struct op *op)
{
    switch (op->code) {
#define OP_IN(x)
#define OP_OUT(x)
#define OP_VEC(x) move(c, &o->x);
#define OP_VEC64(x)
#define OP_MAT(x)
#define OP_INT(x)
#define OP_NUM(x)
#define OP(name, limit, fields)                                                                    \
    case OP_##name: {                                                                              \
        struct op_##name *o = &op->u.name;                                                         \
        (void)o;                                                                                   \
        fields break;                                                                              \
    }
#include "kernels/ops.def"
#undef OP
#undef OP_IN
#undef OP_OUT
#undef OP_VEC
#undef OP_VEC64
#undef OP_MAT
#undef OP_INT
#undef OP_NUM
    case OP_COUNT:
        break;
    }
}

int params_copy(struct program *p, const struct gguf *g, struct err *e)
{
    struct copies c = {.p = p, .g = g, .e = e};
    c.at = calloc(g->n_tensors + 1, sizeof *c.at);
    if (!c.at) {
        return err_set(e, -ENOMEM, "parameters");
    }
    for (size_t i = 0; i < p->n_ops && c.status == 0; i++) {
        move_all(&c, &p->ops[i]);
    }
    free((void *)c.at);
    return c.status;
}
