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
 * split folds it, in the same order.
 *
 * For a query head and a position: 2 dim_k + 2 dim_v operations and one exponential. Bytes: a
 * position of a KV head is (dim_k + dim_v) elements, read once for an item; decode waits for them,
 * so each tile is asked for while the ones before it are used (seven or eight query heads to a KV
 * head: for multiply-adds, too). Prefill waits for multiply-adds: where there are more rows than
 * vec.few_rows, tiles are widened to floats, WIDE_TILES at a time, which stay in the first cache
 * while all rows of the item meet them. */
#include "kernels/cpu/ops_job.h"
#include "kernels/cpu/vec.h"
#include "shared/num.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    SPLIT = 256, /* positions; part of the numeric profile */
    SPLIT_BLOCKS = SPLIT / KV_BLOCK,
    ITEM_ROWS = 128,               /* (row, head) pairs of an item, at most */
    STRIDE = SPLIT + KV_BLOCK,     /* of scores: rows a power of two apart would share cache sets */
    WIDE_TILES = 2,                /* tiles that are widened before they are used */
    PARTS_BYTES = 16 * 1024 * 1024 /* for the results of splits computed side by side */
};

/* Below any score; a softmax over nothing has this maximum and the sum 0. */
#define NO_SCORE (-1e30f)

/* --- geometry ----------------------------------------------------------------------------------*/

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
    g.item_heads = MIN(g.group, (int64_t)ITEM_ROWS / 4);
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

/* What a thread computes with: packed queries, tiles of keys and of values, scores, two parts. */
struct work {
    float *q, *kt, *v, *scores;
    struct part split, total;
};

static size_t work_floats(const struct shape *g)
{
    return (size_t)ITEM_ROWS * (size_t)g->dim_k +
           (size_t)(WIDE_TILES * KV_BLOCK) * (size_t)(g->dim_k + g->pad_v) +
           (size_t)ITEM_ROWS * STRIDE + 2 * part_floats(g, ITEM_ROWS);
}

static struct work work_at(const struct shape *g, float *memory)
{
    struct work w;
    w.q = memory;
    w.kt = w.q + ITEM_ROWS * g->dim_k;
    w.v = w.kt + WIDE_TILES * KV_BLOCK * g->dim_k;
    w.scores = w.v + WIDE_TILES * KV_BLOCK * g->pad_v;
    w.split = part_at(w.scores + ITEM_ROWS * STRIDE, ITEM_ROWS);
    w.total = part_at(w.split.max + part_floats(g, ITEM_ROWS), ITEM_ROWS);
    return w;
}

