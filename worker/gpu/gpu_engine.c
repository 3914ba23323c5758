/* One model on the GPU (see gpu_engine.h). The token loop's thread, once it is made. Blocks in door_wait. Nothing is
 * allocated after gpu_engine_create, on the device or here, but where the KV cache is resized. */
#include "worker/gpu/gpu_engine.h"

#include "shared/clock.h"
#include "shared/hash.h"
#include "shared/log.h"
#include "shared/num.h"
#include "worker/gpu/gpu_emit.h"
#include "worker/gpu/gpu_graph.h"
#include "worker/gpu/gpu_part.h"
#include "worker/gpu/gpu_top.h"
#include "worker/program_use.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    INPUT_ALIGN = 64,
    KV_PIECES = 8, /* resized one at a time: so much more is held for that moment */
    PART_BYTES = 64 << 20, /* of attention's scratch; more rows take several launches */
    GRAPH_ROWS = 32,       /* steps of so few rows are replayed */
    GRAPH_PARTS = 4,       /* of models of so few parts on the GPU: every part takes a graph for every key */
};

/* Memory of some layers' KV caches; layers on the CPU keep theirs in the pool's own. */
struct kv_piece {
    size_t first, end; /* layers */
    void *memory;      /* owned, on the device */
    int64_t n_blocks;  /* that it has room for */
};

struct gpu_engine {
    struct door *door; /* borrowed */
    struct program *p; /* borrowed */
    struct gpu_engine_options o;
    struct gpu_arena arena;
    void *memory; /* owned, on the device */
    struct kv_piece kv[KV_PIECES];
    struct gpu_weights weights;
    struct gpu_parts parts;
    char *buffers; /* on the device */
    char *host;    /* owned: the same buffers for the ops on the CPU; NULL: there are none */
    unsigned char *is_kv_here; /* owned; by KV layer: on the CPU */
    struct gpu_emit emit;
    unsigned char *is_unread; /* owned */
    int32_t *rope_of;         /* owned */
    const struct op_rope_table *ropes[GPU_EMIT_MAX_TABLES];
    int32_t n_ropes;
    char *inputs, *inputs_device; /* the host's is owned */
    int32_t *tables, *tables_device;
    float *part;
    size_t part_bytes;
    float *states; /* of every slot, on the device; NULL: the program has none */
    float *spare;  /* one slot: a step that is checked is computed twice */
    int32_t *heads;
    void *heads_scratch;
    float *logits; /* owned */
    struct gpu_top top;
    int32_t n_top; /* in the running step */
    struct gpu_graphs graphs;
    bool has_tiles; /* in the running step */
    bool is_result_there; /* the logits come from the device */
    uint64_t n_steps;
    int64_t decode_rows; /* of the steps that the parts' decode_ns are of */
};

/* --- making ----------------------------------------------------------------------------------------- */

static size_t aligned(size_t n)
{
    return (n + INPUT_ALIGN - 1) / INPUT_ALIGN * INPUT_ALIGN;
}

static size_t inputs_bytes(const struct program *p, const struct gpu_engine_options *o)
{
    size_t rows = (size_t)o->max_rows, n = 4 * aligned(rows * sizeof(int32_t));
    n += aligned(rows * sizeof(struct args_run));
    n += GPU_EMIT_MAX_TABLES * aligned(2 * rows * sizeof(int32_t)); /* tiles */
    for (size_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].code == OP_rope_table) {
            n += aligned(rows * 2 * (size_t)p->ops[i].u.rope_table.n * sizeof(float));
        }
    }
    return n;
}

static int64_t blocks_of(int64_t n_tokens)
{
    return (n_tokens + KV_BLOCK - 1) / KV_BLOCK;
}

static int64_t splits_of(int64_t n_positions)
{
    return (n_positions + ATTENTION_SPLIT - 1) / ATTENTION_SPLIT;
}

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
    g->part_bytes = gpu_emit_part_bytes(p, o->max_rows, 2 * splits_of(o->n_ctx), PART_BYTES);
    g->part = gpu_arena_take(a, GPU_LABEL_SCRATCH, g->part_bytes);
    g->inputs_device = gpu_arena_take(a, GPU_LABEL_INPUTS, inputs_bytes(p, o));
    size_t tables = (size_t)(o->n_seqs * blocks_of(o->n_ctx)) * sizeof(int32_t);
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

