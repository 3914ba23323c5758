/* From ops to launches (see gpu_emit.h): ops of one value, and which file does the others. The
 * token loop's thread; submits, never waits. */
#include "worker/gpu/gpu_emit_op.h"

static void emit_embed(const struct gpu_emit *t, const struct op *op)
{
    const struct op_embed *o = &op->u.embed;
    struct embed_args a = {
        .w = *gpu_weights_of(t->weights, t->p, op),
        .ids = t->in.tokens,
        .y = o->y.data,
        .y_stride = o->y.stride,
        .type = (int32_t)o->table->type,
        .n_rows = (int32_t)gpu_emit_rows(t, &o->y),
        .n_cols = (int32_t)o->table->n_cols,
        .scale = o->scale,
    };
    door_launch(t->door, TABLE_embed, &a);
}

static void emit_gather(const struct gpu_emit *t, const struct op_gather *o)
{
    struct copy_args a = {
        .x = o->x.data,
        .ids = t->in.out_rows,
        .y = o->y.data,
        .x_stride = o->x.stride,
        .y_stride = o->y.stride,
        .n_rows = (int32_t)t->n_out,
        .n_groups = 1,
        .n = o->y.n,
        .x_group = o->y.n,
        .y_group = o->y.n,
    };
    door_launch(t->door, TABLE_copy, &a);
}

struct norm_args gpu_emit_norm_args(const struct gpu_emit *t, const struct op_norm *o)
{
    return (struct norm_args){
        .x = o->x.data,
        .weight = o->weight,
        .bias = o->bias,
        .x_stride = o->x.stride,
        .y_stride = o->y.stride,
        .n_rows = (int32_t)gpu_emit_rows(t, &o->y),
        .n = o->n,
        .n_groups = o->n_groups,
        .x_group = o->x_group,
        .kind = o->kind,
        .per_group = o->per_group,
        .eps = o->eps,
    };
}

/* With the conversion and the products that were joined with it. */
static void emit_norm(const struct gpu_emit *t, const struct op *ops, size_t n)
{
    const struct op_norm *o = &ops[0].u.norm;
    const struct op *convert = n > 1 ? &ops[1] : NULL;
    if (n > 2 && gpu_emit_normed_matmul(t, ops, n)) {
        return;
    }
    struct norm_args a = gpu_emit_norm_args(t, o);
    a.y = convert ? gpu_emit_unless_unread(t, &o->y) : o->y.data;
    if (convert) {
        a.act = gpu_emit_act(&convert->u.convert.y);
        a.act_stride = gpu_emit_bytes(&convert->u.convert.y);
    }
    door_launch(t->door, TABLE_norm, &a);
    if (n > 2) {
        gpu_emit_matmul(t, &ops[2], n - 2, NULL);
    }
}

void gpu_emit_convert(const struct gpu_emit *t, const struct op_convert *o)
{
    struct quantize_args a = {
        .x = o->x.data,
        .act = gpu_emit_act(&o->y),
        .x_stride = o->x.stride,
        .act_stride = gpu_emit_bytes(&o->y),
        .n_rows = (int32_t)gpu_emit_rows(t, &o->y),
        .n = o->n,
    };
    door_launch(t->door, TABLE_quantize, &a);
}

static void emit_rope(const struct gpu_emit *t, const struct op_rope *o)
{
    struct rope_args a = {
        .x = o->x.data,
        .table = gpu_emit_rope_table(t, &o->table),
        .y = o->y.data,
        .x_stride = o->x.stride,
        .table_stride = o->table.n,
        .y_stride = o->y.stride,
        .n_rows = (int32_t)gpu_emit_rows(t, &o->y),
        .n_groups = o->n_groups,
        .n = o->n,
        .x_group = o->x_group,
        .n_rot = o->n_rot,
        .adjacent = o->adjacent,
    };
    door_launch(t->door, TABLE_rope, &a);
}

void gpu_emit_glu(const struct gpu_emit *t, const struct op_glu *o, const struct op *convert)
{
    const struct op_rows *act = convert ? &convert->u.convert.y : NULL;
    struct glu_args a = {
        .gate = o->gate.data,
        .up = o->up.buf >= 0 ? o->up.data : NULL,
        .y = convert ? gpu_emit_unless_unread(t, &o->y) : o->y.data,
        .act = act ? gpu_emit_act(act) : NULL,
        .gate_stride = o->gate.stride,
        .up_stride = o->up.stride,
        .y_stride = o->y.stride,
        .act_stride = act ? gpu_emit_bytes(act) : 0,
        .n_rows = (int32_t)gpu_emit_rows(t, &o->y),
        .kind = o->kind,
        .n_groups = o->n_groups,
        .n = o->n,
        .gate_group = o->gate_group,
        .gate_is_one = o->up.buf >= 0 && o->gate.n == 1,
        .alpha = o->alpha,
        .limit = o->limit,
    };
    door_launch(t->door, TABLE_glu, &a);
}

