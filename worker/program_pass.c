/* Passes that rewrite a program after it was built. Pure; run once at load, in the order of
 * program_compile. Each keeps the rule that every buffer is written by one op, before all
 * readers. */
#include "worker/program_use.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- sums --------------------------------------------------------------------------------------*/

/* Where an op can add a further row to its result, free yet; NULL: it cannot. */
static struct op_rows *summand_of(struct op *op)
{
    struct op_rows *add = op->code == OP_matmul    ? &op->u.matmul.add
                          : op->code == OP_combine ? &op->u.combine.add
                                                   : NULL;
    return add && add->buf < 0 ? add : NULL;
}

/* add(x, matmul(y)) becomes matmul(y) + x: one op and one trip through memory less. */
static int fuse_add(struct program *p)
{
    struct program_use *use = program_find_uses(p);
    if (!use) {
        return -ENOMEM;
    }
    size_t n = 0;
    for (size_t i = 0; i < p->n_ops; i++) {
        struct op *op = &p->ops[i];
        struct op_add *add = &op->u.add;
        if (op->code == OP_add && add->a_scale == 1.0f && add->b_scale == 1.0f) {
            struct op_rows *product = &add->b, *other = &add->a;
            struct op *writer = &p->ops[use[product->buf].writer];
            if (!summand_of(writer)) {
                product = &add->a;
                other = &add->b;
                writer = &p->ops[use[product->buf].writer];
            }
            bool is_whole = product->n == p->bufs[product->buf].n_cols &&
                            other->n == p->bufs[other->buf].n_cols;
            struct op moved = *writer;
            struct op_rows *summand = summand_of(&moved);
            if (summand && is_whole && use[product->buf].n_readers == 1 &&
                moved.place == op->place) {
                /* The product moves here, where the other summand is certain to stand. */
                *summand = *other;
                *(moved.code == OP_matmul ? &moved.u.matmul.y : &moved.u.combine.y) = add->y;
                *op = moved;
                writer->code = OP_COUNT;
            }
        }
    }
    for (size_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].code != OP_COUNT) {
            p->ops[n++] = p->ops[i];
        }
    }
    p->n_ops = n;
    free(use);
    return 0;
}

/* --- rows that want logits ---------------------------------------------------------------------*/

/* Each row of the output depends on the same row of the inputs and on nothing else. */
static bool is_row_wise(enum op_code code)
{
    switch (code) {
    case OP_norm:
    case OP_matmul:
    case OP_heads:
    case OP_rope:
    case OP_glu:
    case OP_add:
    case OP_scale:
    case OP_copy:
    case OP_concat:
    case OP_route:
    case OP_order:
    case OP_dispatch:
    case OP_experts:
    case OP_combine:
        return true;
    default:
        return false;
    }
}

struct demand { /* of each buffer: whether all its readers run over the rows that want logits */
    const struct program *p;
    bool *is_wanted_whole;
    bool reader_is_out;
};

static void note_demand(void *arg, struct op_rows *r, bool is_out)
{
    struct demand *d = arg;
    if (!is_out && !d->reader_is_out) {
        d->is_wanted_whole[r->buf] = true;
    }
}

/* From the end: what only the rows that want logits need, is computed for them only. */
static void narrow(struct program *p, bool *is_wanted_whole)
{
    for (size_t i = p->n_ops; i-- > 0;) {
        int out = program_output(&p->ops[i]);
        if (out >= 0 && is_row_wise(p->ops[i].code) && !is_wanted_whole[out]) {
            p->bufs[out].is_out = true;
        }
        struct demand d = {p, is_wanted_whole, out >= 0 && p->bufs[out].is_out};
        program_visit(&p->ops[i], note_demand, &d);
    }
}

struct gathering {
    struct program *p;
    int32_t *copy_of; /* per buffer: its gathered copy; -1: none yet */
    uint8_t *place_of; /* per buffer: where it is written */
    int err;
};

static void gather_input(void *arg, struct op_rows *r, bool is_out)
{
    struct gathering *g = arg;
    const struct program_buffer *b = &g->p->bufs[r->buf];
    if (is_out || b->is_out || g->err < 0) {
        return;
    }
    if (g->copy_of[r->buf] < 0) {
        int copy = program_add_buffer(g->p, b->name, b->layer, b->n_cols, 1, true);
        if (copy < 0) {
            g->err = copy;
            return;
        }
        struct op op = {.code = OP_gather,
                        .layer = (int16_t)g->p->bufs[copy].layer,
                        .place = g->place_of[r->buf]};
        op.u.gather = (struct op_gather){.x = program_rows(g->p, r->buf),
                                         .y = program_rows(g->p, copy)};
        g->err = program_add_op(g->p, &op);
        g->copy_of[r->buf] = copy;
    }
    r->buf = g->copy_of[r->buf];
}

