/* Launches of what has a matrix per expert, or per head (see gpu_emit.h). The token loop's thread;
 * submits, never waits. */
#include "worker/gpu/gpu_emit_op.h"

#include "shared/num.h"

/* --- experts ---------------------------------------------------------------------------------- */

void gpu_emit_route(const struct gpu_emit *t, const struct op_route *o)
{
    struct route_args a = {
        .x = o->x.data,
        .bias = o->bias,
        .y = o->y.data,
        .x_stride = o->x.stride,
        .y_stride = o->y.stride,
        .n_rows = (int32_t)gpu_emit_rows(t, &o->y),
        .n_expert = o->n_expert,
        .n_used = o->n_used,
        .gating = o->gating,
        .n_group = o->n_group,
        .n_group_used = o->n_group_used,
        .normalize = o->normalize,
        .scale = o->scale,
    };
    door_launch(t->door, TABLE_route, &a);
}

static bool is_many(const struct gpu_emit *t, int64_t n_slots)
{
    return t->is_batch && n_slots > GPU_EMIT_EXPERT_SLOTS;
}

/* Only products of many slots go by the order. */
void gpu_emit_order(const struct gpu_emit *t, const struct op_order *o)
{
    int64_t n_rows = gpu_emit_rows(t, &o->route);
    struct order_args a = {
        .ids = (const int32_t *)(const void *)o->route.data,
        .y = (int32_t *)(void *)o->y.data,
        .ids_stride = o->route.stride,
        .n_rows = (int32_t)n_rows,
        .n_expert = o->n_expert,
        .n_used = o->n_used,
    };
    if (is_many(t, n_rows * o->n_used)) {
        door_launch(t->door, TABLE_order, &a);
    }
}

/* The choice that an order was made of. */
static const struct op_order *order_op(const struct gpu_emit *t, const struct op_rows *order)
{
    for (size_t i = 0; i < t->p->n_ops; i++) {
        const struct op *op = &t->p->ops[i];
        if (op->code == OP_order && op->u.order.y.buf == order->buf) {
            return &op->u.order;
        }
    }
    ASSERT(!"experts without an order");
    return NULL;
}

static void emit_one(const struct gpu_emit *t, const struct op *op)
{
    const struct op_experts *o = &op->u.experts;
    const struct op_order *order = order_op(t, &o->order);
    const struct op_rows *route = &order->route;
    int64_t n_slots = gpu_emit_rows(t, &o->y);
    enum table_id gemm = table_gemm(o->w->type);
    bool by_order = is_many(t, n_slots);
    struct matmul_args a = {
        .w = {*gpu_weights_of(t->weights, t->p, op)},
        .y = {o->y.data},
        .bias = {o->bias},
        .x = o->x.data,
        .ids = (const int32_t *)(const void *)route->data,
        .order = by_order ? (const int32_t *)(const void *)order->y.data : NULL,
        .y_stride = {o->y.stride},
        .ids_stride = route->stride,
        .x_bytes = gpu_emit_bytes(&o->x),
        .type = (int32_t)o->w->type,
        .n_cols = (int32_t)o->w->n_cols,
        .n_w = 1,
        .n_tokens = (int32_t)n_slots,
        .n_expert = o->n_expert,
        .n_used = order->n_used,
        .x_per_slot = t->p->bufs[o->x.buf].mult == t->p->bufs[o->y.buf].mult,
        .glu = MATMUL_NO_GLU,
    };
    door_launch(t->door, by_order ? gemm : table_gemv_one(o->w->type), &a);
}

void gpu_emit_experts(const struct gpu_emit *t, const struct op *ops, size_t n)
{
    for (size_t i = 0; i < n && ops[i].code == OP_experts; i++) {
        emit_one(t, &ops[i]);
    }
    if (n >= 2 && ops[n - 1].code == OP_convert) {
        gpu_emit_glu(t, &ops[n - 2].u.glu, &ops[n - 1]);
    } else if (ops[n - 1].code == OP_glu) {
        gpu_emit_glu(t, &ops[n - 1].u.glu, NULL);
    }
}