/* --- the KV cache ------------------------------------------------------------------------------------ */

/* The piece's layers in memory for n_blocks: those blocks that fit both keep what they hold. */
static int place_piece(struct gpu_engine *g, struct kv_piece *piece, int64_t n_blocks, struct err *e)
{
    struct gpu_arena plan = {0}, fresh = {0};
    void *memory;
    for (size_t i = piece->first; i < piece->end; i++) {
        size_t bytes = g->is_kv_here[i] ? 0 : kv_block_bytes(&g->p->kv[i]) * (size_t)n_blocks;
        gpu_arena_take(&plan, GPU_LABEL_KV, bytes);
    }
    if (plan.used == 0) { /* all of them on the CPU */
        piece->n_blocks = n_blocks;
        return 0;
    }
    int err = door_allocate(g->door, plan.used, &memory, e);
    if (err < 0) {
        return err;
    }
    fresh.base = memory;
    for (size_t i = piece->first; i < piece->end; i++) {
        struct kv_layer *l = &g->p->kv[i];
        if (g->is_kv_here[i]) {
            continue;
        }
        size_t bytes = kv_block_bytes(l) * (size_t)n_blocks;
        size_t kept = kv_block_bytes(l) * (size_t)MIN(n_blocks, piece->n_blocks);
        char *data = gpu_arena_take(&fresh, GPU_LABEL_KV, bytes);
        door_copy(g->door, data, l->data, kept);
        /* Attention loads whole blocks, and drops what nobody wrote. */
        door_zero(g->door, data + kept, bytes - kept);
        l->data = data;
    }
    door_wait(g->door, 0);
    door_free(g->door, piece->memory);
    piece->memory = memory;
    piece->n_blocks = n_blocks;
    return 0;
}

static int take_kv(struct gpu_engine *g, int64_t n_blocks, struct err *e)
{
    size_t n = g->p->n_kv;
    int err = 0;
    for (size_t i = 0; i < KV_PIECES && err == 0; i++) {
        struct kv_piece *k = &g->kv[i];
        *k = (struct kv_piece){.first = i * n / KV_PIECES, .end = (i + 1) * n / KV_PIECES};
        err = k->first < k->end ? place_piece(g, k, n_blocks, e) : 0;
    }
    return err;
}

int64_t gpu_engine_resize_kv(struct gpu_engine *g, int64_t n_blocks)
{
    int64_t least = n_blocks;
    for (size_t i = 0; i < KV_PIECES; i++) {
        struct kv_piece *k = &g->kv[i];
        struct err e;
        if (k->first == k->end || k->n_blocks == n_blocks) {
            continue;
        }
        if (place_piece(g, k, n_blocks, &e) < 0) {
            log_info("a part of the KV cache keeps its size: %s", e.detail);
        }
        gpu_graphs_forget(&g->graphs);
        least = MIN(least, k->n_blocks);
    }
    return least < n_blocks ? gpu_engine_resize_kv(g, least) : n_blocks; /* a part could not grow */
}

struct gpu_arena gpu_engine_memory(const struct gpu_engine *g)
{
    struct gpu_arena a = g->arena;
    for (size_t i = 0; i < KV_PIECES; i++) {
        const struct kv_piece *k = &g->kv[i];
        for (size_t layer = k->first; layer < k->end; layer++) {
            size_t one = g->is_kv_here[layer] ? 0 : kv_block_bytes(&g->p->kv[layer]);
            gpu_arena_take(&a, GPU_LABEL_KV, one * (size_t)k->n_blocks);
        }
    }
    return a;
}

