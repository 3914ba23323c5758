/* Attention over the paged KV cache. Runs on the pool; nothing blocks but the pool itself.
 *
 * The keys of a sequence are cut into splits of SPLIT positions counted from position 0. A row's
 * softmax is computed inside each split alone and the splits' results are folded together in
 * ascending order. The cut depends on positions only, so a row's result is the same whatever else
 * is computed with it, wherever the prompt was cut, however many threads there are.
 *
 * Work is cut into items: some rows of one run, times the query heads that share a KV head, so that
 * a tile of keys is converted once for all of them. Where there are too few items for the threads
 * (decode), the splits of an item are computed side by side, and whoever finishes an item's last
 * split folds it, in the same order. */
#include "kernels/cpu/ops_job.h"
#include "kernels/cpu/vec.h"
#include "shared/num.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    SPLIT = 256, /* positions; part of the numeric profile */
    SPLIT_BLOCKS = SPLIT / KV_BLOCK,
    ITEM_ROWS = 64,                /* (row, head) pairs of an item, at most */
    PARTS_BYTES = 16 * 1024 * 1024 /* for the results of splits computed side by side */
};

/* Below any score; a softmax over nothing has this maximum and the sum 0. */
#define NO_SCORE (-1e30f)

/* --- geometry
 * --------------------------------------------------------------------------------------*/

struct shape {
    int64_t group;      /* query heads of a KV head */
    int64_t item_heads; /* heads of an item: the group, or a chunk of a large one */
    int64_t n_chunks;   /* chunks of a group */
    int64_t item_rows;  /* rows of an item, at most */
    int64_t dim_k, dim_v;
    int64_t pad_v; /* dim_v padded to VEC_PAD */
};

static struct shape shape_of(const struct op_attention *o, const struct kv_layer *l)
{
    struct shape g = {.group = o->n_head / l->n_head, .dim_k = l->dim_k, .dim_v = l->dim_v};
    g.item_heads = MIN(g.group, (int64_t)ITEM_ROWS / 2);
    g.n_chunks = (g.group + g.item_heads - 1) / g.item_heads;
    g.item_rows = MAX((int64_t)1, ITEM_ROWS / g.item_heads);
    g.pad_v = (int64_t)num_pad((uint64_t)l->dim_v, VEC_PAD);
    return g;
}

/* A split's, or an item's, softmax so far, for up to ITEM_ROWS rows: maximum, sum, weighted values.
 */
struct part {
    float *max, *sum, *acc;
};

static size_t part_floats(const struct shape *g, int64_t n_rows)
{
    return (size_t)n_rows * (2 + (size_t)g->pad_v);
}

static struct part part_at(float *memory, int64_t n_rows)
{
    return (struct part){memory, memory + n_rows, memory + 2 * n_rows};
}

/* What a thread computes with: packed queries, a tile of keys and of values, scores, two parts. */
struct work {
    float *q, *kt, *v, *scores;
    struct part split, total;
};

static size_t work_floats(const struct shape *g)
{
    return (size_t)ITEM_ROWS * (size_t)g->dim_k + (size_t)KV_BLOCK * (size_t)(g->dim_k + g->pad_v) +
           (size_t)ITEM_ROWS * SPLIT + 2 * part_floats(g, ITEM_ROWS);
}

static struct work work_at(const struct shape *g, float *memory)
{
    struct work w;
    w.q = memory;
    w.kt = w.q + ITEM_ROWS * g->dim_k;
    w.v = w.kt + KV_BLOCK * g->dim_k;
    w.scores = w.v + KV_BLOCK * g->pad_v;
    w.split = part_at(w.scores + ITEM_ROWS * SPLIT, ITEM_ROWS);
    w.total = part_at(w.split.max + part_floats(g, ITEM_ROWS), ITEM_ROWS);
    return w;
}

struct job {
    const struct op_attention *o;
    const struct op_step *s;
    const struct kv_layer *layer;
    const struct vec *vec;
    struct shape g;
    float *work;           /* per thread */
    float *parts;          /* when splits run side by side: n_items * n_splits parts */
    _Atomic int32_t *done; /* per item: splits finished */
    int64_t n_splits;      /* of the longest run */
    int64_t part_rows;     /* (row, head) pairs of the largest item */
};

/* Rows [row, row + n_rows) of a run, query heads [head, head + n_heads) that share kv_head. */
struct item {
    const struct op_run *run;
    int64_t row, n_rows, head, n_heads, kv_head;
    int64_t first_pos; /* of the first row */
    int64_t first_split, end_split;
};

static int64_t run_tiles(const struct job *j, const struct op_run *run)
{
    return (run->n + j->g.item_rows - 1) / j->g.item_rows;
}

