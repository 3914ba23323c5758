/* Attention over the paged KV cache. Runs on the pool; nothing blocks but the pool itself.
 *
 * The keys of a sequence are cut into splits of SPLIT positions counted from position 0. A row's
 * softmax is computed inside each split alone and the splits' results are folded together in
 * ascending order. The cut depends on positions only, so a row's result is the same whatever else
 * is computed with it, wherever the prompt was cut, however many threads there are.
 *
 * A split's exponentials are taken of score - shift, where the shift is the largest score of the
 * first tiles that the row sees (the first pair), unless another exceeds it by more than MOST_RISE:
 * then it is the largest of all. So one pass over the split serves scores and values both, tile
 * after tile, but for the rare split that is computed once more.
 *
 * Many rows: an item is some rows of one run, times the query heads that share a KV head, so that a
 * tile of keys is converted once for all of them. A thread computes an item's splits one after the
 * other. Prefill waits for multiply-adds: where there are more rows than vec.few_rows, tiles are
 * widened to floats, WIDE_TILES at a time, which stay in the first cache while all rows meet them.
 *
 * Decode, one row a run, waits for memory, which gives a core its full rate only in long runs of
 * addresses: every jump (2 KB of one head, then the same head's next block) costs up to a third.
 * So a thread takes a split of all heads together, or of neighbouring ones, and reads it as it
 * lies in memory, a pair of blocks at a time; the splits are folded afterwards.
 *
 * For a query head and a position: 2 dim_k + 2 dim_v operations and one exponential. Bytes: a
 * position of a KV head is (dim_k + dim_v) elements, read once for an item. */
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
    PAIR = 2,                      /* tiles that one pass takes at a time; numeric profile */
    TILES_AHEAD = 4,               /* how far ahead memory is asked for tiles in two passes */
    UNITS_PER_THREAD = 8,          /* of decode, at least, where heads are enough for it */
    PARTS_BYTES = 16 * 1024 * 1024 /* for the results of splits computed side by side */
};
_Static_assert(PAIR * KV_BLOCK == VEC_SUMS, "a pair's places are the parts of the sum");

/* Below any score; a softmax over nothing has this shift and the sum 0. */
#define NO_SCORE (-1e30f)
/* Exponentials up to e^20 are as exact as those below 1, and their sums far from overflow. Part of
 * the numeric profile. */
#define MOST_RISE 20.0f

/* --- geometry ----------------------------------------------------------------------------------*/

struct shape {
    int64_t group;      /* query heads of a KV head */
    int64_t item_heads; /* heads of an item: the group, or a chunk of a large one */
    int64_t n_chunks;   /* chunks of a group */
    int64_t item_rows;  /* rows of an item, at most */
    int64_t row_places; /* of a row's heads, where every item has item_heads */
    int64_t dim_k, dim_v;
    int64_t pad_v; /* dim_v padded to VEC_PAD */
};

static struct shape shape_of(const struct op_attention *o, const struct kv_layer *l)
{
    struct shape g = {.group = o->n_head / l->n_head, .dim_k = l->dim_k, .dim_v = l->dim_v};
    g.item_heads = MIN(g.group, (int64_t)ITEM_ROWS / 4);
    g.n_chunks = (g.group + g.item_heads - 1) / g.item_heads;
    g.row_places = l->n_head * g.n_chunks * g.item_heads;
    g.item_rows = MAX((int64_t)1, ITEM_ROWS / g.item_heads);
    g.pad_v = (int64_t)num_pad((uint64_t)l->dim_v, VEC_PAD);
    return g;
}

/* The softmax of a split, or of an item so far, for up to ITEM_ROWS rows: shift, sum, weighted
 * values. */
struct part {
    float *shift, *sum, *acc;
};

static size_t part_floats(const struct shape *g, int64_t n_rows)
{
    return (size_t)n_rows * (2 + (size_t)g->pad_v);
}