/* --- making, all of it ------------------------------------------------------------------------------- */

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
    size_t tables = (size_t)(o->n_seqs * blocks_of(o->n_ctx)) * sizeof(int32_t);
    size_t logits = (size_t)o->max_logits * (size_t)g->p->result.n * sizeof(float);
    g->inputs = door_host_allocate(g->door, inputs_bytes(g->p, o));
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
    err = err < 0 ? err : take_kv(g, o->n_blocks, e);
    err = err < 0 ? err : take_host(g, e);
    err = err < 0 ? err : upload_heads(g);
    err = err < 0 ? err
                  : gpu_weights_upload(&g->weights, p, d, o->pool, o->progress, o->progress_arg);
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
    g->emit.max_blocks = blocks_of(o->n_ctx);
    g->emit.part = g->part;
    g->emit.part_bytes = g->part_bytes;
    g->emit.state_floats = state_floats(p);
    g->emit.heads = g->heads;
    g->emit.heads_scratch = g->heads_scratch;
    gpu_graphs_init(&g->graphs, d);
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
    gpu_weights_finish(&g->weights);
    door_host_free(g->door, g->inputs);
    door_host_free(g->door, g->tables);
    door_host_free(g->door, g->logits);
    gpu_top_finish(&g->top, g->door);
    door_host_free(g->door, g->host);
    for (size_t i = 0; i < KV_PIECES; i++) {
        door_free(g->door, g->kv[i].memory);
    }
    door_free(g->door, g->memory);
    gpu_parts_finish(&g->parts);
    free(g->is_kv_here);
    free(g->is_unread);
    free(g->rope_of);
    free(g);
}

/* --- inputs --------------------------------------------------------------------------------------------- */

struct filling {
    struct gpu_engine *g;
    size_t used;
};

/* Room for n bytes on both sides. */
static void *place(struct filling *f, size_t bytes, const void **ret_device)
{
    void *host = f->g->inputs + f->used;
    *ret_device = f->g->inputs_device + f->used;
    f->used += aligned(bytes);
    return host;
}

static const int32_t *place_ids(struct filling *f, const int32_t *ids, int64_t n)
{
    const void *device;
    memcpy(place(f, (size_t)n * sizeof *ids, &device), ids, (size_t)n * sizeof *ids);
    return device;
}

/* In double precision, as on the CPU. */
static const float *place_rope(struct filling *f, const struct op_rope_table *o,
                               const struct op_step *s)
{
    const void *device;
    float *y = place(f, (size_t)s->n_rows * 2 * (size_t)o->n * sizeof *y, &device);
    for (int64_t r = 0; r < s->n_rows; r++, y += 2 * o->n) {
        for (int64_t i = 0; i < o->n; i++) {
            double angle = (double)s->positions[r] * o->inv_freq[i], sine, cosine;
            sincos(angle, &sine, &cosine);
            y[i] = (float)(cosine * (double)o->mscale);
            y[o->n + i] = (float)(sine * (double)o->mscale);
        }
    }
    return device;
}

/* Sequences with many rows are attended to in tiles; the others row by row, as many as stand together at once. */
static void cut_rows(struct gpu_engine *g, const struct op_step *s, bool *ret_has_tiles)
{
    struct gpu_emit *t = &g->emit;
    t->n_pieces = 0;
    *ret_has_tiles = false;
    for (int64_t i = 0; i < s->n_runs; i++) {
        const struct op_run *run = &s->runs[i];
        struct gpu_piece *last = t->n_pieces > 0 ? &t->pieces[t->n_pieces - 1] : NULL;
        if (run->n >= GPU_EMIT_TILE_ROWS || t->n_pieces == GPU_EMIT_MAX_PIECES) {
            *ret_has_tiles = true;
        } else if (last && last->first + last->n == run->first) {
            last->n += (int32_t)run->n;
        } else {
            t->pieces[t->n_pieces++] = (struct gpu_piece){(int32_t)run->first, (int32_t)run->n};
        }
    }
}

static bool is_in_piece(const struct gpu_emit *t, int64_t row)
{
    for (int32_t i = 0; i < t->n_pieces; i++) {
        if (row >= t->pieces[i].first && row < t->pieces[i].first + t->pieces[i].n) {
            return true;
        }
    }
    return false;
}

static void place_tiles(struct filling *f, const struct op_step *s, int32_t which)
{
    struct gpu_emit *t = &f->g->emit;
    const void *device;
    int32_t rows = t->tile_rows[which], n = 0;
    int32_t *tiles = place(f, 2 * (size_t)s->n_rows * sizeof *tiles, &device);
    for (int64_t i = 0; i < s->n_runs; i++) {
        const struct op_run *run = &s->runs[i];
        for (int64_t k = 0; k < run->n && !is_in_piece(t, run->first); k += rows) {
            tiles[2 * n] = (int32_t)(run->first + k);
            tiles[2 * n++ + 1] = (int32_t)MIN(rows, run->n - k);
        }
    }
    t->in.tiles[which] = device;
    t->in.n_tiles[which] = n;
}