struct job {
    const struct op_attention *o;
    const struct op_step *s;
    const struct kv_layer *layer;
    const struct vec *vec;
    struct shape g;
    size_t block_bytes, head_bytes, k_bytes, v_bytes; /* see kv.h */
    bool is_direct_v; /* values may be used as they stand in the cache */
    float *work;           /* per thread */
    float *parts;          /* when splits run side by side: n_items * n_splits parts */
    _Atomic int32_t *done; /* per item: splits finished */
    int64_t n_splits;      /* of the longest run */
    int64_t part_rows;     /* (row, head) pairs of the largest item */
    int64_t n_items;
    _Atomic int64_t next; /* item to be taken */
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

/* --- one split ---------------------------------------------------------------------------------*/

static void pack_queries(const struct job *j, const struct item *it, float *q)
{
    int64_t n = it->n_heads * j->g.dim_k;
    for (int64_t r = 0; r < it->n_rows; r++) {
        const float *row = op_row(&j->o->q, it->run->first + it->row + r);
        j->vec->affine(q + r * n, row + it->head * j->g.dim_k, 0, j->o->scale, NULL, NULL, n);
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
        j->vec->softcap(x, x, 1, o->softcap, hi - lo);
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

/* A tile of keys as floats; what is in the cache's type stands at `tile`. */
static void widen_keys(const struct job *j, const char *tile, float *kt)
{
    if (j->layer->type == TYPE_Q8_0) {
        j->vec->keys_q8(kt, tile, j->g.dim_k);
    } else {
        j->vec->widen(kt, tile, j->layer->type, KV_BLOCK * j->g.dim_k);
    }
}

/* The values of a tile's first n tokens as floats. (What stands behind them may be another
 * sequence's remains, even NaN, which a weight of 0 would not silence.) */
static void widen_values(const struct job *j, const char *tile, int64_t n, const struct work *w,
                         float *v)
{
    const struct kv_layer *l = j->layer;
    const struct shape *g = &j->g;
    size_t elem = type_info((uint32_t)l->type)->block_bytes;
    if (l->v_in_k) { /* turned, from the tile of keys */
        widen_keys(j, tile, w->kt);
        for (int64_t t = 0; t < n; t++) {
            for (int64_t d = 0; d < g->dim_v; d++) {
                v[t * g->pad_v + d] = w->kt[d * KV_BLOCK + t];
            }
        }
    } else if (l->type == TYPE_Q8_0) {
        j->vec->values_q8(v, g->pad_v, tile, n, g->dim_v);
    } else if (g->pad_v == g->dim_v) {
        j->vec->widen(v, tile, l->type, n * g->dim_v);
    } else {
        for (int64_t t = 0; t < n; t++) {
            j->vec->widen(v + t * g->pad_v, tile + (size_t)(t * g->dim_v) * elem, l->type,
                          g->dim_v);
        }
    }
    for (int64_t t = 0; t < n && g->pad_v > g->dim_v; t++) {
        memset(v + t * g->pad_v + g->dim_v, 0, (size_t)(g->pad_v - g->dim_v) * sizeof *v);
    }
}

/* The tiles a split reads, in the order of reading, and the first of the next split's. */
struct tiles {
    const void *at[2 * SPLIT_BLOCKS + VEC_TILES_AHEAD];
    int64_t n;      /* tiles of keys, and of values */
    int64_t n_next; /* tiles behind those */
};

static void list_tiles(const struct job *j, const struct item *it, int64_t first, int64_t end,
                       struct tiles *ret)
{
    int64_t n = end - first, n_blocks = (it->first_pos + it->n_rows - 1) / KV_BLOCK + 1;
    const char *heads = j->layer->data + (size_t)it->kv_head * j->head_bytes;
    ret->n = n;
    ret->n_next = MIN(n_blocks - end, (int64_t)VEC_TILES_AHEAD);
    for (int64_t i = 0; i < n + ret->n_next; i++) {
        const char *head = heads + (size_t)it->run->blocks[first + i] * j->block_bytes;
        ret->at[i < n ? i : n + i] = head;
        if (i < n) {
            ret->at[n + i] = j->layer->v_in_k ? head : head + j->k_bytes;
        }
    }
}

static void split_scores(const struct job *j, const struct tiles *tiles, const struct work *w,
                         int64_t n, float *scores)
{
    enum type type = j->layer->type;
    int64_t dim = j->g.dim_k;
    if (type == TYPE_F32 || (type != TYPE_Q8_0 && n <= j->vec->few_rows)) {
        struct vec_tiles k = {tiles->at, tiles->n, tiles->n, j->k_bytes, type};
        j->vec->scores(scores, STRIDE, w->q, n, &k, dim);
        return;
    }
    const void *wide[WIDE_TILES];
    for (int64_t i = 0; i < tiles->n; i += WIDE_TILES) {
        int64_t n_tiles = MIN(tiles->n - i, (int64_t)WIDE_TILES);
        for (int64_t t = 0; t < n_tiles; t++) {
            wide[t] = w->kt + t * KV_BLOCK * dim;
            widen_keys(j, tiles->at[i + t], w->kt + t * KV_BLOCK * dim);
        }
        struct vec_tiles k = {wide, n_tiles, 0, kv_tile_bytes(TYPE_F32, dim), TYPE_F32};
        j->vec->scores(scores + i * KV_BLOCK, STRIDE, w->q, n, &k, dim);
    }
}

static void split_values(const struct job *j, const struct tiles *tiles, const struct work *w,
                         int64_t n, const float *scores, int64_t n_tokens, float *acc)
{
    enum type type = j->layer->type;
    int64_t dim = j->g.pad_v;
    const void *const *at = tiles->at + tiles->n;
    if (j->is_direct_v && (type == TYPE_F32 || n <= j->vec->few_rows)) {
        struct vec_tiles v = {at, tiles->n, tiles->n_next, j->v_bytes, type};
        j->vec->values(acc, scores, STRIDE, n, &v, n_tokens, dim);
        return;
    }
    const void *wide[WIDE_TILES];
    for (int64_t i = 0; i < tiles->n; i += WIDE_TILES) {
        int64_t n_tiles = MIN(tiles->n - i, (int64_t)WIDE_TILES);
        int64_t rest = MIN(n_tokens - i * KV_BLOCK, n_tiles * KV_BLOCK);
        for (int64_t t = 0; t < n_tiles; t++) {
            float *v = w->v + t * KV_BLOCK * dim;
            wide[t] = v;
            widen_values(j, at[i + t], MIN(rest - t * KV_BLOCK, (int64_t)KV_BLOCK), w, v);
        }
        struct vec_tiles v = {wide, n_tiles, 0, kv_tile_bytes(TYPE_F32, dim), TYPE_F32};
        j->vec->values(acc, scores + i * KV_BLOCK, STRIDE, n, &v, rest, dim);
    }
}

static void compute_split(const struct job *j, const struct item *it, int64_t split,
                          const struct work *w, const struct part *ret)
{
    int64_t n = it->n_rows * it->n_heads, base = split * SPLIT;
    int64_t last_pos = it->first_pos + it->n_rows - 1;
    int64_t lowest = j->o->window > 0 ? MAX((int64_t)0, it->first_pos - j->o->window + 1) : 0;
    int64_t first = MAX(lowest - base, (int64_t)0) / KV_BLOCK;
    int64_t end = MIN((last_pos - base) / KV_BLOCK + 1, (int64_t)SPLIT_BLOCKS);
    float *scores = w->scores + first * KV_BLOCK;
    struct tiles tiles;
    list_tiles(j, it, base / KV_BLOCK + first, base / KV_BLOCK + end, &tiles);
    split_scores(j, &tiles, w, n, scores);
    for (int64_t i = 0; i < n; i++) {
        soften(j, it, i / it->n_heads, it->head + i % it->n_heads, base, end * KV_BLOCK,
               w->scores + i * STRIDE, &ret->max[i], &ret->sum[i]);
    }
    memset(ret->acc, 0, (size_t)(n * j->g.pad_v) * sizeof *ret->acc);
    split_values(j, &tiles, w, n, scores,
                 MIN(end * KV_BLOCK, last_pos + 1 - base) - first * KV_BLOCK, ret->acc);
}

/* --- folding -----------------------------------------------------------------------------------*/

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
        float more = p->max[i] - total->max[i];
        float a = more > 0 ? expf(-more) : 1, b = more > 0 ? 1 : expf(more);
        float *acc = total->acc + i * dim;
        total->sum[i] = total->sum[i] * a + p->sum[i] * b;
        j->vec->add(acc, acc, a, p->acc + i * dim, b, dim);
        total->max[i] = fmaxf(total->max[i], p->max[i]);
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

/* --- jobs --------------------------------------------------------------------------------------*/

static struct work thread_work(const struct job *j, int thread)
{
    return work_at(&j->g, j->work + (size_t)thread * work_floats(&j->g));
}

static void whole_item(const struct job *j, int64_t i, const struct work *w)
{
    struct item it = item_at(j, i);
    int64_t n = it.n_rows * it.n_heads;
    pack_queries(j, &it, w->q);
    part_clear(j, &w->total, n);
    for (int64_t split = it.first_split; split < it.end_split; split++) {
        compute_split(j, &it, split, w, &w->split);
        part_fold(j, &w->total, &w->split, n);
    }
    write_item(j, &it, &w->total);
}

/* Each thread takes one item after the other: an item is long, and slices of several would leave
 * the last thread alone with its own. */
static void whole_items(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)lo;
    (void)hi;
    struct job *j = arg;
    struct work w = thread_work(j, thread);
    int64_t i;
    while ((i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->n_items) {
        whole_item(j, i, &w);
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
    j.head_bytes = kv_head_bytes(j.layer);
    j.block_bytes = kv_block_bytes(j.layer);
    j.k_bytes = kv_tile_bytes(j.layer->type, j.g.dim_k);
    j.v_bytes = kv_tile_bytes(j.layer->type, j.g.dim_v);
    j.is_direct_v =
        !j.layer->v_in_k && j.layer->type != TYPE_Q8_0 && j.g.pad_v == j.g.dim_v;
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

    int64_t n_items = j.n_items = count_items(&j);
    size_t parts_bytes =
        (size_t)(n_items * j.n_splits) * part_floats(&j.g, j.part_rows) * sizeof(float);
    if (n_threads > 1 && j.n_splits > 1 && n_items < 4 * n_threads && n_items <= MAX_SIDE_ITEMS &&
        parts_bytes <= PARTS_BYTES) {
        for (int64_t i = 0; i < n_items; i++) {
            atomic_store_explicit(&j.done[i], 0, memory_order_relaxed);
        }
        pool_run(s->pool, n_items * j.n_splits, 1, single_splits, &j);
    } else {
        pool_run(s->pool, MIN(n_items, (int64_t)n_threads), 1, whole_items, &j);
    }
}