static struct part part_at(float *memory, int64_t n_rows)
{
    return (struct part){memory, memory + n_rows, memory + 2 * n_rows};
}

/* What a thread computes with: packed queries (of an item, or of a row's heads), the parts of
 * their sums and as many largest scores, tiles of keys and of values, scores, two parts. */
struct work {
    float *q, *sums, *peaks, *kt, *v, *scores;
    struct part split, total;
};

static int64_t work_rows(const struct shape *g)
{
    return MAX((int64_t)ITEM_ROWS, g->row_places);
}

static size_t work_floats(const struct shape *g)
{
    return (size_t)work_rows(g) * (size_t)(g->dim_k + 2 * VEC_SUMS) +
           (size_t)(WIDE_TILES * KV_BLOCK) * (size_t)(g->dim_k + g->pad_v) +
           (size_t)ITEM_ROWS * STRIDE + 2 * part_floats(g, ITEM_ROWS);
}

static struct work work_at(const struct shape *g, float *memory)
{
    struct work w;
    w.q = memory;
    w.sums = w.q + work_rows(g) * g->dim_k;
    w.peaks = w.sums + work_rows(g) * VEC_SUMS;
    w.kt = w.peaks + work_rows(g) * VEC_SUMS;
    w.v = w.kt + WIDE_TILES * KV_BLOCK * g->dim_k;
    w.scores = w.v + WIDE_TILES * KV_BLOCK * g->pad_v;
    w.split = part_at(w.scores + ITEM_ROWS * STRIDE, ITEM_ROWS);
    w.total = part_at(w.split.shift + part_floats(g, ITEM_ROWS), ITEM_ROWS);
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
    float *parts;          /* of decode: n_items * n_splits parts */
    int64_t n_splits;      /* of the longest run */
    int64_t part_rows;     /* (row, head) pairs of the largest item */
    int64_t n_items;
    int64_t row_items;     /* items of one row tile: its KV heads, their chunks */
    int64_t n_groups;      /* units that these are cut into, in decode */
    _Atomic int64_t next;  /* item to be taken */
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
    return n * j->row_items;
}

/* Item k of a row tile: its heads. */
static void set_heads(const struct job *j, struct item *it, int64_t k)
{
    it->kv_head = k / j->g.n_chunks;
    int64_t chunk = k % j->g.n_chunks * j->g.item_heads;
    it->head = it->kv_head * j->g.group + chunk;
    it->n_heads = MIN(j->g.item_heads, j->g.group - chunk);
}