/* The layout depends on the numbers of rows only, so that a graph finds everything where it was. */
static void upload_inputs(struct gpu_engine *g, const struct op_step *s, int64_t n_out)
{
    struct filling f = {g, 0};
    const void *device;
    g->emit.in.tokens = place_ids(&f, s->tokens, s->n_rows);
    g->emit.in.positions = place_ids(&f, s->positions, s->n_rows);
    int32_t *slots = place(&f, (size_t)s->n_rows * sizeof *slots, &device);
    g->emit.in.row_table = device;
    for (int64_t i = 0; i < s->n_runs; i++) {
        for (int64_t k = 0; k < s->runs[i].n; k++) {
            slots[s->runs[i].first + k] = s->runs[i].state;
        }
    }
    struct args_run *runs = place(&f, (size_t)s->n_rows * sizeof *runs, &device);
    g->emit.in.runs = device;
    g->emit.in.n_runs = (int32_t)s->n_runs;
    for (int64_t i = 0; i < s->n_runs; i++) {
        runs[i] = (struct args_run){.first = (int32_t)s->runs[i].first,
                                    .n = (int32_t)s->runs[i].n,
                                    .state = s->runs[i].state};
    }
    g->emit.in.out_rows = place_ids(&f, s->out_rows, n_out);
    for (int32_t i = 0; i < g->n_ropes; i++) {
        g->emit.in.rope[i] = place_rope(&f, g->ropes[i], s);
    }
    bool has_tiles;
    cut_rows(g, s, &has_tiles);
    for (int32_t i = 0; i < g->emit.n_tile_rows; i++) {
        g->emit.in.n_tiles[i] = 0;
        if (has_tiles) {
            place_tiles(&f, s, i);
        }
    }
    g->has_tiles = has_tiles;
    door_upload(g->door, g->inputs_device, g->inputs, f.used);
}

/* Uploads what has changed of the block tables of the sequences in the step. */
static void upload_tables(struct gpu_engine *g, const struct op_step *s)
{
    int64_t stride = blocks_of(g->o.n_ctx);
    for (int64_t i = 0; i < s->n_runs; i++) {
        const struct op_run *run = &s->runs[i];
        int64_t n = blocks_of(run->pos + run->n), first = 0;
        int32_t *known = g->tables + run->state * stride;
        while (first < n && known[first] == run->blocks[first]) {
            first++;
        }
        size_t bytes = (size_t)(n - first) * sizeof *known;
        memcpy(known + first, run->blocks + first, bytes);
        door_upload(g->door, g->tables_device + run->state * stride + first, known + first, bytes);
    }
}

/* --- steps ------------------------------------------------------------------------------------------------ */

/* The program's, in its last op. */
static bool has_result(const struct gpu_engine *g, const struct gpu_part *part)
{
    return part == &g->parts.v[g->parts.n - 1];
}

static void emit_part(struct gpu_engine *g, const struct gpu_part *part)
{
    for (size_t i = part->first; i < part->end; i += 1u + g->p->ops[i].n_joined) {
        gpu_emit(&g->emit, i);
    }
    if (g->n_top > 0 && has_result(g, part)) {
        gpu_top_emit(&g->top, g->door, &g->p->result, g->emit.n_out, g->n_top);
    }
}

static void download_row(struct gpu_engine *g, int64_t i)
{
    const struct op_rows *y = &g->p->result;
    door_download(g->door, g->logits + i * y->n, y->data + i * y->stride, (size_t)y->n * sizeof(float));
}

static void download_logits(struct gpu_engine *g, int64_t n_out, const bool *travels)
{
    const struct op_rows *y = &g->p->result;
    if (!travels && n_out > 0 && y->stride == y->n) {
        door_download(g->door, g->logits, y->data, (size_t)(n_out * y->n) * sizeof(float));
        return;
    }
    for (int64_t i = 0; i < n_out; i++) {
        if (!travels || travels[i]) {
            download_row(g, i);
        }
    }
}

const float *gpu_engine_logits(struct gpu_engine *g, int64_t i)
{
    download_row(g, i);
    door_wait(g->door, 0);
    return g->logits + i * g->p->result.n;
}

int32_t gpu_engine_top_size(const struct gpu_engine *g, int32_t n_wanted)
{
    return g->is_result_there ? gpu_top_round(&g->top, n_wanted) : 0;
}

struct engine_top gpu_engine_top(const struct gpu_engine *g, int64_t i)
{
    return gpu_top_of(&g->top, i);
}

