/* What the host gives to a step: tokens, positions, rotations, tiles, block tables (see
 * gpu_engine.h). The token loop's thread; submits, never waits. */
#include "worker/gpu/gpu_engine_state.h"

#include "shared/num.h"

#include <math.h>
#include <string.h>

enum { INPUT_ALIGN = 64 };

static size_t aligned(size_t n)
{
    return (n + INPUT_ALIGN - 1) / INPUT_ALIGN * INPUT_ALIGN;
}

size_t gpu_engine_input_bytes(const struct program *p, const struct gpu_engine_options *o)
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

/* Sequences with many rows are attended to in tiles; the others row by row, as many as stand
 * together at once. */
static void cut_rows(struct gpu_engine *g, const struct op_step *s)
{
    struct gpu_emit *t = &g->emit;
    t->n_pieces = 0;
    for (int64_t i = 0; i < s->n_runs; i++) {
        const struct op_run *run = &s->runs[i];
        struct gpu_piece *last = t->n_pieces > 0 ? &t->pieces[t->n_pieces - 1] : NULL;
        bool is_tiled = run->n >= GPU_EMIT_TILE_ROWS || t->n_pieces == GPU_EMIT_MAX_PIECES;
        if (!is_tiled && last && last->first + last->n == run->first) {
            last->n += (int32_t)run->n;
        } else if (!is_tiled) {
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
static void upload_rows(struct gpu_engine *g, const struct op_step *s, int64_t n_out)
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
    bool has_tiles = gpu_route_takes(&g->route, GPU_WAY_TILES);
    cut_rows(g, s);
    for (int32_t i = 0; i < g->emit.n_tile_rows; i++) {
        g->emit.in.n_tiles[i] = 0;
        if (has_tiles) {
            place_tiles(&f, s, i);
        }
    }
    door_upload(g->door, g->inputs_device, g->inputs, f.used);
}

/* Uploads what has changed of the block tables of the sequences in the step. */
static void upload_tables(struct gpu_engine *g, const struct op_step *s)
{
    int64_t stride = gpu_engine_blocks_of(g->o.n_ctx);
    for (int64_t i = 0; i < s->n_runs; i++) {
        const struct op_run *run = &s->runs[i];
        int64_t n = gpu_engine_blocks_of(run->pos + run->n), first = 0;
        int32_t *known = g->tables + run->state * stride;
        while (first < n && known[first] == run->blocks[first]) {
            first++;
        }
        size_t bytes = (size_t)(n - first) * sizeof *known;
        memcpy(known + first, run->blocks + first, bytes);
        door_upload(g->door, g->tables_device + run->state * stride + first, known + first, bytes);
    }
}
void gpu_engine_upload_inputs(struct gpu_engine *g, const struct op_step *s, int64_t n_out)
{
    upload_rows(g, s, n_out);
    upload_tables(g, s);
}
