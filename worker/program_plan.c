/* Passes over a program, and its memory plan. Pure; run once at load. */
#include "worker/program.h"

#include "shared/num.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- who reads a buffer ----------------------------------------------------------------------------*/

struct use { /* of one buffer */
    int32_t writer, first_reader, last_reader, n_readers; /* op indices; -1: none */
};

struct uses {
    struct use *use;
    int32_t op;
};

static void note_use(void *arg, struct op_rows *r, bool is_out)
{
    struct uses *u = arg;
    struct use *use = &u->use[r->buf];
    if (is_out) {
        use->writer = u->op;
        return;
    }
    if (use->first_reader < 0) {
        use->first_reader = u->op;
    }
    use->last_reader = u->op;
    use->n_readers++;
}

/* One entry per buffer, owned by the caller; NULL without memory. */
static struct use *find_uses(struct program *p)
{
    struct uses u = {.use = malloc((p->n_bufs + 1) * sizeof *u.use)};
    if (!u.use) {
        return NULL;
    }
    for (size_t i = 0; i < p->n_bufs; i++) {
        u.use[i] = (struct use){-1, -1, -1, 0};
    }
    for (size_t i = 0; i < p->n_ops; i++) {
        u.op = (int32_t)i;
        program_visit(&p->ops[i], note_use, &u);
    }
    return u.use;
}

/* --- passes ----------------------------------------------------------------------------------------*/

/* add(x, matmul(y)) becomes matmul(y) + x: one op and one trip through memory less. */
static int fuse_add(struct program *p)
{
    struct use *use = find_uses(p);
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
            if (writer->code != OP_matmul || writer->u.matmul.add.buf >= 0) {
                product = &add->a;
                other = &add->b;
                writer = &p->ops[use[product->buf].writer];
            }
            bool is_whole = product->n == p->bufs[product->buf].n_cols &&
                            other->n == p->bufs[other->buf].n_cols;
            if (writer->code == OP_matmul && writer->u.matmul.add.buf < 0 && is_whole &&
                use[product->buf].n_readers == 1 && writer->u.matmul.y.buf == product->buf) {
                /* The matmul moves here, where the other summand is certain to stand. */
                struct op moved = *writer;
                moved.u.matmul.add = *other;
                moved.u.matmul.y = add->y;
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

struct conversion { /* made already: which buffer holds x in which form */
    int32_t x_buf, act, y_buf;
};

/* Puts a convert op before the first product that wants its input in another form than F32; products
 * of the same input share it. */
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
            while (k < n_made && (made[k].x_buf != x->buf || made[k].act != (int32_t)w->act)) {
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
                struct op convert = {.code = OP_convert, .layer = op.layer};
                convert.u.convert = (struct op_convert){.x = *x,
                                                        .y = program_rows(p, buf),
                                                        .act = (int32_t)w->act,
                                                        .n = (int32_t)w->n_cols};
                err = program_add_op(p, &convert);
                made[n_made++] = (struct conversion){x->buf, (int32_t)w->act, buf};
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

int program_compile(struct program *p)
{
    int err = fuse_add(p);
    return err < 0 ? err : insert_converts(p);
}

/* --- memory ----------------------------------------------------------------------------------------*/

struct live { /* a placed buffer that is still needed */
    size_t offset, bytes;
    int32_t last;
};

/* The lowest gap that holds the bytes, in a list sorted by offset. */
static size_t place(struct live *live, size_t *n_live, size_t bytes, int32_t last)
{
    size_t offset = 0, at = 0;
    while (at < *n_live && live[at].offset < offset + bytes) {
        offset = live[at].offset + live[at].bytes;
        at++;
    }
    memmove(&live[at + 1], &live[at], (*n_live - at) * sizeof *live);
    live[at] = (struct live){offset, bytes, last};
    ++*n_live;
    return offset;
}

int program_link(struct program *p, int64_t max_rows, int64_t max_logits, int64_t n_ctx,
                 int n_threads)
{
    struct use *use = find_uses(p);
    struct live *live = malloc((p->n_bufs + 1) * sizeof *live);
    int32_t *written = malloc((p->n_ops + 1) * sizeof *written); /* by each op; -1: nothing */
    int err = -ENOMEM;
    if (!use || !live || !written) {
        goto done;
    }
    memset(written, -1, (p->n_ops + 1) * sizeof *written);
    for (size_t b = 0; b < p->n_bufs; b++) {
        if (use[b].writer >= 0) {
            written[use[b].writer] = (int32_t)b;
        }
    }
    size_t n_live = 0;
    p->memory_bytes = p->scratch_bytes = 0;
    for (size_t i = 0; i < p->n_ops; i++) {
        p->scratch_bytes = MAX(p->scratch_bytes, ops_scratch_bytes(&p->ops[i], p->kv, max_rows,
                                                                   n_ctx, n_threads));
        if (written[i] < 0) {
            continue;
        }
        size_t n = 0;
        for (size_t k = 0; k < n_live; k++) { /* what nobody reads from here on */
            if (live[k].last >= (int32_t)i) {
                live[n++] = live[k];
            }
        }
        n_live = n;
        struct program_buffer *b = &p->bufs[written[i]];
        uint64_t rows = (uint64_t)(b->is_out ? max_logits : max_rows), bytes;
        if (!num_mul(rows * (uint64_t)b->mult, (uint64_t)b->n_cols * sizeof(float), &bytes)) {
            goto done;
        }
        bool is_result = written[i] == p->result.buf;
        int32_t last = is_result ? INT32_MAX : MAX(use[written[i]].last_reader, (int32_t)i);
        b->bytes = num_pad(bytes, 64);
        b->offset = place(live, &n_live, b->bytes, last);
        p->memory_bytes = MAX(p->memory_bytes, b->offset + b->bytes);
    }
    err = 0;
done:
    free(written);
    free(live);
    free(use);
    return err;
}

struct placing {
    struct program *p;
    char *memory;
};

static void place_rows(void *arg, struct op_rows *r, bool is_out)
{
    (void)is_out;
    struct placing *to = arg;
    const struct program_buffer *b = &to->p->bufs[r->buf];
    r->stride = b->n_cols;
    r->data = (float *)(void *)(to->memory + b->offset) + r->col;
}

void program_place(struct program *p, char *memory)
{
    struct placing to = {p, memory};
    for (size_t i = 0; i < p->n_ops; i++) {
        program_visit(&p->ops[i], place_rows, &to);
    }
    place_rows(&to, &p->result, true);
}