/* The builder gathers the rows that want logits before the last norm; moved up to the last op that
 * needs all rows, the network of the last layer is computed for the wanted rows only. */
static int hoist_gather(struct program *p)
{
    size_t n_old = p->n_ops, n_bufs = p->n_bufs;
    struct op *old = p->ops;
    bool *is_wanted_whole = calloc(n_bufs + 1, sizeof *is_wanted_whole);
    struct gathering g = {p, malloc((n_bufs + 1) * sizeof *g.copy_of), calloc(n_bufs + 1, 1), 0};
    if (!is_wanted_whole || !g.copy_of || !g.place_of) {
        free(is_wanted_whole);
        free(g.copy_of);
        free(g.place_of);
        return -ENOMEM;
    }
    for (size_t i = 0; i < n_old; i++) { /* the builder's gather goes */
        if (old[i].code == OP_gather) {
            program_redirect(p, i + 1, old[i].u.gather.y.buf, old[i].u.gather.x.buf);
            memmove(&old[i], &old[i + 1], (n_old - i - 1) * sizeof *old);
            p->n_ops = --n_old;
            break;
        }
    }
    narrow(p, is_wanted_whole);
    memset(g.copy_of, -1, (n_bufs + 1) * sizeof *g.copy_of);
    p->ops = NULL;
    p->n_ops = p->cap_ops = 0;
    for (size_t i = 0; i < n_old && g.err >= 0; i++) {
        int out = program_output(&old[i]);
        if (out >= 0 && p->bufs[out].is_out) {
            program_visit(&old[i], gather_input, &g);
        }
        if (out >= 0) {
            g.place_of[out] = old[i].place;
        }
        g.err = g.err < 0 ? g.err : program_add_op(p, &old[i]);
    }
    free(old);
    free(is_wanted_whole);
    free(g.copy_of);
    free(g.place_of);
    return g.err < 0 ? g.err : 0;
}

/* --- forms of activations ----------------------------------------------------------------------*/

struct conversion { /* made already: which buffer holds x in which form */
    int32_t x_buf, act, y_buf;
    uint8_t place; /* each has its own forms */
};

/* Puts a convert op before the first product that wants its input in another form than F32;
 * products of the same input share it. */
static int insert_converts(struct program *p)
{
    size_t n_old = p->n_ops;
    struct op *old = p->ops;
    struct conversion *made = malloc((n_old + 1) * sizeof *made);
    size_t n_made = 0;
    int err = made ? 0 : -ENOMEM;
    p->ops = NULL;
    p->n_ops = p->cap_ops = 0;
    for (size_t i = 0; i < n_old && err >= 0; i++) {
        struct op op = old[i];
        struct op_rows *x = op.code == OP_matmul    ? &op.u.matmul.x
                            : op.code == OP_experts ? &op.u.experts.x
                                                    : NULL;
        const struct matmul_weight *w = op.code == OP_matmul    ? op.u.matmul.w
                                        : op.code == OP_experts ? op.u.experts.w
                                                                : NULL;
        if (x && w->act != MATMUL_ACT_F32) {
            size_t k = 0;
            while (k < n_made && (made[k].x_buf != x->buf || made[k].act != (int32_t)w->act ||
                                  made[k].place != op.place)) {
                k++;
            }
            if (k == n_made) {
                struct program_buffer from = p->bufs[x->buf];
                int64_t n_cols = (int64_t)(matmul_act_bytes(w->act, w->n_cols) / sizeof(float));
                int buf = program_add_buffer(p, "act", from.layer, n_cols, from.mult, from.is_out);
                if (buf < 0) {
                    err = buf;
                    break;
                }
                struct op convert = {.code = OP_convert, .layer = op.layer, .place = op.place};
                convert.u.convert = (struct op_convert){.x = *x,
                                                        .y = program_rows(p, buf),
                                                        .act = (int32_t)w->act,
                                                        .n = (int32_t)w->n_cols};
                err = program_add_op(p, &convert);
                made[n_made++] = (struct conversion){x->buf, (int32_t)w->act, buf, op.place};
            }
            *x = program_rows(p, made[k].y_buf);
        }
        if (err >= 0) {
            err = program_add_op(p, &op);
        }
    }
    free(made);
    free(old);
    return err < 0 ? err : 0;
}

/* --- joined products ---------------------------------------------------------------------------*/

struct writers {
    const int32_t *writer; /* per buffer */
    int32_t latest;        /* of the inputs seen */
};

static void note_input(void *arg, struct op_rows *r, bool is_out)
{
    struct writers *w = arg;
    if (!is_out) {
        w->latest = MAX(w->latest, w->writer[r->buf]);
    }
}

/* The last op that this one waits for; -1: none. */
static int32_t waits_for(struct op *op, const int32_t *writer)
{
    struct writers w = {writer, -1};
    program_visit(op, note_input, &w);
    return w.latest;
}

