/* From ops to launches (see gpu_emit.h). The token loop's thread; submits, never waits. */
#include "worker/gpu/gpu_emit.h"

#include "shared/num.h"

static int64_t rows_of(const struct gpu_emit *t, const struct op_rows *y)
{
    const struct program_buffer *b = &t->p->bufs[y->buf];
    return (b->is_out ? t->n_out : t->n_rows) * b->mult;
}

/* Nobody reads the value but the ops that were joined with its own. */
static float *unless_unread(const struct gpu_emit *t, const struct op_rows *y)
{
    return t->is_unread[y->buf] ? NULL : y->data;
}

static int8_t *act_of(const struct op_rows *y)
{
    return (int8_t *)(void *)y->data;
}

static int64_t bytes_of(const struct op_rows *x)
{
    return x->stride * (int64_t)sizeof(float);
}

/* The rotation's table, which the host made. */
static const float *table_of(const struct gpu_emit *t, const struct op_rows *x)
{
    return t->in.rope[t->rope_of[x->buf]];
}

/* --- one value at a time ---------------------------------------------------------------------------- */

static void emit_embed(const struct gpu_emit *t, const struct op *op)
{
    const struct op_embed *o = &op->u.embed;
    struct embed_args a = {
        .w = *gpu_weights_of(t->weights, t->p, op),
        .ids = t->in.tokens,
        .y = o->y.data,
        .y_stride = o->y.stride,
        .type = (int32_t)o->table->type,
        .n_rows = (int32_t)rows_of(t, &o->y),
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

static void emit_norm(const struct gpu_emit *t, const struct op_norm *o, const struct op *convert)
{
    const struct op_rows *act = convert ? &convert->u.convert.y : NULL;
    struct norm_args a = {
        .x = o->x.data,
        .y = convert ? unless_unread(t, &o->y) : o->y.data,
        .act = act ? act_of(act) : NULL,
        .weight = o->weight,
        .bias = o->bias,
        .x_stride = o->x.stride,
        .y_stride = o->y.stride,
        .act_stride = act ? bytes_of(act) : 0,
        .n_rows = (int32_t)rows_of(t, &o->y),
        .n = o->n,
        .n_groups = o->n_groups,
        .x_group = o->x_group,
        .kind = o->kind,
        .per_group = o->per_group,
        .eps = o->eps,
    };
    door_launch(t->door, TABLE_norm, &a);
}

static void emit_convert(const struct gpu_emit *t, const struct op_convert *o)
{
    struct quantize_args a = {
        .x = o->x.data,
        .act = act_of(&o->y),
        .x_stride = o->x.stride,
        .act_stride = bytes_of(&o->y),
        .n_rows = (int32_t)rows_of(t, &o->y),
        .n = o->n,
    };
    door_launch(t->door, TABLE_quantize, &a);
}

static void emit_rope(const struct gpu_emit *t, const struct op_rope *o)
{
    struct rope_args a = {
        .x = o->x.data,
        .table = table_of(t, &o->table),
        .y = o->y.data,
        .x_stride = o->x.stride,
        .table_stride = o->table.n,
        .y_stride = o->y.stride,
        .n_rows = (int32_t)rows_of(t, &o->y),
        .n_groups = o->n_groups,
        .n = o->n,
        .x_group = o->x_group,
        .n_rot = o->n_rot,
        .adjacent = o->adjacent,
    };
    door_launch(t->door, TABLE_rope, &a);
}

static void emit_glu(const struct gpu_emit *t, const struct op_glu *o, const struct op *convert)
{
    const struct op_rows *act = convert ? &convert->u.convert.y : NULL;
    struct glu_args a = {
        .gate = o->gate.data,
        .up = o->up.buf >= 0 ? o->up.data : NULL,
        .y = convert ? unless_unread(t, &o->y) : o->y.data,
        .act = act ? act_of(act) : NULL,
        .gate_stride = o->gate.stride,
        .up_stride = o->up.stride,
        .y_stride = o->y.stride,
        .act_stride = act ? bytes_of(act) : 0,
        .n_rows = (int32_t)rows_of(t, &o->y),
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
        .n_rows = (int32_t)rows_of(t, &o->y),
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
        .n_rows = (int32_t)rows_of(t, &o->y),
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
        .n_rows = (int32_t)rows_of(t, y),
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

/* --- products ------------------------------------------------------------------------------------------ */

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
        a->x_bytes = bytes_of(&o->x);
        a->type = (int32_t)o->w->type;
        a->n_cols = (int32_t)o->w->n_cols;
        a->n_tokens = (int32_t)rows_of(t, &o->y);
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
    bool is_many = a->n_tokens > GPU_EMIT_GEMV_ROWS && a->glu == MATMUL_NO_GLU;
    enum table_id gemv =
        a->n_tokens == 1 ? table_gemv_one((enum type)a->type) : table_gemv((enum type)a->type);
    door_launch(t->door, is_many ? gemm : gemv, a);
}

/* Products [0, n), those that share input and type in one launch each. */
static void emit_products(const struct gpu_emit *t, const struct op *ops, size_t n)
{
    uint32_t done = 0;
    for (size_t i = 0; i < n; i++) {
        if (done >> i & 1) {
            continue;
        }
        struct matmul_args a = {0};
        add_product(t, &ops[i], &a);
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
static void emit_gated(const struct gpu_emit *t, const struct op *ops, const struct op *convert)
{
    const struct op_glu *o = &ops[2].u.glu;
    if (!is_together(&ops[0], &ops[1]) || ops[0].u.matmul.add.buf >= 0 ||
        rows_of(t, &o->y) > GPU_EMIT_GEMV_ROWS) {
        emit_products(t, ops, 2);
        emit_glu(t, o, convert);
        return;
    }
    struct matmul_args a = {0};
    add_product(t, &ops[0], &a);
    add_product(t, &ops[1], &a);
    a.y[0] = convert ? unless_unread(t, &o->y) : o->y.data;
    a.y_stride[0] = o->y.stride;
    a.glu = o->kind;
    a.alpha = o->alpha;
    a.limit = o->limit;
    if (convert) {
        a.act = act_of(&convert->u.convert.y);
        a.act_stride = bytes_of(&convert->u.convert.y);
    }
    launch_product(t, &a);
}

static void emit_matmul(const struct gpu_emit *t, const struct op *ops, size_t n)
{
    const struct op *convert = ops[n - 1].code == OP_convert ? &ops[--n] : NULL;
    if (ops[n - 1].code == OP_glu) {
        emit_products(t, ops, n - 3);
        emit_gated(t, &ops[n - 3], convert);
    } else {
        emit_products(t, ops, n);
    }
}

/* --- experts -------------------------------------------------------------------------------------------- */

static void emit_route(const struct gpu_emit *t, const struct op_route *o)
{
    struct route_args a = {
        .x = o->x.data,
        .bias = o->bias,
        .y = o->y.data,
        .x_stride = o->x.stride,
        .y_stride = o->y.stride,
        .n_rows = (int32_t)rows_of(t, &o->y),
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

static bool is_many(int64_t n_slots)
{
    return n_slots > GPU_EMIT_EXPERT_SLOTS;
}

/* Only products of many slots go by the order. */
static void emit_order(const struct gpu_emit *t, const struct op_order *o)
{
    int64_t n_rows = rows_of(t, &o->route);
    struct order_args a = {
        .ids = (const int32_t *)(const void *)o->route.data,
        .y = (int32_t *)(void *)o->y.data,
        .ids_stride = o->route.stride,
        .n_rows = (int32_t)n_rows,
        .n_expert = o->n_expert,
        .n_used = o->n_used,
    };
    if (is_many(n_rows * o->n_used)) {
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

static void emit_experts(const struct gpu_emit *t, const struct op *op)
{
    const struct op_experts *o = &op->u.experts;
    const struct op_order *order = order_op(t, &o->order);
    const struct op_rows *route = &order->route;
    int64_t n_slots = rows_of(t, &o->y);
    enum table_id gemm = table_gemm(o->w->type);
    bool by_order = is_many(n_slots);
    struct matmul_args a = {
        .w = {*gpu_weights_of(t->weights, t->p, op)},
        .y = {o->y.data},
        .bias = {o->bias},
        .x = o->x.data,
        .ids = (const int32_t *)(const void *)route->data,
        .order = by_order ? (const int32_t *)(const void *)order->y.data : NULL,
        .y_stride = {o->y.stride},
        .ids_stride = route->stride,
        .x_bytes = bytes_of(&o->x),
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

static void emit_combine(const struct gpu_emit *t, const struct op_combine *o)
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
        .n_rows = (int32_t)rows_of(t, &o->y),
        .n = o->n,
        .n_used = o->n_used,
    };
    door_launch(t->door, TABLE_combine, &a);
}

/* --- heads ---------------------------------------------------------------------------------------------- */

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
            size_t act = is_float(o->w) ? 0 : (size_t)(n_rows * o->n_groups * args_act_bytes(o->w->n_cols));
            most = MAX(most, order_bytes(n_rows, o->n_groups) + act);
            *ret_n_heads = MAX(*ret_n_heads, o->n_groups);
        }
    }
    return most;
}

/* Experts that every row chooses alike: head h of each row goes through matrix h. */
static void emit_heads(const struct gpu_emit *t, const struct op *op)
{
    const struct op_heads *o = &op->u.heads;
    const struct matmul_weight *w = o->w;
    int64_t n_rows = rows_of(t, &o->y), n_slots = n_rows * o->n_groups;
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
    bool by_order = n_rows > GPU_EMIT_GEMV_ROWS;
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

/* --- attention ------------------------------------------------------------------------------------------ */

/* kv_write, with the rotations of queries and keys before it where they were joined. */
static void emit_kv_write(const struct gpu_emit *t, const struct op *ops, size_t n)
{
    const struct op_kv_write *o = &ops[n - 1].u.kv_write;
    const struct op_rope *q = n == 3 ? &ops[0].u.rope : NULL, *k = n == 3 ? &ops[1].u.rope : NULL;
    const struct kv_layer *l = &t->p->kv[o->layer];
    const struct op_rows *keys = k ? &k->x : &o->k;
    struct kv_write_args a = {
        .k = keys->data,
        .v = l->v_in_k ? NULL : o->v.data,
        .q = q ? q->x.data : NULL,
        .table = k ? table_of(t, &k->table) : NULL,
        .kv = (uint8_t *)l->data,
        .type = (int32_t)l->type,
        .tables = t->tables,
        .row_table = t->in.row_table,
        .positions = t->in.positions,
        .k_stride = keys->stride,
        .v_stride = o->v.stride,
        .q_stride = q ? q->x.stride : 0,
        .table_stride = k ? k->table.n : 0,
        .tables_stride = t->max_blocks,
        .n_rows = (int32_t)t->n_rows,
        .n_head = q ? q->n_groups : 0,
        .n_kv_head = l->n_head,
        .dim_k = l->dim_k,
        .dim_v = l->dim_v,
        .v_in_k = l->v_in_k,
        .n_rot = k ? k->n_rot : 0,
        .adjacent = k ? k->adjacent : 0,
    };
    door_launch(t->door, table_kv_write(l->type), &a);
}

static size_t part_of_row(int64_t n_head, int64_t dim_v, int64_t n_splits)
{
    return (size_t)n_head * (size_t)n_splits * (size_t)(2 + dim_v) * sizeof(float);
}

size_t gpu_emit_part_bytes(const struct program *p, int64_t n_rows, int64_t n_splits, size_t limit)
{
    size_t most = 0;
    for (size_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].code == OP_attention && p->ops[i].place == OP_ON_GPU) {
            const struct op_attention *o = &p->ops[i].u.attention;
            size_t one = part_of_row(o->n_head, p->kv[o->layer].dim_v, n_splits);
            most = MAX(most, MAX(one, MIN(one * (size_t)n_rows, limit)));
        }
    }
    return most;
}

int32_t gpu_emit_tile_rows(const struct program *p, const struct op_attention *o)
{
    const struct kv_layer *l = &p->kv[o->layer];
    struct attention_args a = {.n_head = o->n_head, .n_kv_head = l->n_head};
    return l->dim_k <= ATTENTION_TILE_DIM && l->dim_v <= ATTENTION_TILE_DIM ? table_attention_rows(&a)
                                                                            : 0;
}

/* Rows [first, first + n), each by its splits. */
static void attend_split(const struct gpu_emit *t, const struct op_attention *o,
                         struct attention_args a, int64_t first, int64_t n)
{
    const struct kv_layer *l = &t->p->kv[o->layer];
    int64_t at_once = (int64_t)(t->part_bytes / part_of_row(o->n_head, l->dim_v, t->n_splits));
    const float *q = a.q;
    float *y = a.y;
    int8_t *act = a.act;
    for (int64_t done = 0; done < n; done += at_once) {
        int64_t row = first + done;
        a.n_rows = (int32_t)MIN(at_once, n - done);
        a.q = q + row * a.q_stride;
        a.y = y ? y + row * a.y_stride : NULL;
        a.act = act ? act + row * a.act_stride : NULL;
        a.positions = t->in.positions + row;
        a.row_table = t->in.row_table + row;
        door_launch(t->door, table_attention_split(l->type), &a);
        door_launch(t->door, TABLE_attention_fold, &a);
    }
}

static int32_t tiles_of(const struct gpu_emit *t, const struct op_attention *o)
{
    int32_t i = 0, n = gpu_emit_tile_rows(t->p, o);
    while (i < t->n_tile_rows && t->tile_rows[i] != n) {
        i++;
    }
    return i < t->n_tile_rows && n > 0 && t->in.n_tiles[i] > 0 ? i : -1;
}

static void emit_attention(const struct gpu_emit *t, const struct op_attention *o,
                           const struct op *convert)
{
    const struct kv_layer *l = &t->p->kv[o->layer];
    int32_t tiles = tiles_of(t, o);
    bool has_act = convert && tiles < 0; /* tiles give floats */
    const struct op_rows *act = has_act ? &convert->u.convert.y : NULL;
    struct attention_args a = {
        .q = o->q.data,
        .kv = (const uint8_t *)l->data,
        .type = (int32_t)l->type,
        .tables = t->tables,
        .row_table = t->in.row_table,
        .positions = t->in.positions,
        .part = t->part,
        .sinks = o->sinks,
        .alibi = o->alibi,
        .y = has_act ? unless_unread(t, &o->y) : o->y.data,
        .act = act ? act_of(act) : NULL,
        .q_stride = o->q.stride,
        .y_stride = o->y.stride,
        .act_stride = act ? bytes_of(act) : 0,
        .table_stride = t->max_blocks,
        .n_head = o->n_head,
        .n_kv_head = l->n_head,
        .dim_k = l->dim_k,
        .dim_v = l->dim_v,
        .v_in_k = l->v_in_k,
        .n_splits = t->n_splits,
        .window = o->window,
        .scale = o->scale,
        .softcap = o->softcap,
    };
    if (tiles < 0) {
        attend_split(t, o, a, 0, t->n_rows);
        return;
    }
    for (int32_t i = 0; i < t->n_pieces; i++) {
        attend_split(t, o, a, t->pieces[i].first, t->pieces[i].n);
    }
    a.tiles = t->in.tiles[tiles];
    a.n_tiles = t->in.n_tiles[tiles];
    a.n_rows = (int32_t)t->n_rows;
    door_launch(t->door, table_attention_tile(l->type), &a);
    if (convert) {
        emit_convert(t, &convert->u.convert);
    }
}

/* --- all -------------------------------------------------------------------------------------------------- */

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
        emit_norm(t, &op->u.norm, convert);
        break;
    case OP_convert:
        emit_convert(t, &op->u.convert);
        break;
    case OP_matmul:
        emit_matmul(t, op, n);
        break;
    case OP_experts:
        for (size_t k = 0; k < n && op[k].code == OP_experts; k++) {
            emit_experts(t, &op[k]);
        }
        if (n >= 2 && op[n - 1].code == OP_convert) {
            emit_glu(t, &op[n - 2].u.glu, &op[n - 1]);
        } else if (op[n - 1].code == OP_glu) {
            emit_glu(t, &op[n - 1].u.glu, NULL);
        }
        break;
    case OP_route:
        emit_route(t, &op->u.route);
        break;
    case OP_order:
        emit_order(t, &op->u.order);
        break;
    case OP_combine:
        emit_combine(t, &op->u.combine);
        break;
    case OP_rope_table: /* the host's, among the inputs */
        break;
    case OP_rope:
        if (n == 3) {
            emit_kv_write(t, op, n);
        } else {
            emit_rope(t, &op->u.rope);
        }
        break;
    case OP_kv_write:
        emit_kv_write(t, op, 1);
        break;
    case OP_attention:
        emit_attention(t, &op->u.attention, convert);
        break;
    case OP_glu:
        emit_glu(t, &op->u.glu, convert);
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
        emit_heads(t, op);
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
