/* Programs: building blocks, matrices, running. Owned and run by the token loop's thread; preparing
 * and running use the pool. Nothing here allocates once program_link is done. */
#include "worker/program_use.h"

#include "shared/buf.h"
#include "shared/num.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void program_init(struct program *p)
{
    *p = (struct program){.result = {.buf = -1}};
    arena_init(&p->arena, 0);
}

void program_finish(struct program *p)
{
    free(p->ops);
    free(p->bufs);
    free(p->weights);
    free(p->kv);
    free(p->states);
    arena_finish(&p->arena);
    *p = (struct program){0};
}

/* Appends one zeroed item to an array that doubles; NULL without memory. */
static void *append(void *array_at, size_t *n, size_t *cap, size_t item_bytes)
{
    char **array = array_at;
    if (*n == *cap) {
        size_t new_cap = *cap ? 2 * *cap : 64;
        char *grown = reallocarray(*array, new_cap, item_bytes);
        if (!grown) {
            return NULL;
        }
        *array = grown;
        *cap = new_cap;
    }
    return memset(*array + (*n)++ * item_bytes, 0, item_bytes);
}

int program_add_buffer(struct program *p, const char *name, int layer, int64_t n_cols, int64_t mult,
                       bool is_out)
{
    struct program_buffer *b = append(&p->bufs, &p->n_bufs, &p->cap_bufs, sizeof *b);
    if (!b) {
        return -ENOMEM;
    }
    *b = (struct program_buffer){.name = name,
                                 .layer = layer,
                                 .n_cols = (int32_t)n_cols,
                                 .mult = (int32_t)mult,
                                 .is_out = is_out};
    return (int)p->n_bufs - 1;
}

int program_add_op(struct program *p, const struct op *op)
{
    struct op *to = append(&p->ops, &p->n_ops, &p->cap_ops, sizeof *to);
    if (!to) {
        return -ENOMEM;
    }
    *to = *op;
    return (int)p->n_ops - 1;
}

int program_add_weights(struct program *p, const char *name, struct matmul_weight *w, int64_t n)
{
    struct program_weights *to = append(&p->weights, &p->n_weights, &p->cap_weights, sizeof *to);
    if (!to) {
        return -ENOMEM;
    }
    *to = (struct program_weights){.w = w, .n = (int32_t)n, .name = name};
    return (int)p->n_weights - 1;
}

int program_add_kv(struct program *p, const struct kv_layer *l)
{
    struct kv_layer *to = append(&p->kv, &p->n_kv, &p->cap_kv, sizeof *to);
    if (!to) {
        return -ENOMEM;
    }
    *to = *l;
    return (int)p->n_kv - 1;
}

int program_add_state(struct program *p, int64_t floats)
{
    struct op_state *to = append(&p->states, &p->n_states, &p->cap_states, sizeof *to);
    if (!to) {
        return -ENOMEM;
    }
    to->slot_floats = floats;
    return (int)p->n_states - 1;
}

struct op_rows program_rows(const struct program *p, int buf)
{
    return (struct op_rows){.buf = buf, .n = p->bufs[buf].n_cols};
}