static struct item item_at(const struct job *j, int64_t index)
{
    struct item it = {.run = j->s->runs};
    int64_t tile = index / j->row_items;
    while (tile >= run_tiles(j, it.run)) {
        tile -= run_tiles(j, it.run);
        it.run++;
    }
    it.row = tile * j->g.item_rows;
    it.n_rows = MIN(j->g.item_rows, it.run->n - it.row);
    set_heads(j, &it, index % j->row_items);
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

/* Scores of the split's positions [from, from + n) as the softmax takes them, for one (row, head):
 * what the row may not see becomes -infinity. */
static void finish_scores(const struct job *j, const struct item *it, int64_t r, int64_t head,
                          int64_t base, int64_t from, int64_t n, float *scores)
{
    const struct op_attention *o = j->o;
    int64_t lo, hi;
    visible(j, it, r, base, &lo, &hi);
    lo = MIN(MAX(lo - from, (int64_t)0), n);
    hi = MIN(MAX(hi - from, lo), n);
    if (o->softcap > 0) {
        j->vec->softcap(scores + lo, scores + lo, 1, o->softcap, hi - lo);
    }
    if (o->alibi) {
        int64_t pos = it->first_pos + r;
        for (int64_t i = lo; i < hi; i++) {
            scores[i] += o->alibi[head] * (float)(base + from + i - pos);
        }
    }
    for (int64_t i = 0; i < lo; i++) {
        scores[i] = -INFINITY;
    }
    for (int64_t i = hi; i < n; i++) {
        scores[i] = -INFINITY;
    }
}

/* Scores of tiles [first, end) of a split to weights, for one (row, head). */
static void soften(const struct job *j, const struct item *it, int64_t r, int64_t head,
                   int64_t base, int64_t first, int64_t end, float *scores, float *ret_shift,
                   float *ret_sum)
{
    int64_t lo, hi, n = (end - first) * KV_BLOCK;
    visible(j, it, r, base, &lo, &hi);
    finish_scores(j, it, r, head, base, first * KV_BLOCK, n, scores);
    float sums[VEC_SUMS] = {0}, shift = NO_SCORE;
    if (lo < hi) {
        int64_t pair = lo / KV_BLOCK / PAIR * PAIR, a = MAX(pair, first), b = MIN(pair + PAIR, end);
        shift = j->vec->greatest(scores + (a - first) * KV_BLOCK, (b - a) * KV_BLOCK, NO_SCORE);
        float peak = j->vec->greatest(scores, n, NO_SCORE);
        if (__builtin_expect(peak - shift > MOST_RISE, 0)) { /* a branch: nobody waits for peak */
            shift = peak;
        }
    }
    int64_t head_n = first % PAIR * KV_BLOCK; /* of a pair that the tiles begin inside */
    j->vec->soften(scores, 0, 1, MIN(head_n, n), &shift, sums + head_n);
    j->vec->soften(scores + head_n, 0, 1, MAX(n - head_n, (int64_t)0), &shift, sums);
    *ret_shift = shift;
    *ret_sum = j->vec->sum(sums, VEC_SUMS);
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

/* Tiles of keys, then as many of values, in the order of reading, and those to ask memory for. */
struct tiles {
    const void *at[2 * SPLIT_BLOCKS + TILES_AHEAD];
    const void *ask[2 * SPLIT_BLOCKS + TILES_AHEAD];
    int64_t n; /* of each */
};

static int64_t n_blocks_of(const struct item *it)
{
    return (it->first_pos + it->n_rows - 1) / KV_BLOCK + 1;
}

/* A KV head's keys in a block of the sequence. */
static const char *keys_at(const struct job *j, const struct item *it, int64_t block,
                           int64_t kv_head)
{
    return j->layer->data + (size_t)it->run->blocks[block] * j->block_bytes +
           (size_t)kv_head * j->head_bytes;
}

/* Blocks [first, end) of a split: all its keys, then all its values. */
static void list_tiles(const struct job *j, const struct item *it, int64_t first, int64_t end,
                       struct tiles *ret)
{
    int64_t n = end - first, n_blocks = n_blocks_of(it);
    size_t to_values = j->layer->v_in_k ? 0 : j->k_bytes;
    ret->n = n;
    for (int64_t i = 0; i < n; i++) {
        const char *keys = keys_at(j, it, first + i, it->kv_head);
        ret->at[i] = keys;
        ret->at[n + i] = keys + to_values;
    }
    for (int64_t i = 0; i < TILES_AHEAD; i++) { /* the next split's keys */
        ret->at[2 * n + i] = end + i < n_blocks ? keys_at(j, it, end + i, it->kv_head)
                                                : ret->at[2 * n - 1];
    }
    memcpy(ret->ask, ret->at + TILES_AHEAD, (size_t)(2 * n) * sizeof *ret->ask);
}

static void split_scores(const struct job *j, const struct tiles *tiles, const struct work *w,
                         int64_t n, float *scores)
{
    enum type type = j->layer->type;
    int64_t dim = j->g.dim_k;
    if (type == TYPE_F32 || (type != TYPE_Q8_0 && n <= j->vec->few_rows)) {
        struct vec_tiles k = {tiles->at, tiles->ask, tiles->n, j->k_bytes, type};
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
        struct vec_tiles k = {wide, wide, n_tiles, kv_tile_bytes(TYPE_F32, dim), TYPE_F32};
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
        struct vec_tiles v = {at, tiles->ask + tiles->n, tiles->n, j->v_bytes, type};
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
        struct vec_tiles v = {wide, wide, n_tiles, kv_tile_bytes(TYPE_F32, dim), TYPE_F32};
        j->vec->values(acc, scores + i * KV_BLOCK, STRIDE, n, &v, rest, dim);
    }
}

/* Tiles of a split that an item needs: [*first, *end). */
static void needed_tiles(const struct job *j, const struct item *it, int64_t base, int64_t *first,
                         int64_t *end)
{
    int64_t lowest = j->o->window > 0 ? MAX((int64_t)0, it->first_pos - j->o->window + 1) : 0;
    *first = MAX(lowest - base, (int64_t)0) / KV_BLOCK;
    *end = MIN(n_blocks_of(it) - base / KV_BLOCK, (int64_t)SPLIT_BLOCKS);
}

/* All scores, then the softmax, then all values. */
static void compute_split(const struct job *j, const struct item *it, int64_t split,
                          const struct work *w, const struct part *ret)
{
    int64_t n = it->n_rows * it->n_heads, base = split * SPLIT, first, end;
    struct tiles tiles;
    needed_tiles(j, it, base, &first, &end);
    list_tiles(j, it, base / KV_BLOCK + first, base / KV_BLOCK + end, &tiles);
    split_scores(j, &tiles, w, n, w->scores);
    for (int64_t i = 0; i < n; i++) {
        soften(j, it, i / it->n_heads, it->head + i % it->n_heads, base, first, end,
               w->scores + i * STRIDE, &ret->shift[i], &ret->sum[i]);
    }
    memset(ret->acc, 0, (size_t)(n * j->g.pad_v) * sizeof *ret->acc);
    int64_t end_pos = MIN(end * KV_BLOCK, it->first_pos + it->n_rows - base);
    split_values(j, &tiles, w, n, w->scores, end_pos - first * KV_BLOCK, ret->acc);
}

/* --- one split of a row's heads together --------------------------------------------------------*/

/* Items [lo, hi) of one row, and where their results go. */
struct heads {
    struct item it; /* the row; its heads change */
    int64_t lo, hi;
    int64_t split, base;
    int64_t first, end; /* tiles */
    bool is_plain;      /* scores inside are as the product gives them */
    struct work w;      /* the first item's; see at_item */
};

static struct part part_of(const struct job *j, const struct item *it, int64_t k, int64_t split)
{
    int64_t item = (it->run - j->s->runs) * j->row_items + k;
    size_t at = (size_t)(item * j->n_splits + split) * part_floats(&j->g, j->part_rows);
    return part_at(j->parts + at, j->part_rows);
}

/* Makes h->it item k, and returns its part of the queries, sums and peaks. */
static struct work at_item(const struct job *j, struct heads *h, int64_t k)
{
    struct work w = h->w;
    int64_t rows = (k - h->lo) * j->g.item_heads;
    set_heads(j, &h->it, k);
    w.q += rows * j->g.dim_k;
    w.sums += rows * VEC_SUMS;
    w.peaks += rows * VEC_SUMS;
    return w;
}

static void begin_item(const struct job *j, struct heads *h, int64_t k)
{
    struct work w = at_item(j, h, k);
    struct part p = part_of(j, &h->it, k, h->split);
    pack_queries(j, &h->it, w.q);
    for (int64_t i = 0; i < h->it.n_heads * VEC_SUMS; i++) {
        w.sums[i] = 0;
        w.peaks[i] = NO_SCORE;
    }
    memset(p.acc, 0, (size_t)(h->it.n_heads * j->g.pad_v) * sizeof *p.acc);
}

/* An item's tiles [tile, tile + n) of the split. Memory is asked for the next item's, which lie
 * behind them, and at the last item for the blocks that follow. */
static void list_pair(const struct job *j, const struct heads *h, int64_t k, int64_t tile,
                      int64_t n, struct tiles *ret)
{
    bool is_last = k + 1 == h->hi;
    int64_t block = h->base / KV_BLOCK + tile, n_blocks = n_blocks_of(&h->it);
    int64_t ahead = is_last ? n : 0, head = (is_last ? h->lo : k + 1) / j->g.n_chunks;
    size_t to_values = j->layer->v_in_k ? 0 : j->k_bytes;
    ret->n = n;
    for (int64_t i = 0; i < n; i++) {
        const char *keys = keys_at(j, &h->it, block + i, h->it.kv_head), *ask = keys;
        if (block + i + ahead < n_blocks) {
            ask = keys_at(j, &h->it, block + i + ahead, head);
        }
        ret->at[i] = keys;
        ret->at[n + i] = keys + to_values;
        ret->ask[i] = ask;
        ret->ask[n + i] = ask + to_values;
    }
}

static void pair_of_item(const struct job *j, struct heads *h, int64_t k, int64_t tile, int64_t n)
{
    struct work w = at_item(j, h, k);
    struct part p = part_of(j, &h->it, k, h->split);
    int64_t n_heads = h->it.n_heads, from = tile * KV_BLOCK, n_scores = n * KV_BLOCK;
    int64_t seen = MIN(h->it.first_pos + 1 - h->base - from, n_scores);
    struct tiles tiles;
    list_pair(j, h, k, tile, n, &tiles);
    split_scores(j, &tiles, &w, n_heads, w.scores);
    if (!h->is_plain || tile == h->first || seen < n_scores) {
        for (int64_t i = 0; i < n_heads; i++) {
            float *scores = w.scores + i * STRIDE;
            finish_scores(j, &h->it, 0, h->it.head + i, h->base, from, n_scores, scores);
            if (tile == h->first) {
                p.shift[i] = j->vec->greatest(scores, n_scores, NO_SCORE);
            }
        }
    }
    j->vec->climb(w.peaks, w.scores, STRIDE, n_heads, n_scores);
    j->vec->soften(w.scores, STRIDE, n_heads, n_scores, p.shift,
                   w.sums + tile % PAIR * KV_BLOCK);
    split_values(j, &tiles, &w, n_heads, w.scores, seen, p.acc);
}

static void end_item(const struct job *j, struct heads *h, int64_t k)
{
    struct work w = at_item(j, h, k);
    struct part p = part_of(j, &h->it, k, h->split);
    bool is_high = false;
    for (int64_t i = 0; i < h->it.n_heads; i++) {
        p.sum[i] = j->vec->sum(w.sums + i * VEC_SUMS, VEC_SUMS);
        float peak = j->vec->greatest(w.peaks + i * VEC_SUMS, VEC_SUMS, NO_SCORE);
        is_high = is_high || peak - p.shift[i] > MOST_RISE;
    }
    if (is_high) {
        compute_split(j, &h->it, h->split, &w, &p);
    }
}

static void stream_split(const struct job *j, struct heads *h)
{
    h->base = h->split * SPLIT;
    needed_tiles(j, &h->it, h->base, &h->first, &h->end);
    h->is_plain = !(j->o->softcap > 0) && !j->o->alibi;
    for (int64_t k = h->lo; k < h->hi; k++) {
        begin_item(j, h, k);
    }
    for (int64_t tile = h->first, n; tile < h->end; tile += n) {
        n = MIN(PAIR - tile % PAIR, h->end - tile);
        for (int64_t k = h->lo; k < h->hi; k++) {
            pair_of_item(j, h, k, tile, n);
        }
    }
    for (int64_t k = h->lo; k < h->hi; k++) {
        end_item(j, h, k);
    }
}

/* --- folding -----------------------------------------------------------------------------------*/

static void part_clear(const struct job *j, const struct part *p, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        p->shift[i] = NO_SCORE;
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
        float more = p->shift[i] - total->shift[i];
        float a = more > 0 ? expf(-more) : 1, b = more > 0 ? 1 : expf(more);
        float *acc = total->acc + i * dim;
        total->sum[i] = total->sum[i] * a + p->sum[i] * b;
        j->vec->add(acc, acc, a, p->acc + i * dim, b, dim);
        total->shift[i] = fmaxf(total->shift[i], p->shift[i]);
    }
}

static void write_item(const struct job *j, const struct item *it, const struct part *total)
{
    for (int64_t i = 0; i < it->n_rows * it->n_heads; i++) {
        int64_t head = it->head + i % it->n_heads;
        float *y = op_row(&j->o->y, it->run->first + it->row + i / it->n_heads);
        float sum = total->sum[i], scale = 1.0f;
        if (j->o->sinks) {
            float sink = j->o->sinks[head], max = fmaxf(total->shift[i], sink);
            scale = expf(total->shift[i] - max);
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

/* Unit: a run's row, one split of it, one group of its items. */
static void stream_units(void *arg, int64_t lo, int64_t hi, int thread)
{
    const struct job *j = arg;
    struct heads h = {.w = thread_work(j, thread)};
    for (int64_t i = lo; i < hi; i++) {
        int64_t group = i % j->n_groups, row = i / j->n_groups / j->n_splits;
        h.it = item_at(j, row * j->row_items);
        h.split = i / j->n_groups % j->n_splits;
        h.lo = group * j->row_items / j->n_groups;
        h.hi = (group + 1) * j->row_items / j->n_groups;
        if (h.split >= h.it.first_split && h.split < h.it.end_split) {
            stream_split(j, &h);
        }
    }
}

static void fold_items(void *arg, int64_t lo, int64_t hi, int thread)
{
    const struct job *j = arg;
    struct work w = thread_work(j, thread);
    for (int64_t i = lo; i < hi; i++) {
        struct item it = item_at(j, i);
        part_clear(j, &w.total, it.n_heads);
        for (int64_t split = it.first_split; split < it.end_split; split++) {
            struct part p = part_of(j, &it, i % j->row_items, split);
            part_fold(j, &w.total, &p, it.n_heads);
        }
        write_item(j, &it, &w.total);
    }
}

size_t op_attention_scratch(const struct op_attention *o, const struct kv_layer *kv, int64_t n_ctx,
                            int n_threads)
{
    (void)n_ctx;
    struct shape g = shape_of(o, kv);
    return work_floats(&g) * sizeof(float) * (size_t)n_threads + PARTS_BYTES;
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
    j.parts = j.work + work_floats(&j.g) * (size_t)n_threads;
    int64_t end = 0, longest = 0;
    for (int64_t i = 0; i < s->n_runs; i++) {
        end = MAX(end, s->runs[i].pos + s->runs[i].n);
        longest = MAX(longest, s->runs[i].n);
    }
    j.n_splits = (end + SPLIT - 1) / SPLIT;
    j.part_rows = MIN(longest, j.g.item_rows) * j.g.item_heads;
    j.row_items = j.layer->n_head * j.g.n_chunks;
    j.n_items = count_items(&j);
    int64_t part_values = (int64_t)part_floats(&j.g, j.part_rows);
    int64_t most_values = (int64_t)(PARTS_BYTES / sizeof(float));
    if (longest > 1 || j.n_items * j.n_splits * part_values > most_values) {
        pool_run(s->pool, MIN(j.n_items, (int64_t)n_threads), 1, whole_items, &j);
        return;
    }
    int64_t n_units = s->n_runs * j.n_splits;
    j.n_groups = MIN((UNITS_PER_THREAD * n_threads + n_units - 1) / n_units, j.row_items);
    pool_run(s->pool, n_units * j.n_groups, 1, stream_units, &j);
    ops_job(s, j.n_items, j.n_splits * part_values, fold_items, &j);
}