bool gpu_engine_is_finite(const struct gpu_engine *g, int64_t i)
{
    return gpu_top_is_finite(&g->top, i);
}

/* A power of two, so that few graphs serve all lengths. */
static int32_t round_splits(int64_t n)
{
    int32_t rounded = 1;
    while (rounded < n) {
        rounded *= 2;
    }
    return rounded;
}

static int64_t last_position(const struct op_step *s)
{
    int64_t last = 0;
    for (int64_t i = 0; i < s->n_runs; i++) {
        last = MAX(last, s->runs[i].pos + s->runs[i].n);
    }
    return last;
}

static void compute(struct gpu_engine *g, const struct gpu_part *part, const struct op_step *s,
                    int64_t n_out)
{
    struct gpu_graph_key key = {(int32_t)s->n_rows, (int32_t)n_out, g->emit.n_splits,
                                has_result(g, part) ? g->n_top : 0, (int32_t)(part - g->parts.v),
                                g->p->n_states > 0 ? (int32_t)s->n_runs : 0};
    bool may_replay = s->n_rows <= GRAPH_ROWS && !g->has_tiles && !g->o.is_safe &&
                      g->parts.n_gpu <= GRAPH_PARTS;
    enum gpu_graph_way way = may_replay ? gpu_graphs_way(&g->graphs, &key) : GPU_GRAPH_PLAIN;
    if (way == GPU_GRAPH_REPLAY && gpu_graphs_replay(&g->graphs, &key) == 0) {
        return;
    }
    if (way == GPU_GRAPH_RECORD && gpu_graphs_begin(&g->graphs) == 0) {
        emit_part(g, part);
        if (gpu_graphs_end(&g->graphs, &key) == 0 && gpu_graphs_replay(&g->graphs, &key) == 0) {
            return;
        }
    }
    emit_part(g, part);
}

/* What the part gives to the host; travels: see gpu_engine_step. */
static void download(struct gpu_engine *g, const struct gpu_part *part, int64_t n_rows, int64_t n_out,
                     const bool *travels)
{
    for (int32_t i = 0; i < part->n_out; i++) {
        size_t at = g->p->bufs[part->out[i]].offset;
        door_download(g->door, g->host + at, g->buffers + at,
                      gpu_parts_bytes(g->p, part->out[i], n_rows, n_out));
    }
    if (has_result(g, part)) {
        download_logits(g, n_out, travels);
    }
    if (has_result(g, part) && g->n_top > 0) {
        gpu_top_download(&g->top, g->door, n_out, g->n_top);
    }
}

/* Of what the part has given to the host. */
static uint32_t sum_of(const struct gpu_engine *g, const struct gpu_part *part, int64_t n_rows,
                       int64_t n_out)
{
    uint32_t sum = 0;
    for (int32_t i = 0; i < part->n_out; i++) {
        sum = hash_crc32c(sum, g->host + g->p->bufs[part->out[i]].offset,
                          gpu_parts_bytes(g->p, part->out[i], n_rows, n_out));
    }
    if (has_result(g, part)) {
        sum = hash_crc32c(sum, g->logits, (size_t)(n_out * g->p->result.n) * sizeof(float));
    }
    return sum;
}

static float *slot_at(const struct gpu_engine *g, int64_t slot)
{
    return g->states + slot * g->emit.state_floats;
}

static void copy_slot(struct gpu_engine *g, const float *from, float *to)
{
    door_copy(g->door, to, from, (size_t)g->emit.state_floats * sizeof(float));
}

/* A part that was replayed, once more on the plain path, which writes the same values to the same places. */
static void check_replay(struct gpu_engine *g, const struct gpu_part *part, const struct op_step *s,
                         int64_t n_out)
{
    uint32_t replayed = sum_of(g, part, s->n_rows, n_out);
    if (g->p->n_states > 0) {
        copy_slot(g, g->spare, slot_at(g, s->runs[0].state));
    }
    emit_part(g, part);
    download(g, part, s->n_rows, n_out, NULL);
    door_wait(g->door, 0);
    gpu_graphs_checked(&g->graphs, replayed == sum_of(g, part, s->n_rows, n_out));
}

static void run_here(struct gpu_engine *g, const struct gpu_part *part, const struct op_step *s,
                     int64_t n_out)
{
    for (size_t i = part->first; i < part->end; i += 1u + g->p->ops[i].n_joined) {
        program_run_op(g->p, i, s, n_out);
    }
}