void gpu_emit_combine(const struct gpu_emit *t, const struct op_combine *o)
{
    struct combine_args a = {
        .x = o->x.data,
        .weights = o->route.data + o->n_used,
        .add = o->add.buf >= 0 ? o->add.data : NULL,
        .y = o->y.data,
        .x_stride = o->x.stride,
        .weights_stride = o->route.stride,
        .add_stride = o->add.stride,
        .y_stride = o->y.stride,
        .n_rows = (int32_t)gpu_emit_rows(t, &o->y),
        .n = o->n,
        .n_used = o->n_used,
    };
    door_launch(t->door, TABLE_combine, &a);
}

/* --- heads ------------------------------------------------------------------------------------ */

static bool is_float(const struct matmul_weight *w)
{
    return w->act == MATMUL_ACT_F32;
}

static size_t order_bytes(int64_t n_rows, int64_t n_heads)
{
    return num_pad((size_t)(1 + n_heads + n_rows * n_heads) * sizeof(int32_t), 16);
}

size_t gpu_emit_heads_bytes(const struct program *p, int64_t n_rows, int32_t *ret_n_heads)
{
    size_t most = 0;
    *ret_n_heads = 0;
    for (size_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].code == OP_heads) {
            const struct op_heads *o = &p->ops[i].u.heads;
            int64_t act_bytes = is_float(o->w) ? 0 : args_act_bytes(o->w->n_cols);
            size_t act = (size_t)(n_rows * o->n_groups * act_bytes);
            most = MAX(most, order_bytes(n_rows, o->n_groups) + act);
            *ret_n_heads = MAX(*ret_n_heads, o->n_groups);
        }
    }
    return most;
}

/* Experts that every row chooses alike: head h of each row goes through matrix h. */
void gpu_emit_heads(const struct gpu_emit *t, const struct op *op)
{
    const struct op_heads *o = &op->u.heads;
    const struct matmul_weight *w = o->w;
    int64_t n_rows = gpu_emit_rows(t, &o->y), n_slots = n_rows * o->n_groups;
    int32_t *order = t->heads_scratch;
    int8_t *act = (int8_t *)t->heads_scratch + order_bytes(n_rows, o->n_groups);
    if (!is_float(w)) {
        struct quantize_args q = {
            .x = o->x.data,
            .act = act,
            .x_stride = o->x_group,
            .act_stride = args_act_bytes(w->n_cols),
            .n_rows = (int32_t)n_slots,
            .n = (int32_t)w->n_cols,
        };
        door_launch(t->door, TABLE_quantize, &q);
    }
    enum table_id gemm = table_gemm(w->type);
    bool by_order = t->is_batch && n_rows > GPU_EMIT_GEMV_ROWS;
    if (by_order) {
        struct order_args a = {
            .ids = t->heads,
            .y = order,
            .n_rows = (int32_t)n_rows,
            .n_expert = o->n_groups,
            .n_used = o->n_groups,
        };
        door_launch(t->door, TABLE_order, &a);
    }
    struct matmul_args a = {
        .w = {*gpu_weights_of(t->weights, t->p, op)},
        .y = {o->y.data},
        .x = is_float(w) ? (const void *)o->x.data : act,
        .ids = t->heads,
        .order = by_order ? order : NULL,
        .y_stride = {w->n_rows},
        .x_bytes = is_float(w) ? o->x_group * (int64_t)sizeof(float) : args_act_bytes(w->n_cols),
        .type = (int32_t)w->type,
        .n_cols = (int32_t)w->n_cols,
        .n_w = 1,
        .n_tokens = (int32_t)n_slots,
        .n_expert = o->n_groups,
        .n_used = o->n_groups,
        .x_per_slot = 1,
        .glu = MATMUL_NO_GLU,
    };
    door_launch(t->door, by_order ? gemm : table_gemv(w->type), &a);
}
