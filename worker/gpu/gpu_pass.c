/* Passes for the GPU (see gpu_pass.h). */
#include "worker/gpu/gpu_pass.h"

#include "kernels/hip/args.h"
#include "kernels/hip/pack.h"
#include "worker/program_use.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- before compiling ------------------------------------------------------------------------ */

static int refuse(const struct op *op, const char *why, struct err *e)
{
    return err_set(e, ERR_NO_GPU, "layer %d, op %s: no GPU kernel for %s", op->layer,
                   ops_name(op->code), why);
}

static int check_matrix(const struct op *op, const struct matmul_weight *w, struct err *e)
{
    struct pack_layout layout;
    if (pack_layout(w->type, w->n_rows, w->n_cols, &layout) < 0) {
        return refuse(op, type_info((uint32_t)w->type)->name, e);
    }
    return 0;
}

static int check_attention(const struct program *p, const struct op *op, int kv, struct err *e)
{
    const struct kv_layer *l = &p->kv[kv];
    if (l->dim_k % 8 != 0 || l->dim_v % 8 != 0 || l->dim_k > ATTENTION_MAX_DIM || l->dim_v > 1024) {
        return refuse(op, "heads of this size", e);
    }
    return 0;
}

/* Heads that stand side by side, on both sides. */
static int check_heads(const struct program *p, const struct op *op, struct err *e)
{
    const struct op_heads *o = &op->u.heads;
    if (o->n_groups * o->x_group != p->bufs[o->x.buf].n_cols ||
        o->n_groups * o->w->n_rows != p->bufs[o->y.buf].n_cols) {
        return refuse(op, "heads with gaps", e);
    }
    return check_matrix(op, o->w, e);
}

static int check_recurrent(const struct op *op, struct err *e)
{
    if (op->code == OP_conv) {
        return op->u.conv.width > CONV_MAX_WIDTH ? refuse(op, "so wide a convolution", e) : 0;
    }
    int32_t n = op->code == OP_ssm ? op->u.ssm.n_state : op->u.delta.dim_k;
    int32_t most = op->code == OP_ssm ? (int32_t)SSM_MAX_STATE : (int32_t)DELTA_MAX_DIM;
    return n % 32 != 0 || n > most ? refuse(op, "states of this size", e) : 0;
}

int gpu_pass_check(const struct program *p, const struct op *op, struct err *e)
{
    switch (op->code) {
    case OP_embed:
        return check_matrix(op, op->u.embed.table, e);
    case OP_matmul:
        return check_matrix(op, op->u.matmul.w, e);
    case OP_experts:
        return check_matrix(op, op->u.experts.w, e);
    case OP_kv_write:
        return check_attention(p, op, op->u.kv_write.layer, e);
    case OP_attention:
        return check_attention(p, op, op->u.attention.layer, e);
    case OP_heads:
        return check_heads(p, op, e);
    case OP_conv:
    case OP_ssm:
    case OP_delta:
        return check_recurrent(op, e);
    case OP_route:
        return op->u.route.n_expert > ROUTE_MAX ? refuse(op, "so many experts", e) : 0;
    case OP_order:
    case OP_dispatch:
    case OP_combine:
    case OP_gather:
    case OP_norm:
    case OP_rope_table:
    case OP_rope:
    case OP_glu:
    case OP_add:
    case OP_scale:
    case OP_copy:
    case OP_concat:
        return 0;
    default:
        return refuse(op, "it", e);
    }
}

/* Quantized weights take activations in 8 bits. */
static void set_act(struct matmul_weight *w, int64_t n)
{
    bool is_float = w->type == TYPE_F32 || w->type == TYPE_F16 || w->type == TYPE_BF16;
    for (int64_t i = 0; i < n; i++) {
        w[i].act = is_float ? MATMUL_ACT_F32 : MATMUL_ACT_Q8;
    }
}

/* Kernels of experts find their rows themselves, and leave results where the slots are: nothing is
 * sorted. */
static void drop_dispatches(struct program *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_ops; i++) {
        const struct op_dispatch *o = &p->ops[i].u.dispatch;
        if (p->ops[i].code != OP_dispatch || p->ops[i].place != OP_ON_GPU || o->x.col != 0 ||
            o->x.n != p->bufs[o->x.buf].n_cols) {
            p->ops[n++] = p->ops[i];
            continue;
        }
        program_redirect(p, i + 1, o->y.buf, o->x.buf);
    }
    p->n_ops = n;
}

int gpu_pass_begin(struct program *p, struct err *e)
{
    for (size_t i = 0; i < p->n_ops; i++) {
        int err = p->ops[i].place == OP_ON_GPU ? gpu_pass_check(p, &p->ops[i], e) : 0;
        if (err < 0) {
            return err;
        }
    }
    drop_dispatches(p);
    for (size_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].code == OP_dispatch && p->ops[i].place == OP_ON_GPU) {
            return refuse(&p->ops[i], "a part of a row", e);
        }
    }
    for (size_t i = 0; i < p->n_weights; i++) {
        if (p->weights[i].place == OP_ON_GPU) {
            set_act(p->weights[i].w, p->weights[i].n);
        }
    }
    return 0;
}

/* --- joining --------------------------------------------------------------------------------- */