static void run_there(struct gpu_engine *g, struct gpu_part *part, const struct op_step *s,
                      int64_t n_out, const bool *travels)
{
    bool is_decode = s->n_rows == s->n_runs;
    bool has_states = g->p->n_states > 0, may_check = !has_states || s->n_runs == 1;
    uint64_t start = clock_ns();
    for (int32_t i = 0; i < part->n_in; i++) {
        size_t at = g->p->bufs[part->in[i]].offset;
        door_upload(g->door, g->buffers + at, g->host + at,
                    gpu_parts_bytes(g->p, part->in[i], s->n_rows, n_out));
    }
    if (has_states && may_check && gpu_graphs_checks_on(&g->graphs)) {
        copy_slot(g, slot_at(g, s->runs[0].state), g->spare);
    }
    compute(g, part, s, n_out);
    bool is_checked = gpu_graphs_wants_check(&g->graphs) && may_check;
    download(g, part, s->n_rows, n_out, g->n_top > 0 && !is_checked ? travels : NULL);
    door_wait(g->door, is_decode ? part->decode_ns : 0);
    if (is_decode) {
        uint64_t took = clock_ns() - start;
        part->decode_ns = part->decode_ns ? (7 * part->decode_ns + took) / 8 : took;
    }
    if (is_checked) {
        check_replay(g, part, s, n_out);
    }
}

/* Of ops on the CPU, whose logits are beside those of a device. */
static void take_logits(struct gpu_engine *g, int64_t n_out)
{
    const struct op_rows *y = &g->p->result;
    for (int64_t i = 0; i < n_out; i++) {
        memcpy(g->logits + i * y->n, y->data + i * y->stride, (size_t)y->n * sizeof(float));
    }
}

const float *gpu_engine_step(struct gpu_engine *g, const struct op_step *s, int64_t n_out, int32_t n_top,
                             const bool *travels)
{
    bool is_decode = s->n_rows == s->n_runs;
    door_note(g->door, g->o.is_safe || g->n_steps == 0, "step %llu, %s of %lld rows",
              (unsigned long long)g->n_steps, is_decode ? "decode" : "prefill",
              (long long)s->n_rows);
    g->emit.n_rows = s->n_rows;
    g->emit.n_out = n_out;
    g->emit.n_splits = round_splits(splits_of(last_position(s)));
    g->n_top = n_top;
    upload_inputs(g, s, n_out);
    upload_tables(g, s);
    if (is_decode && s->n_rows != g->decode_rows) {
        /* Slept through, a step of fewer rows would seem to take as long as one of more. */
        g->decode_rows = s->n_rows;
        for (int32_t i = 0; i < g->parts.n; i++) {
            g->parts.v[i].decode_ns = 0;
        }
    }
    for (int32_t i = 0; i < g->parts.n; i++) {
        struct gpu_part *part = &g->parts.v[i];
        if (part->place == OP_ON_GPU) {
            run_there(g, part, s, n_out, travels);
        } else {
            run_here(g, part, s, n_out);
        }
    }
    g->n_steps++;
    if (!g->is_result_there) {
        door_wait(g->door, 0); /* the inputs are written again by the next step */
        take_logits(g, n_out);
    }
    return g->logits;
}

void gpu_engine_copy_block(void *gpu_engine, int32_t from, int32_t to)
{
    struct gpu_engine *g = gpu_engine;
    for (size_t i = 0; i < g->p->n_kv; i++) {
        const struct kv_layer *l = &g->p->kv[i];
        size_t bytes = kv_block_bytes(l);
        char *at = l->data + (size_t)to * bytes;
        const char *source = l->data + (size_t)from * bytes;
        if (g->is_kv_here[i]) {
            memcpy(at, source, bytes);
        } else {
            door_copy(g->door, at, source, bytes);
        }
    }
}

void gpu_engine_zero_state(struct gpu_engine *g, int64_t slot)
{
    if (g->emit.state_floats > 0) {
        door_zero(g->door, slot_at(g, slot), (size_t)g->emit.state_floats * sizeof(float));
    }
}

void gpu_engine_copy_state(struct gpu_engine *g, int64_t from, int64_t to)
{
    if (g->emit.state_floats > 0) {
        copy_slot(g, slot_at(g, from), slot_at(g, to));
    }
}