static void emit_add(const struct gpu_emit *t, const struct op_add *o)
{
    struct add_args a = {
        .a = o->a.data,
        .b = o->b.data,
        .y = o->y.data,
        .a_stride = o->a.stride,
        .b_stride = o->b.stride,
        .y_stride = o->y.stride,
        .n_rows = (int32_t)gpu_emit_rows(t, &o->y),
        .n = o->n,
        .a_scale = o->a_scale,
        .b_scale = o->b_scale,
    };
    door_launch(t->door, TABLE_add, &a);
}

static void emit_scale(const struct gpu_emit *t, const struct op_scale *o)
{
    struct scale_args a = {
        .x = o->x.data,
        .y = o->y.data,
        .x_stride = o->x.stride,
        .y_stride = o->y.stride,
        .n_rows = (int32_t)gpu_emit_rows(t, &o->y),
        .n = o->n,
        .scale = o->scale,
        .cap = o->cap,
    };
    door_launch(t->door, TABLE_scale, &a);
}

static void emit_columns(const struct gpu_emit *t, const struct op_rows *x, float *to,
                         const struct op_rows *y, int n_groups, int n, int x_group, int y_group)
{
    struct copy_args a = {
        .x = x->data,
        .y = to,
        .x_stride = x->stride,
        .y_stride = y->stride,
        .n_rows = (int32_t)gpu_emit_rows(t, y),
        .n_groups = n_groups,
        .n = n,
        .x_group = x_group,
        .y_group = y_group,
    };
    door_launch(t->door, TABLE_copy, &a);
}

static void emit_concat(const struct gpu_emit *t, const struct op_concat *o)
{
    int group = o->a_n + o->b_n;
    emit_columns(t, &o->a, o->y.data, &o->y, o->n_groups, o->a_n, o->a_group, group);
    emit_columns(t, &o->b, o->y.data + o->a_n, &o->y, o->n_groups, o->b_n, o->b_group, group);
}

/* --- all -------------------------------------------------------------------------------------- */

void gpu_emit(const struct gpu_emit *t, size_t i)
{
    const struct op *op = &t->p->ops[i];
    size_t n = 1u + op->n_joined;
    const struct op *convert = n == 2 && op[1].code == OP_convert ? &op[1] : NULL;
    switch (op->code) {
    case OP_embed:
        emit_embed(t, op);
        break;
    case OP_gather:
        emit_gather(t, &op->u.gather);
        break;
    case OP_norm:
        emit_norm(t, op, n);
        break;
    case OP_convert:
        gpu_emit_convert(t, &op->u.convert);
        break;
    case OP_matmul:
        gpu_emit_matmul(t, op, n, NULL);
        break;
    case OP_experts:
        gpu_emit_experts(t, op, n);
        break;
    case OP_route:
        gpu_emit_route(t, &op->u.route);
        break;
    case OP_order:
        gpu_emit_order(t, &op->u.order);
        break;
    case OP_combine:
        gpu_emit_combine(t, &op->u.combine);
        break;
    case OP_rope_table: /* the host's, among the inputs */
        break;
    case OP_rope:
        if (n > 3) {
            gpu_emit_attention(t, op, &op[3], n == 5 ? &op[4] : NULL);
        } else if (n == 3) {
            gpu_emit_kv_write(t, op, n);
        } else {
            emit_rope(t, &op->u.rope);
        }
        break;
    case OP_kv_write:
        gpu_emit_kv_write(t, op, 1);
        break;
    case OP_attention:
        gpu_emit_attention(t, NULL, op, convert);
        break;
    case OP_glu:
        gpu_emit_glu(t, &op->u.glu, convert);
        break;
    case OP_add:
        emit_add(t, &op->u.add);
        break;
    case OP_scale:
        emit_scale(t, &op->u.scale);
        break;
    case OP_copy: {
        const struct op_copy *o = &op->u.copy;
        emit_columns(t, &o->x, o->y.data, &o->y, o->n_groups, o->n, o->x_group, o->n);
        break;
    }
    case OP_concat:
        emit_concat(t, &op->u.concat);
        break;
    case OP_heads:
        gpu_emit_heads(t, op);
        break;
    case OP_conv:
    case OP_ssm:
    case OP_delta:
        gpu_emit_recurrent(t, op);
        break;
    default: /* refused at load */
        ASSERT(!"an op without a kernel");
    }
}