static bool is_product(const struct op *op)
{
    return op->code == OP_matmul || op->code == OP_experts;
}

static bool can_join(const struct program *p, const struct op *first, const struct op *op)
{
    const struct program_buffer *a = &p->bufs[program_output(first)];
    const struct program_buffer *b = &p->bufs[program_output(op)];
    bool same_order = first->code != OP_experts ||
                      first->u.experts.order.buf == op->u.experts.order.buf;
    return first->code == op->code && first->layer == op->layer && first->place == op->place &&
           a->mult == b->mult && a->is_out == b->is_out && same_order;
}

static void note_writers(const struct program *p, size_t from, size_t end, int32_t *writer)
{
    for (size_t i = from; i < end; i++) {
        int out = program_output(&p->ops[i]);
        if (out >= 0) {
            writer[out] = (int32_t)i;
        }
    }
}

static void move_op(struct program *p, size_t from, size_t to, int32_t *writer)
{
    struct op op = p->ops[from];
    memmove(&p->ops[to + 1], &p->ops[to], (from - to) * sizeof op);
    p->ops[to] = op;
    note_writers(p, to, from + 1, writer);
}

/* The glu reads two whole products of the group [i, end), and nothing else. */
static bool find_pair(const struct program *p, size_t i, size_t end, const struct op *glu,
                      size_t *ret_gate, size_t *ret_up)
{
    const struct op_glu *o = &glu->u.glu;
    size_t gate = end, up = end;
    if (glu->code != OP_glu || o->up.buf < 0 || o->n_groups != 1 || glu->place != p->ops[i].place) {
        return false;
    }
    for (size_t k = i; k < end; k++) {
        int out = program_output(&p->ops[k]);
        gate = out == o->gate.buf ? k : gate;
        up = out == o->up.buf ? k : up;
    }
    if (gate == end || up == end || gate == up || o->gate.n != o->up.n ||
        o->gate.n != p->bufs[o->gate.buf].n_cols || o->up.n != p->bufs[o->up.buf].n_cols) {
        return false;
    }
    *ret_gate = gate;
    *ret_up = up;
    return true;
}

/* Brings a glu over two products of the group behind it, and those two to its end, the gate
 * first. */
static bool take_glu(struct program *p, size_t i, size_t end, int32_t *writer)
{
    size_t gate, up;
    for (size_t k = end; k < p->n_ops && p->ops[k].layer == p->ops[i].layer; k++) {
        if (find_pair(p, i, end, &p->ops[k], &gate, &up)) {
            struct op pair[2] = {p->ops[gate], p->ops[up]};
            move_op(p, k, end, writer);
            size_t n = i;
            for (size_t at = i; at < end; at++) {
                if (at != gate && at != up) {
                    p->ops[n++] = p->ops[at];
                }
            }
            p->ops[n] = pair[0];
            p->ops[n + 1] = pair[1];
            note_writers(p, i, end, writer);
            return true;
        }
    }
    return false;
}

/* Converts go right behind what they convert, so that more products find their input ready. */
static void raise_converts(struct program *p, int32_t *writer)
{
    for (size_t i = 0; i < p->n_ops; i++) {
        struct op *op = &p->ops[i];
        size_t to = op->code == OP_convert ? (size_t)(waits_for(op, writer) + 1) : 0;
        if (to > 0 && p->ops[to - 1].place == op->place) {
            move_op(p, i, to, writer);
        }
    }
}

/* Products whose inputs stand when another one runs are moved beside it and run in its job; then
 * the glu that follows. */
static int join_products(struct program *p)
{
    int32_t *writer = malloc((p->n_bufs + 1) * sizeof *writer);
    if (!writer) {
        return -ENOMEM;
    }
    memset(writer, -1, (p->n_bufs + 1) * sizeof *writer);
    note_writers(p, 0, p->n_ops, writer);
    raise_converts(p, writer);
    for (size_t i = 0; i < p->n_ops; i++) {
        struct op *first = &p->ops[i];
        if (!is_product(first)) {
            continue;
        }
        size_t end = i + 1;
        for (size_t k = end; k < p->n_ops && p->ops[k].layer == first->layer &&
                             end - i < OPS_MAX_JOINED; k++) {
            if (can_join(p, first, &p->ops[k]) && waits_for(&p->ops[k], writer) < (int32_t)i) {
                move_op(p, k, end++, writer);
            }
        }
        end += take_glu(p, i, end, writer);
        first->n_joined = (uint8_t)(end - i - 1);
        i = end - 1;
    }
    free(writer);
    return 0;
}

int program_compile(struct program *p)
{
    int err = fuse_add(p);
    err = err < 0 ? err : hoist_gather(p);
    err = err < 0 ? err : insert_converts(p);
    return err < 0 ? err : join_products(p);
}