static int64_t count_items(const struct job *j)
{
    int64_t n = 0;
    for (int64_t i = 0; i < j->s->n_runs; i++) {
        n += run_tiles(j, &j->s->runs[i]);
    }
    return n * j->layer->n_head * j->g.n_chunks;
}

static struct item item_at(const struct job *j, int64_t index)
{
    struct item it = {.run = j->s->runs};
    int64_t per_tile = j->layer->n_head * j->g.n_chunks;
    int64_t tile = index / per_tile, rest = index % per_tile;
    while (tile >= run_tiles(j, it.run)) {
        tile -= run_tiles(j, it.run);
        it.run++;
    }
    it.row = tile * j->g.item_rows;
    it.n_rows = MIN(j->g.item_rows, it.run->n - it.row);
    it.kv_head = rest / j->g.n_chunks;
    int64_t chunk = rest % j->g.n_chunks * j->g.item_heads;
    it.head = it.kv_head * j->g.group + chunk;
    it.n_heads = MIN(j->g.item_heads, j->g.group - chunk);
    it.first_pos = it.run->pos + it.row;
    int64_t lowest = j->o->window > 0 ? MAX((int64_t)0, it.first_pos - j->o->window + 1) : 0;
    it.first_split = lowest / SPLIT;
    it.end_split = (it.first_pos + it.n_rows - 1) / SPLIT + 1;
    return it;
}

/* --- one split
 * -------------------------------------------------------------------------------------*/

static void pack_queries(const struct job *j, const struct item *it, float *q)
{
    for (int64_t r = 0; r < it->n_rows; r++) {
        const float *row = op_row(&j->o->q, it->run->first + it->row + r);
        memcpy(q + r * it->n_heads * j->g.dim_k, row + it->head * j->g.dim_k,
               (size_t)(it->n_heads * j->g.dim_k) * sizeof *q);
    }
}

/* Positions of the split that row r may see: [*lo, *hi) relative to the split's first. */
static void visible(const struct job *j, const struct item *it, int64_t r, int64_t base,
                    int64_t *lo, int64_t *hi)
{
    int64_t pos = it->first_pos + r;
    int64_t lowest = j->o->window > 0 ? pos - j->o->window + 1 : 0;
    *lo = MIN(MAX(lowest - base, (int64_t)0), (int64_t)SPLIT);
    *hi = MIN(MAX(pos + 1 - base, *lo), (int64_t)SPLIT);
}

/* Scores to probabilities, for one (row, head): what the row may not see becomes 0. */
static void soften(const struct job *j, const struct item *it, int64_t r, int64_t head,
                   int64_t base, int64_t n, float *scores, float *ret_max, float *ret_sum)
{
    const struct op_attention *o = j->o;
    int64_t lo, hi;
    visible(j, it, r, base, &lo, &hi);
    float *x = scores + lo;
    if (o->softcap > 0) {
        j->vec->softcap(x, x, o->scale, o->softcap, hi - lo);
    } else {
        j->vec->affine(x, x, 0, o->scale, NULL, NULL, hi - lo);
    }
    if (o->alibi) {
        int64_t pos = it->first_pos + r;
        for (int64_t i = lo; i < hi; i++) {
            scores[i] += o->alibi[head] * (float)(base + i - pos);
        }
    }
    *ret_sum = j->vec->softmax(x, hi - lo, NO_SCORE, ret_max);
    memset(scores, 0, (size_t)lo * sizeof *scores);
    memset(scores + hi, 0, (size_t)MAX(n - hi, (int64_t)0) * sizeof *scores);
}

/* A tile of the cache, or its copy in F32. */
struct tile {
    const void *data;
    enum type type;
};

static struct tile key_tile(const struct job *j, const char *head, int64_t n_rows, int64_t dim,
                            float *kt)
{
    enum type type = j->layer->type;
    if (type == TYPE_Q8_0) {
        j->vec->keys_q8(kt, head, dim);
        return (struct tile){kt, TYPE_F32};
    }
    if (type == TYPE_F32 || n_rows <= j->vec->few_rows) {
        return (struct tile){head, type};
    }
    j->vec->widen(kt, head, type, KV_BLOCK * dim);
    return (struct tile){kt, TYPE_F32};
}

/* The values of a block's first n tokens. (What stands behind them may be another sequence's
 * remains, even NaN, which a weight of 0 would not silence.) */
