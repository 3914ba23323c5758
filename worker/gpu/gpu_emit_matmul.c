/* Launches of products with matrices (see gpu_emit.h). The token loop's thread; submits, never
 * waits. */
#include "worker/gpu/gpu_emit_op.h"

static bool is_together(const struct op *a, const struct op *b)
{
    const struct op_matmul *m = &a->u.matmul, *n = &b->u.matmul;
    return m->x.data == n->x.data && m->w->type == n->w->type && m->w->n_cols == n->w->n_cols &&
           n->add.buf < 0;
}

static void add_product(const struct gpu_emit *t, const struct op *op, struct matmul_args *a)
{
    const struct op_matmul *o = &op->u.matmul;
    if (a->n_w == 0) {
        a->x = o->x.data;
        a->x_bytes = gpu_emit_bytes(&o->x);
        a->type = (int32_t)o->w->type;
        a->n_cols = (int32_t)o->w->n_cols;
        a->n_tokens = (int32_t)gpu_emit_rows(t, &o->y);
        a->glu = MATMUL_NO_GLU;
        a->add = o->add.buf >= 0 ? o->add.data : NULL;
        a->add_stride = o->add.stride;
    }
    a->w[a->n_w] = *gpu_weights_of(t->weights, t->p, op);
    a->y[a->n_w] = o->y.data;
    a->y_stride[a->n_w] = o->y.stride;
    a->bias[a->n_w] = o->bias;
    a->n_w++;
}

static void launch_product(const struct gpu_emit *t, const struct matmul_args *a)
{
    enum table_id gemm = table_gemm((enum type)a->type);
    bool is_many = t->is_batch && a->n_tokens > GPU_EMIT_GEMV_ROWS && a->glu == MATMUL_NO_GLU;
    bool is_tile = t->is_batch && door_has_matrix(t->door);
    enum table_id gemv = a->n_tokens == 1 ? table_gemv_one((enum type)a->type)
                         : is_tile        ? table_gemv_tile((enum type)a->type, a->n_cols)
                                          : table_gemv((enum type)a->type);
    door_launch(t->door, is_many ? gemm : gemv, a);
}

static void add_norm(const struct gpu_emit *t, const struct op_norm *norm, struct matmul_args *a)
{
    if (norm) {
        a->norm = gpu_emit_norm_args(t, norm);
    }
}

/* Products [0, n), those that share input and type in one launch each. */
static void emit_products(const struct gpu_emit *t, const struct op *ops, size_t n,
                          const struct op_norm *norm)
{
    uint32_t done = 0;
    for (size_t i = 0; i < n; i++) {
        if (done >> i & 1) {
            continue;
        }
        struct matmul_args a = {0};
        add_product(t, &ops[i], &a);
        add_norm(t, norm, &a);
        for (size_t k = i + 1; k < n && a.n_w < MATMUL_MAX; k++) {
            if (!(done >> k & 1) && is_together(&ops[i], &ops[k])) {
                add_product(t, &ops[k], &a);
                done |= 1u << k;
            }
        }
        launch_product(t, &a);
    }
}

/* gate, up and what becomes of them, in one launch where the kernel can. */
static void emit_gated(const struct gpu_emit *t, const struct op *ops, const struct op *convert,
                       const struct op_norm *norm)
{
    const struct op_glu *o = &ops[2].u.glu;
    if (!is_together(&ops[0], &ops[1]) || ops[0].u.matmul.add.buf >= 0 ||
        gpu_emit_rows(t, &o->y) > GPU_EMIT_GEMV_ROWS) {
        emit_products(t, ops, 2, norm);
        gpu_emit_glu(t, o, convert);
        return;
    }
    struct matmul_args a = {0};
    add_product(t, &ops[0], &a);
    add_product(t, &ops[1], &a);
    add_norm(t, norm, &a);
    a.y[0] = convert ? gpu_emit_unless_unread(t, &o->y) : o->y.data;
    a.y_stride[0] = o->y.stride;
    a.glu = o->kind;
    a.alpha = o->alpha;
    a.limit = o->limit;
    if (convert) {
        a.act = gpu_emit_act(&convert->u.convert.y);
        a.act_stride = gpu_emit_bytes(&convert->u.convert.y);
    }
    launch_product(t, &a);
}

void gpu_emit_matmul(const struct gpu_emit *t, const struct op *ops, size_t n,
                     const struct op_norm *norm)
{
    const struct op *convert = ops[n - 1].code == OP_convert ? &ops[--n] : NULL;
    if (ops[n - 1].code == OP_glu) {
        emit_products(t, ops, n - 3, norm);
        emit_gated(t, &ops[n - 3], convert, norm);
    } else {
        emit_products(t, ops, n, norm);
    }
}

/* Whether the product's kernel can make its input, and has so few blocks that each of them doing
 * the norm costs less than a launch. */
static bool may_norm(const struct matmul_weight *w)
{
    return table_gemv_one(w->type) != table_gemv(w->type) &&
           TABLE_CEIL(w->n_rows, (int64_t)GEMV_ROWS) * w->n_cols <= GEMV_ONE_NORM_WORK;
}

bool gpu_emit_normed_matmul(const struct gpu_emit *t, const struct op *ops, size_t n)
{
    const struct op_norm *norm = &ops[0].u.norm;
    bool is_possible = t->is_inner && gpu_emit_rows(t, &norm->y) == 1 && norm->n <= GEMV_ONE_NORM &&
                       (uintptr_t)norm->x.data % 16 == 0 && (uintptr_t)norm->weight % 16 == 0;
    for (size_t i = 2; i < n && ops[i].code == OP_matmul; i++) {
        is_possible = is_possible && may_norm(ops[i].u.matmul.w);
    }
    if (is_possible) {
        gpu_emit_matmul(t, &ops[2], n - 2, norm);
    }
    return is_possible;
}
