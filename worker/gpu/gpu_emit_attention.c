/* Launches that write and read the KV cache (see gpu_emit.h). The token loop's thread; submits,
 * never waits. */
#include "worker/gpu/gpu_emit_op.h"

/* So many blocks leave most of a card idle: rather four times as many, each with a quarter of the
 * work, though the cache is then read by each head. */
enum { FEW_BLOCKS = 64 };

static struct kv_write_args kv_write_of(const struct gpu_emit *t, const struct op *ops, size_t n)
{
    const struct op_kv_write *o = &ops[n - 1].u.kv_write;
    const struct op_rope *q = n == 3 ? &ops[0].u.rope : NULL, *k = n == 3 ? &ops[1].u.rope : NULL;
    const struct kv_layer *l = &t->p->kv[o->layer];
    const struct op_rows *keys = k ? &k->x : &o->k;
    return (struct kv_write_args){
        .k = keys->data,
        .v = l->v_in_k ? NULL : o->v.data,
        .q = q ? q->x.data : NULL,
        .table = k ? gpu_emit_rope_table(t, &k->table) : NULL,
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
}

void gpu_emit_kv_write(const struct gpu_emit *t, const struct op *ops, size_t n)
{
    struct kv_write_args a = kv_write_of(t, ops, n);
    door_launch(t->door, table_kv_write((enum type)a.type), &a);
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
    bool fits = l->dim_k <= ATTENTION_TILE_DIM && l->dim_v <= ATTENTION_TILE_DIM;
    return fits ? table_attention_rows(&a) : 0;
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
        int32_t n_blocks = a.n_rows * a.n_splits * table_attention_chunks(&a, ATTENTION_HEADS);
        door_launch(t->door, n_blocks <= FEW_BLOCKS ? table_attention_split_one(l->type)
                                                    : table_attention_split(l->type), &a);
        if (a.n_splits > 1) {
            door_launch(t->door, TABLE_attention_fold, &a);
        }
    }
}

/* Each row is of a sequence of its own, and one launch of attention_split does them all: it can
 * write their keys and values first. */
static bool may_write(const struct gpu_emit *t, const struct op_attention *o)
{
    const struct kv_layer *l = &t->p->kv[o->layer];
    size_t bytes = (size_t)t->n_rows * part_of_row(o->n_head, l->dim_v, t->n_splits);
    return t->is_inner && t->in.n_runs == t->n_rows && bytes <= t->part_bytes &&
           l->dim_k <= ATTENTION_TILE_DIM && l->dim_v <= ATTENTION_TILE_DIM &&
           table_kv_write(l->type) == TABLE_kv_write;
}

static int32_t tiles_of(const struct gpu_emit *t, const struct op_attention *o)
{
    int32_t i = 0, n = gpu_emit_tile_rows(t->p, o);
    while (i < t->n_tile_rows && t->tile_rows[i] != n) {
        i++;
    }
    return i < t->n_tile_rows && n > 0 && t->in.n_tiles[i] > 0 ? i : -1;
}

void gpu_emit_attention(const struct gpu_emit *t, const struct op *writes, const struct op *op,
                        const struct op *convert)
{
    const struct op_attention *o = &op->u.attention;
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
        .y = has_act ? gpu_emit_unless_unread(t, &o->y) : o->y.data,
        .act = act ? gpu_emit_act(act) : NULL,
        .q_stride = o->q.stride,
        .y_stride = o->y.stride,
        .act_stride = act ? gpu_emit_bytes(act) : 0,
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
    if (writes && tiles < 0 && may_write(t, o)) {
        a.write = kv_write_of(t, writes, 3);
    } else if (writes) {
        gpu_emit_kv_write(t, writes, 3);
    }
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
        gpu_emit_convert(t, &convert->u.convert);
    }
}