static struct tile value_tile(const struct job *j, const char *head, int64_t n_rows, int64_t n,
                              const struct work *w)
{
    const struct kv_layer *l = j->layer;
    const struct shape *g = &j->g;
    size_t elem = type_info((uint32_t)l->type)->block_bytes;
    if (l->v_in_k) { /* turned, from the tile of keys */
        const float *kt = (const float *)(const void *)head;
        if (l->type == TYPE_Q8_0) {
            j->vec->keys_q8(w->kt, head, g->dim_k);
            kt = w->kt;
        } else if (l->type != TYPE_F32) {
            j->vec->widen(w->kt, head, l->type, KV_BLOCK * g->dim_v);
            kt = w->kt;
        }
        for (int64_t t = 0; t < n; t++) {
            for (int64_t d = 0; d < g->dim_v; d++) {
                w->v[t * g->pad_v + d] = kt[d * KV_BLOCK + t];
            }
        }
    } else if (l->type == TYPE_Q8_0) {
        j->vec->values_q8(w->v, g->pad_v, head + kv_tile_bytes(l->type, g->dim_k), n, g->dim_v);
    } else {
        const char *v = head + kv_tile_bytes(l->type, g->dim_k);
        bool is_dense = g->pad_v == g->dim_v;
        if (is_dense && (l->type == TYPE_F32 || n_rows <= j->vec->few_rows)) {
            return (struct tile){v, l->type};
        }
        for (int64_t t = 0; t < n; t++) {
            j->vec->widen(w->v + t * g->pad_v, v + (size_t)(t * g->dim_v) * elem, l->type,
                          g->dim_v);
        }
    }
    for (int64_t t = 0; t < n && g->pad_v > g->dim_v; t++) {
        memset(w->v + t * g->pad_v + g->dim_v, 0, (size_t)(g->pad_v - g->dim_v) * sizeof *w->v);
    }
    return (struct tile){w->v, TYPE_F32};
}

static void compute_split(const struct job *j, const struct item *it, int64_t split,
                          const struct work *w, const struct part *ret)
{
    const struct kv_layer *l = j->layer;
    const struct shape *g = &j->g;
    int64_t n = it->n_rows * it->n_heads, base = split * SPLIT;
    int64_t last_pos = it->first_pos + it->n_rows - 1;
    int64_t lowest = j->o->window > 0 ? MAX((int64_t)0, it->first_pos - j->o->window + 1) : 0;
    int64_t first = MAX(lowest - base, (int64_t)0) / KV_BLOCK;
    int64_t end = MIN((last_pos - base) / KV_BLOCK + 1, (int64_t)SPLIT_BLOCKS);
    const int32_t *blocks = it->run->blocks + base / KV_BLOCK;

    for (int64_t b = first; b < end; b++) {
        const char *head = kv_head(l, blocks[b], it->kv_head);
        struct tile k = key_tile(j, head, n, g->dim_k, w->kt);
        j->vec->scores(w->scores + b * KV_BLOCK, SPLIT, w->q, n, k.data, k.type, g->dim_k);
    }
    for (int64_t i = 0; i < n; i++) {
        soften(j, it, i / it->n_heads, it->head + i % it->n_heads, base, end * KV_BLOCK,
               w->scores + i * SPLIT, &ret->max[i], &ret->sum[i]);
    }
    memset(ret->acc, 0, (size_t)(n * g->pad_v) * sizeof *ret->acc);
    for (int64_t b = first; b < end; b++) {
        const char *head = kv_head(l, blocks[b], it->kv_head);
        int64_t n_tokens = MIN((int64_t)KV_BLOCK, last_pos + 1 - base - b * KV_BLOCK);
        struct tile v = value_tile(j, head, n, n_tokens, w);
        j->vec->values(ret->acc, w->scores + b * KV_BLOCK, SPLIT, n, v.data, v.type, n_tokens,
                       g->pad_v);
    }
}

/* --- folding
 * ---------------------------------------------------------------------------------------*/

static void part_clear(const struct job *j, const struct part *p, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        p->max[i] = NO_SCORE;
        p->sum[i] = 0;
    }
    memset(p->acc, 0, (size_t)(n * j->g.pad_v) * sizeof *p->acc);
}

/* total = total and p, as one softmax; the order of calls is the order of splits. */
static void part_fold(const struct job *j, const struct part *total, const struct part *p,
                      int64_t n)
{
    int64_t dim = j->g.pad_v;
    for (int64_t i = 0; i < n; i++) {
        float max = fmaxf(total->max[i], p->max[i]);
        float a = expf(total->max[i] - max), b = expf(p->max[i] - max);
        float *acc = total->acc + i * dim;
        total->sum[i] = total->sum[i] * a + p->sum[i] * b;
        j->vec->add(acc, acc, a, p->acc + i * dim, b, dim);
        total->max[i] = max;
    }
}