void program_visit(struct op *op, program_visit_fn *fn, void *arg)
{
    switch (op->code) {
#define OP_IN(x)                                                                                   \
    if (o->x.buf >= 0) {                                                                           \
        fn(arg, &o->x, false);                                                                     \
    }
#define OP_OUT(x) fn(arg, &o->x, true);
#define OP_VEC(x)
#define OP_VEC64(x)
#define OP_MAT(x)
#define OP_INT(x)
#define OP_NUM(x)
#define OP(name, limit, fields)                                                                    \
    case OP_##name: {                                                                              \
        struct op_##name *o = &op->u.name;                                                         \
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

struct redirection {
    int32_t from, to;
};

static void redirect_input(void *arg, struct op_rows *r, bool is_out)
{
    const struct redirection *d = arg;
    if (!is_out && r->buf == d->from) {
        r->buf = d->to;
    }
}

void program_redirect(struct program *p, size_t first, int32_t from, int32_t to)
{
    struct redirection d = {from, to};
    for (size_t i = first; i < p->n_ops; i++) {
        program_visit(&p->ops[i], redirect_input, &d);
    }
}

/* --- matrices ----------------------------------------------------------------------------------*/

static uint64_t weights_bytes(const struct program_weights *w)
{
    return (uint64_t)w->n * (uint64_t)w->w->n_rows * w->w->row_bytes;
}

uint64_t program_weight_bytes(const struct program *p)
{
    uint64_t n = 0;
    for (size_t i = 0; i < p->n_weights; i++) {
        n += weights_bytes(&p->weights[i]);
    }
    return n;
}

int program_describe_weights(struct program *p, enum isa isa, struct err *e)
{
    for (size_t i = 0; i < p->n_weights; i++) {
        struct program_weights *pw = &p->weights[i];
        for (int32_t k = 0; k < pw->n && pw->place == OP_ON_CPU; k++) {
            struct matmul_weight *w = &pw->w[k];
            int err = matmul_describe(w, w->type, isa, w->n_rows, w->n_cols, w->data);
            if (err < 0) {
                return err_set(e, err, "tensor '%s' (%s)", pw->name,
                               type_info((uint32_t)w->type)->name);
            }
        }
    }
    return 0;
}

/* --- running -----------------------------------------------------------------------------------*/

/* The number of rows an op runs over is that of its output. kv_write has none: tokens. */
static int64_t op_rows_of(const struct program *p, const struct op *op, int64_t n_rows,
                          int64_t n_out)
{
    int out = program_output(op);
    if (out < 0) {
        return n_rows;
    }
    return program_buffer_rows(p, out, n_rows, n_out);
}

bool program_run_op(const struct program *p, size_t i, const struct op_step *s, int64_t n_out)
{
    int64_t n = op_rows_of(p, &p->ops[i], s->n_rows, n_out);
    if (n > 0) {
        if (s->op_mark) {
            atomic_store_explicit(s->op_mark, (uint32_t)i + 1, memory_order_relaxed);
        }
        ops_run(&p->ops[i], s, n);
    }
    return n > 0;
}

void program_run(const struct program *p, const struct op_step *s, int64_t n_out)
{
    for (size_t i = 0; i < p->n_ops; i += 1u + p->ops[i].n_joined) {
        program_run_op(p, i, s, n_out);
    }
}

/* --- text --------------------------------------------------------------------------------------*/

struct printer {
    const struct program *p;
    struct buf *ret;
    bool want_out, is_first;
};

static void print_rows(void *arg, struct op_rows *r, bool is_out)
{
    struct printer *pr = arg;
    if (is_out != pr->want_out) {
        return;
    }
    const struct program_buffer *b = &pr->p->bufs[r->buf];
    buf_printf(pr->ret, "%s%s.%d", pr->is_first ? "" : ", ", b->name, (int)r->buf);
    if (r->n != b->n_cols) {
        buf_printf(pr->ret, "[%d:%d]", (int)r->col, (int)(r->col + r->n));
    }
    pr->is_first = false;
}

void program_print(const struct program *p, struct buf *ret)
{
    int n_joined = 0;
    for (size_t i = 0; i < p->n_ops; i++) {
        struct op op = p->ops[i];
        struct printer pr = {p, ret, true, true};
        buf_printf(ret, "%4zu%c", i, n_joined > 0 ? '+' : ' ');
        n_joined = op.n_joined > 0 ? op.n_joined : MAX(n_joined - 1, 0);
        if (op.layer >= 0) {
            buf_printf(ret, "layer %-3d ", op.layer);
        } else {
            buf_str(ret, "          ");
        }
        program_visit(&op, print_rows, &pr);
        buf_printf(ret, " = %s(", ops_name(op.code));
        pr.want_out = false;
        pr.is_first = true;
        program_visit(&op, print_rows, &pr);
        buf_str(ret, ")\n");
    }
}