static const struct op_rows *result_of(const struct op *op)
{
    return op->code == OP_norm        ? &op->u.norm.y
           : op->code == OP_glu       ? &op->u.glu.y
           : op->code == OP_attention ? &op->u.attention.y
                                      : NULL;
}

/* The op converts the whole result of that one. Attention makes 8 bits head by head: of whole
 * groups. */
static bool converts(const struct program *p, const struct op *op, const struct op *of)
{
    const struct op_rows *y = result_of(of);
    if (of->code == OP_attention && p->kv[of->u.attention.layer].dim_v % ARGS_GROUP != 0) {
        return false;
    }
    return y && op->code == OP_convert && op->place == of->place && op->u.convert.x.buf == y->buf &&
           op->u.convert.x.col == 0 && op->u.convert.n == p->bufs[y->buf].n_cols &&
           op->u.convert.n % ARGS_GROUP == 0;
}

/* A rotation of whole rows that stand densely in a buffer of their own, which nobody else reads. */
static bool is_whole_rotation(const struct program *p, const struct program_use *use,
                              const struct op *op)
{
    const struct op_rope *o = &op->u.rope;
    return op->code == OP_rope && o->x_group == o->n && o->x.col == 0 &&
           o->x.n == p->bufs[o->x.buf].n_cols && o->n_groups * o->n == o->x.n &&
           use[o->x.buf].n_readers == 1 && use[o->y.buf].n_readers == 1;
}

static struct op *attention_of(struct program *p, const struct op *kv_write)
{
    for (size_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].code == OP_attention && p->ops[i].layer == kv_write->layer &&
            p->ops[i].u.attention.layer == kv_write->u.kv_write.layer) {
            return &p->ops[i];
        }
    }
    return NULL;
}

/* rope of q, rope of k, kv_write of k, standing together from i on. */
static bool join_rotations(struct program *p, const struct program_use *use, size_t i)
{
    if (i + 2 >= p->n_ops) {
        return false;
    }
    struct op *q = &p->ops[i], *k = &p->ops[i + 1], *write = &p->ops[i + 2];
    if (write->code != OP_kv_write || !is_whole_rotation(p, use, q) ||
        !is_whole_rotation(p, use, k)) {
        return false;
    }
    struct op *attention = attention_of(p, write);
    const struct op_rope *a = &q->u.rope, *b = &k->u.rope;
    bool is_one_rotation = a->table.buf == b->table.buf && a->n_rot == b->n_rot &&
                           a->adjacent == b->adjacent && a->n == b->n;
    if (!attention || !is_one_rotation || attention->u.attention.q.buf != a->y.buf ||
        write->u.kv_write.k.buf != b->y.buf || a->n != p->kv[write->u.kv_write.layer].dim_k) {
        return false;
    }
    attention->u.attention.q = a->x;
    q->n_joined = 2;
    return true;
}

/* Products of nothing but the value that the norm before them makes for them alone, op i in floats
 * and i + 1 converted: for one row they do the norm themselves. */
static bool is_for_products(const struct program *p, const struct program_use *use, size_t i,
                            size_t next)
{
    const struct op_norm *o = &p->ops[i].u.norm;
    size_t last = next + p->ops[next].n_joined;
    int32_t act = p->ops[i + 1].u.convert.y.buf;
    if (p->ops[i].n_joined != 1 || p->ops[i + 1].code != OP_convert || o->n_groups != 1 ||
        use[o->y.buf].n_readers != 1 || use[act].last_reader > (int32_t)last) {
        return false;
    }
    for (size_t k = next; k <= last; k++) {
        if (p->ops[k].code == OP_matmul && p->ops[k].u.matmul.x.buf != act) {
            return false;
        }
    }
    return p->ops[next].code == OP_matmul;
}

/* What op i begins and what comes next may be one launch. */
static bool leads_on(const struct program *p, const struct program_use *use, size_t i)
{
    size_t next = i + 1u + p->ops[i].n_joined;
    if (next >= p->n_ops || p->ops[next].place != p->ops[i].place ||
        p->ops[i].n_joined + 1 + p->ops[next].n_joined > UINT8_MAX) {
        return false;
    }
    const struct op *first = &p->ops[i], *then = &p->ops[next];
    if (first->code == OP_norm) {
        return is_for_products(p, use, i, next);
    }
    return first->code == OP_rope && first->n_joined == 2 && then->code == OP_attention &&
           then->u.attention.layer == first[2].u.kv_write.layer;
}

int gpu_pass_join(struct program *p)
{
    struct program_use *use = program_find_uses(p);
    if (!use) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < p->n_ops; i += 1u + p->ops[i].n_joined) {
        struct op *op = &p->ops[i];
        size_t last = i + op->n_joined;
        if (op->place != OP_ON_GPU || join_rotations(p, use, i)) {
            continue;
        }
        if (last + 1 < p->n_ops && op->n_joined < UINT8_MAX &&
            converts(p, &p->ops[last + 1], &p->ops[last])) {
            op->n_joined++;
        }
    }
    for (size_t i = 0; i < p->n_ops; i += 1u + p->ops[i].n_joined) {
        if (p->ops[i].place == OP_ON_GPU && leads_on(p, use, i)) {
            p->ops[i].n_joined += (uint8_t)(1 + p->ops[i + 1u + p->ops[i].n_joined].n_joined);
        }
    }
    free(use);
    return 0;
}