static void write_item(const struct job *j, const struct item *it, const struct part *total)
{
    for (int64_t i = 0; i < it->n_rows * it->n_heads; i++) {
        int64_t head = it->head + i % it->n_heads;
        float *y = op_row(&j->o->y, it->run->first + it->row + i / it->n_heads);
        float sum = total->sum[i], scale = 1.0f;
        if (j->o->sinks) {
            float sink = j->o->sinks[head], max = fmaxf(total->max[i], sink);
            scale = expf(total->max[i] - max);
            sum = sum * scale + expf(sink - max);
        }
        j->vec->affine(y + head * j->g.dim_v, total->acc + i * j->g.pad_v, 0, scale / sum, NULL,
                       NULL, j->g.dim_v);
    }
}

/* --- jobs
 * ------------------------------------------------------------------------------------------*/

static struct work thread_work(const struct job *j, int thread)
{
    return work_at(&j->g, j->work + (size_t)thread * work_floats(&j->g));
}

static void whole_items(void *arg, int64_t lo, int64_t hi, int thread)
{
    const struct job *j = arg;
    struct work w = thread_work(j, thread);
    for (int64_t i = lo; i < hi; i++) {
        struct item it = item_at(j, i);
        int64_t n = it.n_rows * it.n_heads;
        pack_queries(j, &it, w.q);
        part_clear(j, &w.total, n);
        for (int64_t split = it.first_split; split < it.end_split; split++) {
            compute_split(j, &it, split, &w, &w.split);
            part_fold(j, &w.total, &w.split, n);
        }
        write_item(j, &it, &w.total);
    }
}

static void single_splits(void *arg, int64_t lo, int64_t hi, int thread)
{
    const struct job *j = arg;
    struct work w = thread_work(j, thread);
    for (int64_t i = lo; i < hi; i++) {
        struct item it = item_at(j, i / j->n_splits);
        int64_t n = it.n_rows * it.n_heads, split = i % j->n_splits;
        size_t part = part_floats(&j->g, j->part_rows);
        float *parts = j->parts + (size_t)(i - split) * part;
        if (split < it.first_split || split >= it.end_split) {
            continue;
        }
        struct part p = part_at(parts + (size_t)split * part, j->part_rows);
        pack_queries(j, &it, w.q);
        compute_split(j, &it, split, &w, &p);
        int32_t n_done = 1 + atomic_fetch_add(&j->done[i / j->n_splits], 1);
        if (n_done < it.end_split - it.first_split) {
            continue;
        }
        part_clear(j, &w.total, n);
        for (split = it.first_split; split < it.end_split; split++) {
            p = part_at(parts + (size_t)split * part, j->part_rows);
            part_fold(j, &w.total, &p, n);
        }
        write_item(j, &it, &w.total);
    }
}

enum { MAX_SIDE_ITEMS = 4096 };

size_t op_attention_scratch(const struct op_attention *o, const struct kv_layer *kv, int64_t n_ctx,
                            int n_threads)
{
    (void)n_ctx;
    struct shape g = shape_of(o, kv);
    return work_floats(&g) * sizeof(float) * (size_t)n_threads +
           MAX_SIDE_ITEMS * sizeof(_Atomic int32_t) + PARTS_BYTES;
}

void op_attention_run(const struct op_attention *o, const struct op_step *s, int64_t n)
{
    (void)n;
    int n_threads = pool_threads(s->pool);
    struct job j = {.o = o, .s = s, .layer = &s->kv[o->layer], .vec = vec_get(s->isa)};
    j.g = shape_of(o, j.layer);
    j.work = s->scratch;
    float *after = j.work + work_floats(&j.g) * (size_t)n_threads;
    j.done = (_Atomic int32_t *)(void *)after;
    j.parts = after + MAX_SIDE_ITEMS;
    int64_t end = 0, longest = 0;
    for (int64_t i = 0; i < s->n_runs; i++) {
        end = MAX(end, s->runs[i].pos + s->runs[i].n);
        longest = MAX(longest, s->runs[i].n);
    }
    j.n_splits = (end + SPLIT - 1) / SPLIT;
    j.part_rows = MIN(longest, j.g.item_rows) * j.g.item_heads;

    int64_t n_items = count_items(&j);
    size_t parts_bytes =
        (size_t)(n_items * j.n_splits) * part_floats(&j.g, j.part_rows) * sizeof(float);
    if (n_threads > 1 && j.n_splits > 1 && n_items < 4 * n_threads && n_items <= MAX_SIDE_ITEMS &&
        parts_bytes <= PARTS_BYTES) {
        for (int64_t i = 0; i < n_items; i++) {
            atomic_store_explicit(&j.done[i], 0, memory_order_relaxed);
        }
        pool_run(s->pool, n_items * j.n_splits, 1, single_splits, &j);
    } else {
        pool_run(s->pool, n_items, 1, whole_items, &j);
    }
}
