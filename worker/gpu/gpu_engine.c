/* One model on the GPU: made and unmade (see gpu_engine.h). The thread that loads, later the token
 * loop's. Nothing is allocated after gpu_engine_create, on the device or here, but where the KV
 * cache is resized. */
#include "worker/gpu/gpu_engine_state.h"

#include "shared/num.h"
#include "worker/program_use.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PART_BYTES = 64 << 20 }; /* of attention's scratch; more rows take several launches */

static int64_t state_floats(const struct program *p)
{
    int64_t n = 0;
    for (size_t i = 0; i < p->n_states; i++) {
        n += p->states[i].slot_floats;
    }
    return n;
}

/* Takes everything but the KV cache and the sequences' states from the arena. */
static int take(struct gpu_engine *g, struct program *p, const struct gpu_engine_options *o,
                struct gpu_arena *a)
{
    int err = gpu_weights_plan(&g->weights, p, a);
    if (err < 0) {
        return err;
    }
    g->buffers = gpu_arena_take(a, GPU_LABEL_BUFFERS, p->memory_bytes);
    g->part_bytes =
        gpu_emit_part_bytes(p, o->max_rows, 2 * gpu_engine_splits_of(o->n_ctx), PART_BYTES);
    g->part = gpu_arena_take(a, GPU_LABEL_SCRATCH, g->part_bytes);
    g->inputs_device = gpu_arena_take(a, GPU_LABEL_INPUTS, gpu_engine_input_bytes(p, o));
    size_t tables = (size_t)(o->n_seqs * gpu_engine_blocks_of(o->n_ctx)) * sizeof(int32_t);
    g->tables_device = gpu_arena_take(a, GPU_LABEL_INPUTS, tables);
    int32_t n_heads;
    size_t heads = gpu_emit_heads_bytes(p, o->max_rows, &n_heads);
    g->heads = gpu_arena_take(a, GPU_LABEL_INPUTS, (size_t)n_heads * sizeof *g->heads);
    g->heads_scratch = gpu_arena_take(a, GPU_LABEL_SCRATCH, heads);
    g->spare = gpu_arena_take(a, GPU_LABEL_STATES, (size_t)state_floats(p) * sizeof *g->spare);
    gpu_top_take(&g->top, a, o->max_logits, p->result.n);
    if (a->base) {
        program_place(p, OP_ON_GPU, g->buffers);
    }
    return 0;
}

int gpu_engine_plan(struct program *p, const struct gpu_engine_options *o, struct gpu_arena *ret)
{
    struct gpu_engine g = {0};
    *ret = (struct gpu_arena){0};
    int err = take(&g, p, o, ret);
    gpu_weights_finish(&g.weights);
    return err;
}

static void take_states(struct gpu_engine *g, struct program *p, const struct gpu_engine_options *o,
                        struct gpu_arena *a)
{
    int64_t of_slot = state_floats(p), n_slots = o->n_seqs + o->n_snapshots;
    g->states = gpu_arena_take(a, GPU_LABEL_STATES, (size_t)(of_slot * n_slots) * sizeof(float));
    float *of_layer = g->states;
    for (size_t i = 0; i < p->n_states && a->base; i++) {
        p->states[i].data = of_layer;
        of_layer += p->states[i].slot_floats;
    }
}

static int upload_heads(struct gpu_engine *g)
{
    int32_t n;
    (void)gpu_emit_heads_bytes(g->p, 1, &n);
    int32_t *ids = malloc(((size_t)n + 1) * sizeof *ids);
    if (!ids) {
        return -ENOMEM;
    }
    for (int32_t i = 0; i < n; i++) {
        ids[i] = i;
    }
    if (n > 0) {
        door_upload_now(g->door, g->heads, ids, (size_t)n * sizeof *ids);
    }
    free(ids);
    return 0;
}

static void note_tile_rows(struct gpu_engine *g, int32_t n)
{
    struct gpu_emit *t = &g->emit;
    for (int32_t i = 0; i < t->n_tile_rows; i++) {
        if (t->tile_rows[i] == n) {
            return;
        }
    }
    if (n > 0 && t->n_tile_rows < GPU_EMIT_MAX_TABLES) { /* without an entry: row by row */
        t->tile_rows[t->n_tile_rows++] = n;
    }
}

/* Which values nobody but the ops joined with their own reads, and where rotations come from. */
static int look_at_buffers(struct gpu_engine *g)
{
    struct program *p = g->p;
    struct program_use *use = program_find_uses(p);
    g->is_unread = calloc(p->n_bufs + 1, 1);
    g->rope_of = malloc((p->n_bufs + 1) * sizeof *g->rope_of);
    g->is_kv_here = calloc(p->n_kv + 1, 1);
    if (!use || !g->is_unread || !g->rope_of || !g->is_kv_here) {
        free(use);
        return -ENOMEM;
    }
    for (size_t i = 0; i < p->n_kv; i++) {
        g->is_kv_here[i] = program_kv_place(p, i) == OP_ON_CPU;
    }
    for (size_t i = 0; i < p->n_bufs; i++) {
        g->is_unread[i] = use[i].n_readers == 1;
        g->rope_of[i] = -1;
    }
    free(use);
    for (size_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].code == OP_attention && p->ops[i].place == OP_ON_GPU) {
            note_tile_rows(g, gpu_emit_tile_rows(p, &p->ops[i].u.attention));
        }
        if (p->ops[i].code == OP_order) {
            g->n_used = MAX(g->n_used, p->ops[i].u.order.n_used);
        }
        if (p->ops[i].code == OP_rope_table) {
            if (g->n_ropes == GPU_EMIT_MAX_TABLES) {
                return -ENOTSUP;
            }
            g->ropes[g->n_ropes] = &p->ops[i].u.rope_table;
            g->rope_of[p->ops[i].u.rope_table.y.buf] = g->n_ropes++;
        }
    }
    return 0;
}

static int take_host(struct gpu_engine *g, struct err *e)
{
    const struct gpu_engine_options *o = &g->o;
    size_t tables = (size_t)(o->n_seqs * gpu_engine_blocks_of(o->n_ctx)) * sizeof(int32_t);
    size_t logits = (size_t)o->max_logits * (size_t)g->p->result.n * sizeof(float);
    g->inputs = door_host_allocate(g->door, gpu_engine_input_bytes(g->p, o));
    g->tables = door_host_allocate(g->door, tables);
    g->logits = door_host_allocate(g->door, logits);
    if (!g->inputs || !g->tables || !g->logits || !gpu_top_take_host(&g->top, g->door)) {
        return err_set(e, ERR_NO_MEMORY, "%.1f MiB of pinned memory",
                       (double)(logits + tables) / 1048576);
    }
    memset(g->tables, 0xff, tables);
    if (g->parts.n == g->parts.n_gpu) {
        return 0;
    }
    g->host = door_host_allocate(g->door, g->p->memory_bytes);
    if (!g->host) {
        return err_set(e, ERR_NO_MEMORY, "%.1f MiB of pinned memory",
                       (double)g->p->memory_bytes / 1048576);
    }
    program_place(g->p, OP_ON_CPU, g->host);
    return 0;
}

int gpu_engine_create(struct door *d, struct program *p, const struct gpu_engine_options *o,
                      struct gpu_engine **ret, struct err *e)
{
    struct gpu_engine *g = calloc(1, sizeof *g);
    if (!g) {
        return -ENOMEM;
    }
    g->door = d;
    g->p = p;
    g->o = *o;
    struct gpu_arena plan;
    int err = gpu_engine_plan(p, o, &plan);
    take_states(g, p, o, &plan);
    err = err < 0 ? err : look_at_buffers(g);
    err = err < 0 ? err : gpu_parts_find(&g->parts, p);
    err = err < 0 ? err : door_allocate(d, plan.used, &g->memory, e);
    if (err == 0) {
        g->arena.base = g->memory;
        err = take(g, p, o, &g->arena);
        take_states(g, p, o, &g->arena);
    }
    err = err < 0 ? err : gpu_engine_take_kv(g, o->n_blocks, e);
    err = err < 0 ? err : take_host(g, e);
    err = err < 0 ? err : upload_heads(g);
    err = err < 0 ? err
                  : gpu_weights_upload(&g->weights, p, d, o->pool, o->progress, o->progress_arg, e);
    if (err < 0) {
        gpu_engine_destroy(&g);
        return err;
    }
    g->is_result_there = program_result_place(p) == OP_ON_GPU;
    g->emit.door = d;
    g->emit.p = p;
    g->emit.weights = &g->weights;
    g->emit.is_unread = g->is_unread;
    g->emit.rope_of = g->rope_of;
    g->emit.tables = g->tables_device;
    g->emit.max_blocks = gpu_engine_blocks_of(o->n_ctx);
    g->emit.part = g->part;
    g->emit.part_bytes = g->part_bytes;
    g->emit.state_floats = state_floats(p);
    g->emit.heads = g->heads;
    g->emit.heads_scratch = g->heads_scratch;
    gpu_route_init(&g->route, o->is_safe);
    gpu_graphs_init(&g->graphs, d, &g->route);
    *ret = g;
    return 0;
}

void gpu_engine_destroy(struct gpu_engine **at)
{
    struct gpu_engine *g = *at;
    if (!g) {
        return;
    }
    *at = NULL;
    gpu_graphs_finish(&g->graphs);
    gpu_mirror_close(&g->mirror);
    gpu_weights_finish(&g->weights);
    door_host_free(g->door, g->inputs);
    door_host_free(g->door, g->tables);
    door_host_free(g->door, g->logits);
    gpu_top_finish(&g->top, g->door);
    door_host_free(g->door, g->host);
    gpu_engine_free_kv(g);
    door_free(g->door, g->memory);
    gpu_parts_finish(&g->parts);
    free(g->is_kv_here);
    free(g->is_unread);
    free(g->rope_of);
    free(g);
}

struct gpu_arena gpu_engine_memory(const struct gpu_engine *g)
{
    struct gpu_arena a = g->arena;
    gpu_engine_add_kv(g, &a);
    return a;
}
