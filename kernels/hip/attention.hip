/* Attention over the paged KV cache, for rows of any sequences and any positions. Positions are
 * cut into splits counted from position 0; each split's softmax is made alone and the splits are
 * folded in ascending order. The cut and every order inside depend on the row's position only: a
 * row's bits are the same with any neighbours, and from attention_split and attention_tile.
 * Positions that the row may not see are never multiplied: stale blocks may hold anything. The
 * cache holds binary16, groups of bytes with a scale (q8), or F32 and BF16 (wide): a kernel
 * each.
 *
 * For a position and a query head: dim_k + dim_v fused multiply-adds, one exponential; 2 (dim_k +
 * dim_v) bytes, which attention_split reads once for ATTENTION_HEADS heads, attention_tile for
 * ATTENTION_PAIRS heads and rows. */
#include "kernels/hip/act.h"
#include "kernels/hip/kv_write.h"

#define attention_split_args attention_args
#define attention_fold_args attention_args
#define attention_tile_args attention_args
#define attention_split_q8_args attention_args
#define attention_tile_q8_args attention_args
#define attention_split_wide_args attention_args
#define attention_tile_wide_args attention_args
#define attention_split_one_args attention_args
#define attention_split_one_q8_args attention_args
#define attention_split_one_wide_args attention_args

enum {
    ATTENTION_KV_BLOCK = CACHE_BLOCK,
    ATTENTION_STRANDS = 4, /* quarters of the dimensions, summed apart */
    ATTENTION_LISTS = 8,   /* eighths of a split's positions, summed apart */
    ATTENTION_OF_LIST = ATTENTION_SPLIT / ATTENTION_LISTS,
    ATTENTION_AHEAD = 16,    /* dimensions that are asked for before the first is used */
    ATTENTION_GROUP = 8,     /* positions, aligned, whose values are */
    ATTENTION_TILE_AHEAD = 4, /* the same of attention_tile, which holds more */
    ATTENTION_COLUMNS = 128, /* of values that attention_split does at a time */
    ATTENTION_TILE_WAVES = ATTENTION_TILE_THREADS / GPU_WAVE,
    ATTENTION_WAVE_PAIRS = ATTENTION_PAIRS / ATTENTION_TILE_WAVES
};
#define ATTENTION_NO_SCORE (-1e30f)

/* The first position that the row sees. */
GPU_FN int attention_lowest(const struct attention_args *a, int position)
{
    return a->window > 0 && position >= a->window ? position - a->window + 1 : 0;
}

GPU_FN int64_t attention_head_bytes(const struct attention_args *a, int type)
{
    return cache_tile_bytes(type, a->dim_k) + (a->v_in_k ? 0 : cache_tile_bytes(type, a->dim_v));
}

GPU_FN float *attention_part(const struct attention_args *a, int row, int head, int split)
{
    int64_t index = ((int64_t)row * a->n_head + head) * a->n_splits + split;
    return a->part + index * (2 + a->dim_v);
}

/* --- steps that both kernels share ------------------------------------------------------------ */

/* What attention_split asks for at once: F32 takes twice the registers. */
GPU_FN int attention_ahead(int type)
{
    return type == TYPE_F16 || type == TYPE_Q8_0 ? ATTENTION_AHEAD : ATTENTION_AHEAD / 2;
}

/* One strand of the scores of n pairs (a constant maximum of max) at eight positions, from `at`
 * on in a block. k: the head's keys of that block; q: of the first pair, pitch floats from pair
 * to pair. */
GPU_FN void attention_strand(const struct attention_args *a, int type, const uint8_t *k, int at,
                             const float *q, int pitch, int max, int ahead, int strand,
                             float sum[][8])
{
    int quarter = a->dim_k / ATTENTION_STRANDS;
    GPU_UNROLL
    for (int h = 0; h < max; h++) {
        GPU_UNROLL
        for (int i = 0; i < 8; i++) {
            sum[h][i] = 0;
        }
    }
    int end = (strand + 1) * quarter;
    for (int from = strand * quarter, to = end; from < end; from = to) {
        float scale[8] = {0};
        if (type == TYPE_Q8_0) { /* dimensions that share scales */
            to = from / CACHE_GROUP * CACHE_GROUP + CACHE_GROUP;
            to = to < end ? to : end;
            cache_key_scales(k, from, at, scale);
        }
        GPU_LOOP
        for (int first = from; first < to; first += ahead) {
            struct cache_eight v[ATTENTION_AHEAD];
            GPU_UNROLL
            for (int j = 0; j < ahead; j++) {
                v[j] = cache_keys(type, k, a->dim_k, first + j < to ? first + j : to - 1, at);
            }
            GPU_UNROLL
            for (int j = 0; j < ahead; j++) {
                if (first + j >= to) {
                    continue;
                }
                GPU_UNROLL
                for (int h = 0; h < max; h++) {
                    float of_pair = q[h * pitch + first + j];
                    GPU_UNROLL
                    for (int i = 0; i < 8; i++) {
                        float key = cache_number(type, &v[j], i, scale[i]);
                        sum[h][i] = gpu_fma(of_pair, key, sum[h][i]);
                    }
                }
            }
        }
    }
}

/* The score that counts, of a position p. */
GPU_FN float attention_score(const struct attention_args *a, float s, int head, int position, int p)
{
    s = a->softcap > 0 ? a->softcap * gpu_tanh(s / a->softcap) : s;
    s = a->alibi ? s + a->alibi[head] * (float)(p - position) : s;
    return p >= attention_lowest(a, position) && p <= position ? s : ATTENTION_NO_SCORE;
}

/* A wave turns a split's scores into weights; all lanes get maximum and sum. */
GPU_FN void attention_softmax(float *scores, float *ret_largest, float *ret_sum)
{
    enum { OF_LANE = ATTENTION_SPLIT / GPU_WAVE };
    float s[OF_LANE], largest = ATTENTION_NO_SCORE, sum = 0;
    GPU_UNROLL
    for (int i = 0; i < OF_LANE; i++) {
        s[i] = scores[gpu_lane() + i * GPU_WAVE];
        largest = gpu_max2(s[i], largest);
    }
    largest = gpu_max(largest);
    GPU_UNROLL
    for (int i = 0; i < OF_LANE; i++) {
        float w = gpu_exp(s[i] - largest);
        s[i] = s[i] == ATTENTION_NO_SCORE ? 0.0f : w;
    }
    GPU_UNROLL
    for (int i = 0; i < OF_LANE; i++) {
        scores[gpu_lane() + i * GPU_WAVE] = s[i];
        sum += s[i];
    }
    *ret_largest = largest;
    *ret_sum = gpu_sum(sum);
}

/* Eight columns of a position's values. k: the KV head's part of its block. */
GPU_FN struct cache_value attention_value(const struct attention_args *a, int type,
                                          const uint8_t *k, int in_block, int column)
{
    if (a->v_in_k) {
        return cache_value_in_key(type, k, a->dim_k, column, in_block);
    }
    return cache_value(type, k + cache_tile_bytes(type, a->dim_k), a->dim_v, column, in_block);
}

/* Folds a split's maximum, sum and weighted values into what was gathered before. */
struct attention_fold_state {
    float largest, sum, old_weight, new_weight;
};
GPU_FN void attention_fold_in(struct attention_fold_state *f, float largest, float sum)
{
    float both = gpu_max2(f->largest, largest);
    f->old_weight = gpu_exp(f->largest - both);
    f->new_weight = gpu_exp(largest - both);
    f->sum = f->sum * f->old_weight + sum * f->new_weight;
    f->largest = both;
}
GPU_FN struct attention_fold_state attention_fold_begin(const struct attention_args *a, int head)
{
    struct attention_fold_state f = {ATTENTION_NO_SCORE, 0, 0, 0};
    if (a->sinks) {
        f.largest = a->sinks[head];
        f.sum = 1.0f;
    }
    return f;
}

/* What becomes of values v of the split that was folded in. */
GPU_FN float attention_fold_value(const struct attention_fold_state *f, float before, float v)
{
    return before * f->old_weight + v * f->new_weight;
}

/* Values of a query head's column d. The wave has 32 columns of the head. */
GPU_FN void attention_give(const struct attention_args *a, int row, int head, int d, float value)
{
    if (a->y) {
        a->y[row * a->y_stride + (int64_t)head * a->dim_v + d] = value;
    }
    if (a->act) {
        act_store(a->act + row * a->act_stride, a->n_head * a->dim_v,
                  head * a->dim_v + d / GPU_WAVE * GPU_WAVE, value);
    }
}

/* --- one row: a block does a split, and a second kernel folds the splits ---------------------- */

/* A query's or key's dimension d, rotated where `write` says so. Without branches between loads,
 * so that all of them are on their way at once. */
GPU_FN float attention_rotated(const struct kv_write_args *w, const float *x, int row, int d)
{
    if (w->n_rows == 0 || w->n_rot == 0) {
        return x[d];
    }
    int n_pairs = w->n_rot / 2;
    bool is_rotated = d < 2 * n_pairs, is_second = w->adjacent ? d % 2 == 1 : d >= n_pairs;
    int pair = w->adjacent ? d / 2 : is_second ? d - n_pairs : d;
    pair = is_rotated ? pair : 0;
    int first = w->adjacent ? 2 * pair : pair, second = w->adjacent ? first + 1 : pair + n_pairs;
    const float *table = w->table + row * w->table_stride;
    float cosine = table[pair], sine = table[n_pairs + pair];
    float u = x[is_rotated ? first : d], v = x[is_rotated ? second : d];
    float y = is_second ? u * sine + v * cosine : u * cosine - v * sine;
    return is_rotated ? y : u;
}

/* The row's own key and value of a KV head, two dimensions of each a thread. */
struct attention_own {
    float k[2], v[2];
};
GPU_FN struct attention_own attention_load_own(const struct kv_write_args *w, int row, int kv_head)
{
    struct attention_own own = {{0, 0}, {0, 0}};
    const float *k = w->k + row * w->k_stride + (int64_t)kv_head * w->dim_k;
    const float *v = w->v + row * w->v_stride + (int64_t)kv_head * w->dim_v;
    GPU_UNROLL
    for (int i = 0; i < 2; i++) {
        int d = gpu_thread() + i * ATTENTION_THREADS;
        if (d < w->dim_k) {
            own.k[i] = attention_rotated(w, k, row, d);
        }
        if (d < w->dim_v) {
            own.v[i] = w->v_in_k ? own.k[i] : v[d];
        }
    }
    return own;
}

/* As the cache will hold them to key and value, and, of one of the blocks that share the KV
 * head, into the cache. What other blocks find there, old or new, they do not use. */
GPU_FN void attention_store_own(const struct kv_write_args *w, const struct attention_own *own,
                                int row, int kv_head, bool is_writer, float *key, float *value)
{
    int slot;
    uint8_t *k_tile = kv_write_head(w, w->type, row, kv_head, &slot);
    uint8_t *v_tile = k_tile + cache_tile_bytes(w->type, w->dim_k);
    int bytes = kv_write_bytes(w->type);
    GPU_UNROLL
    for (int i = 0; i < 2; i++) {
        int d = gpu_thread() + i * ATTENTION_THREADS;
        if (d < w->dim_k) {
            key[d] = cache_rounded(w->type, own->k[i]);
        }
        if (d < w->dim_v) {
            value[d] = cache_rounded(w->type, own->v[i]);
        }
        if (is_writer && d < w->dim_k) {
            gpu_unused(k_tile + (d * CACHE_BLOCK + slot) * bytes, bytes);
            kv_write_put(w->type, k_tile, d * CACHE_BLOCK + slot, own->k[i]);
        }
        if (is_writer && d < w->dim_v && !w->v_in_k) {
            gpu_unused(v_tile + (slot * w->dim_v + d) * bytes, bytes);
            kv_write_put(w->type, v_tile, slot * w->dim_v + d, own->v[i]);
        }
    }
}

/* What attention_split asks for at once of values: F32 takes twice the registers. */
GPU_FN int attention_group(int type)
{
    return type == TYPE_F16 || type == TYPE_Q8_0 ? ATTENTION_GROUP : ATTENTION_GROUP / 2;
}

/* Values of the group that position p of the split is in, from one of the list's two blocks. */
GPU_FN void attention_ask(const struct attention_args *a, int type, const uint8_t *even,
                          const uint8_t *odd, int p, int column, struct cache_value *v)
{
    int n = attention_group(type), in_block = p % ATTENTION_KV_BLOCK / n * n;
    const uint8_t *k = p / ATTENTION_KV_BLOCK % 2 == 0 ? even : odd;
    GPU_UNROLL
    for (int j = 0; j < n; j++) {
        v[j] = attention_value(a, type, k, in_block + j, column);
    }
}

/* Lane l does positions 8 l to 8 l + 7, a wave a quarter of the dimensions, of `heads` (a constant)
 * query heads at most: ATTENTION_HEADS, or 1. What comes from memory is asked for as early as may be: with few positions, waiting is all that takes time
 * here. */
GPU_FN void attention_split_run(const struct attention_args a, int type, int heads)
{
    /* Scores of four strands, then the queries. */
    enum { STRAND = ATTENTION_HEADS * ATTENTION_SPLIT, SCORES = ATTENTION_STRANDS * STRAND };
    GPU_SHARED(float, scores, SCORES + ATTENTION_HEADS * ATTENTION_MAX_DIM);
    GPU_SHARED(float, head_largest, ATTENTION_HEADS);
    GPU_SHARED(float, head_sum, ATTENTION_HEADS);
    float *q = scores + SCORES;
    /* Beside the last queries, which end sooner where these are used. */
    float *own_key = q + 2 * ATTENTION_MAX_DIM + ATTENTION_TILE_DIM;
    float *own_value = q + 3 * ATTENTION_MAX_DIM + ATTENTION_TILE_DIM;
    int split = gpu_block_x(), row = gpu_block_z(), thread = gpu_thread(), lane = gpu_lane();
    int wave = gpu_uniform(thread / GPU_WAVE);
    int position = a.positions[row], first = split * ATTENTION_SPLIT;
    const int32_t *table = a.tables + a.row_table[row] * a.table_stride;
    table += first / ATTENTION_KV_BLOCK;
    int group = a.n_head / a.n_kv_head, chunks = (group + heads - 1) / heads;
    int kv_head = gpu_block_y() / chunks, chunk = gpu_block_y() % chunks * heads;
    int first_head = kv_head * group + chunk;
    int n_heads = group - chunk < heads ? group - chunk : heads;
    int64_t head_bytes = attention_head_bytes(&a, type), block_bytes = head_bytes * a.n_kv_head;
    const uint8_t *kv = a.kv + kv_head * head_bytes;

    struct attention_own own = {{0, 0}, {0, 0}};
    if (a.write.n_rows > 0) {
        own = attention_load_own(&a.write, row, kv_head);
    }
    const float *of_first = a.q + row * a.q_stride + (int64_t)first_head * a.dim_k;
    for (int d = thread; d < a.dim_k; d += ATTENTION_THREADS) {
        float of_head[ATTENTION_HEADS];
        GPU_UNROLL
        for (int h = 0; h < heads; h++) { /* of heads that are missing, the last again */
            const float *x = of_first + (h < n_heads ? h : n_heads - 1) * a.dim_k;
            of_head[h] = attention_rotated(&a.write, x, row, d);
        }
        GPU_UNROLL
        for (int h = 0; h < heads; h++) {
            q[h * ATTENTION_MAX_DIM + d] = h < n_heads ? a.scale * of_head[h] : 0;
        }
    }
    int lowest = attention_lowest(&a, position);
    if (first > position || first + ATTENTION_SPLIT <= lowest) {
        return;
    }
    int start = first + lane / 2 * ATTENTION_KV_BLOCK;
    bool is_seen = start <= position && start + ATTENTION_KV_BLOCK > lowest;
    const uint8_t *k = kv + (is_seen ? table[lane / 2] * block_bytes : 0);

    /* Values: thread t does eight columns, and the positions of list t / 16. */
    int list = thread / (ATTENTION_COLUMNS / 8), column = thread % (ATTENTION_COLUMNS / 8) * 8;
    int from = list * ATTENTION_OF_LIST, to = from + ATTENTION_OF_LIST;
    int end = position + 1 - first;
    from = from < lowest - first ? lowest - first : from;
    to = to > end ? end : to;
    int low = list * (ATTENTION_OF_LIST / ATTENTION_KV_BLOCK);
    bool has_even = from < to && from < (low + 1) * ATTENTION_KV_BLOCK;
    bool has_odd = from < to && to > (low + 1) * ATTENTION_KV_BLOCK;
    const uint8_t *even = kv + (has_even ? table[low] * block_bytes : 0);
    const uint8_t *odd = kv + (has_odd ? table[low + 1] * block_bytes : 0);
    bool is_own = a.write.n_rows > 0 && position < first + ATTENTION_SPLIT;
    if (is_own) {
        attention_store_own(&a.write, &own, row, kv_head, chunk == 0, own_key, own_value);
    }
    bool has_own = is_own && from < to && to == end; /* the last of its list */
    to = has_own ? to - 1 : to;
    gpu_barrier();
    float strand[ATTENTION_HEADS][8] = {{0}};
    if (is_seen) {
        attention_strand(&a, type, k, lane % 2 * 8, q, ATTENTION_MAX_DIM, heads,
                         attention_ahead(type), wave, strand);
    }
    GPU_UNROLL
    for (int h = 0; h < heads; h++) {
        GPU_UNROLL
        for (int i = 0; i < 8; i++) {
            scores[(wave * ATTENTION_HEADS + h) * ATTENTION_SPLIT + lane * 8 + i] = strand[h][i];
        }
    }
    gpu_keep_order();
    int n_group = attention_group(type);
    struct cache_value v[ATTENTION_GROUP];
    if (from < to && column < a.dim_v) {
        attention_ask(&a, type, even, odd, from, column, v);
    }
    if (is_own) { /* what was read of the row's own position was no key yet */
        gpu_wave_sync();
        if (lane < heads) {
            int quarter = a.dim_k / ATTENTION_STRANDS;
            float sum = 0;
            for (int d = wave * quarter; d < (wave + 1) * quarter; d++) {
                sum = gpu_fma(q[lane * ATTENTION_MAX_DIM + d], own_key[d], sum);
            }
            scores[(wave * ATTENTION_HEADS + lane) * ATTENTION_SPLIT + position - first] = sum;
        }
    }
    gpu_barrier();
    for (int i = thread; i < n_heads * ATTENTION_SPLIT; i += ATTENTION_THREADS) {
        float s = (scores[i] + scores[i + STRAND]) + (scores[i + 2 * STRAND] + scores[i + 3 * STRAND]);
        scores[i] = attention_score(&a, s, first_head + i / ATTENTION_SPLIT, position,
                                    first + i % ATTENTION_SPLIT);
    }
    gpu_barrier();
    if (wave < n_heads) {
        float largest, sum;
        attention_softmax(scores + wave * ATTENTION_SPLIT, &largest, &sum);
        if (lane == 0) {
            head_largest[wave] = largest;
            head_sum[wave] = sum;
        }
        if (lane == 0 && a.n_splits > 1) {
            float *part = attention_part(&a, row, first_head + wave, split);
            part[0] = largest;
            part[1] = sum;
        }
    }
    gpu_barrier();

    /* Strands 1 to 3 and queries have served. */
    float *sums = scores + STRAND;
    for (int left = 0; left < a.dim_v; left += ATTENTION_COLUMNS) {
        float sum[ATTENTION_HEADS][8] = {{0}};
        bool is_there = left + column < a.dim_v;
        if (left > 0 && from < to && is_there) {
            attention_ask(&a, type, even, odd, from, left + column, v);
        }
        GPU_LOOP
        for (int at = from / n_group * n_group; at < to && is_there; at += n_group) {
            GPU_UNROLL
            for (int j = 0; j < n_group; j++) {
                if (at + j < from || at + j >= to) {
                    continue;
                }
                GPU_UNROLL
                for (int h = 0; h < heads; h++) {
                    float w = h < n_heads ? scores[h * ATTENTION_SPLIT + at + j] : 0;
                    GPU_UNROLL
                    for (int i = 0; i < 8; i++) {
                        sum[h][i] = gpu_fma(w, cache_value_number(type, &v[j], i), sum[h][i]);
                    }
                }
            }
            if (at + n_group < to) {
                attention_ask(&a, type, even, odd, at + n_group, left + column, v);
            }
        }
        GPU_UNROLL
        for (int i = 0; i < 8 && has_own && is_there; i++) {
            float x = own_value[left + column + i];
            GPU_UNROLL
            for (int h = 0; h < heads; h++) {
                float w = h < n_heads ? scores[h * ATTENTION_SPLIT + to] : 0;
                sum[h][i] = gpu_fma(w, x, sum[h][i]);
            }
        }
        GPU_UNROLL
        for (int h = 0; h < heads; h++) {
            GPU_UNROLL
            for (int i = 0; i < 8; i++) {
                sums[(h * ATTENTION_LISTS + list) * ATTENTION_COLUMNS + column + i] = sum[h][i];
            }
        }
        gpu_barrier();
        for (int h = 0; h < n_heads && left + thread < a.dim_v; h++) {
            float total = 0;
            GPU_UNROLL
            for (int l = 0; l < ATTENTION_LISTS; l++) {
                total += sums[(h * ATTENTION_LISTS + l) * ATTENTION_COLUMNS + thread];
            }
            if (a.n_splits > 1) {
                attention_part(&a, row, first_head + h, split)[2 + left + thread] = total;
            } else {
                struct attention_fold_state f = attention_fold_begin(&a, first_head + h);
                attention_fold_in(&f, head_largest[h], head_sum[h]);
                total = attention_fold_value(&f, 0, total) / f.sum;
                attention_give(&a, row, first_head + h, left + thread, total);
            }
        }
        gpu_barrier();
    }
}

GPU_KERNEL(attention_split, ATTENTION_THREADS)
{
    attention_split_run(a, TYPE_F16, ATTENTION_HEADS);
}
GPU_KERNEL(attention_split_q8, ATTENTION_THREADS)
{
    attention_split_run(a, TYPE_Q8_0, ATTENTION_HEADS);
}
GPU_KERNEL(attention_split_wide, ATTENTION_THREADS)
{
    attention_split_run(a, cache_wide_type(a.type), ATTENTION_HEADS);
}
GPU_KERNEL(attention_split_one, ATTENTION_THREADS)
{
    attention_split_run(a, TYPE_F16, 1);
}
GPU_KERNEL(attention_split_one_q8, ATTENTION_THREADS)
{
    attention_split_run(a, TYPE_Q8_0, 1);
}
GPU_KERNEL(attention_split_one_wide, ATTENTION_THREADS)
{
    attention_split_run(a, cache_wide_type(a.type), 1);
}

GPU_KERNEL(attention_fold, ATTENTION_FOLD_THREADS)
{
    int head = gpu_block_x(), row = gpu_block_y(), position = a.positions[row];
    int from = attention_lowest(&a, position) / ATTENTION_SPLIT, to = position / ATTENTION_SPLIT;
    for (int d = gpu_thread(); d < a.dim_v; d += ATTENTION_FOLD_THREADS) {
        struct attention_fold_state f = attention_fold_begin(&a, head);
        float value = 0;
        for (int s = from; s <= to; s++) {
            const float *part = attention_part(&a, row, head, s);
            attention_fold_in(&f, part[0], part[1]);
            value = attention_fold_value(&f, value, part[2 + d]);
        }
        attention_give(&a, row, head, d, value / f.sum);
    }
}

/* --- many rows of a sequence: a block does all splits of some rows, and folds as it goes ------ */

/* Scores of the wave's pairs: lane l does positions 8 l to 8 l + 7 of the split. */
GPU_FN void attention_tile_scores(const struct attention_args *a, int type, const uint8_t *k, int at,
                                  const float *q, int first_pair, float *scores)
{
    float all[ATTENTION_WAVE_PAIRS][8], half[ATTENTION_WAVE_PAIRS][8], sum[ATTENTION_WAVE_PAIRS][8];
    q += first_pair * ATTENTION_TILE_DIM;
    attention_strand(a, type, k, at, q, ATTENTION_TILE_DIM, ATTENTION_WAVE_PAIRS,
                     ATTENTION_TILE_AHEAD, 0, half);
    attention_strand(a, type, k, at, q, ATTENTION_TILE_DIM, ATTENTION_WAVE_PAIRS,
                     ATTENTION_TILE_AHEAD, 1, sum);
    GPU_UNROLL
    for (int i = 0; i < 8 * ATTENTION_WAVE_PAIRS; i++) {
        all[i / 8][i % 8] = half[i / 8][i % 8] + sum[i / 8][i % 8];
    }
    attention_strand(a, type, k, at, q, ATTENTION_TILE_DIM, ATTENTION_WAVE_PAIRS,
                     ATTENTION_TILE_AHEAD, 2, half);
    attention_strand(a, type, k, at, q, ATTENTION_TILE_DIM, ATTENTION_WAVE_PAIRS,
                     ATTENTION_TILE_AHEAD, 3, sum);
    GPU_UNROLL
    for (int i = 0; i < 8 * ATTENTION_WAVE_PAIRS; i++) {
        float s = all[i / 8][i % 8] + (half[i / 8][i % 8] + sum[i / 8][i % 8]);
        scores[(first_pair + i / 8) * ATTENTION_SPLIT + gpu_lane() * 8 + i % 8] = s;
    }
}

GPU_FN void attention_tile_run(const struct attention_args a, int type)
{
    GPU_SHARED(float, q, ATTENTION_PAIRS * ATTENTION_TILE_DIM);
    GPU_SHARED(float, scores, ATTENTION_PAIRS * ATTENTION_SPLIT);
    GPU_SHARED(float, largest, ATTENTION_PAIRS);
    GPU_SHARED(float, sums, ATTENTION_PAIRS);
    int thread = gpu_thread(), lane = gpu_lane(), wave = gpu_uniform(thread / GPU_WAVE);
    int group = a.n_head / a.n_kv_head;
    int heads = group < ATTENTION_PAIRS ? group : ATTENTION_PAIRS; /* that a block does at a time */
    int chunks = (group + heads - 1) / heads;
    int kv_head = gpu_block_y() / chunks, first_head = kv_head * group + gpu_block_y() % chunks * heads;
    int n_heads = (kv_head + 1) * group - first_head < heads ? (kv_head + 1) * group - first_head : heads;
    int first_row = a.tiles[2 * gpu_block_x()], n_rows = a.tiles[2 * gpu_block_x() + 1];
    int n_pairs = n_rows * n_heads; /* pair i: row i / n_heads, head i % n_heads */
    int64_t head_bytes = attention_head_bytes(&a, type), block_bytes = head_bytes * a.n_kv_head;
    const uint8_t *kv = a.kv + kv_head * head_bytes;
    const int32_t *blocks = a.tables + a.row_table[first_row] * a.table_stride;

    for (int i = thread; i < ATTENTION_PAIRS * a.dim_k; i += ATTENTION_TILE_THREADS) {
        int pair = i / a.dim_k, d = i % a.dim_k;
        float of_pair = 0;
        if (pair < n_pairs) {
            int64_t head = first_head + pair % n_heads;
            of_pair = a.scale * a.q[(first_row + pair / n_heads) * a.q_stride + head * a.dim_k + d];
        }
        q[pair * ATTENTION_TILE_DIM + d] = of_pair;
    }
    /* Rows of a tile follow each other: the first sees the lowest position, the last the
     * highest. */
    int lowest = attention_lowest(&a, a.positions[first_row]);
    int highest = a.positions[first_row + n_rows - 1];

    /* Values: thread t does eight columns of a pair, or several eights. */
    int per_pair = ATTENTION_TILE_THREADS / ATTENTION_PAIRS;
    int my_pair = thread / per_pair, my_column = thread % per_pair * 8;
    bool is_mine = my_pair < n_pairs;
    int my_row = is_mine ? first_row + my_pair / n_heads : first_row;
    int my_head = first_head + (is_mine ? my_pair % n_heads : 0);
    int my_position = a.positions[my_row], my_lowest = attention_lowest(&a, my_position);
    float value[2][8] = {{0}};
    struct attention_fold_state f = attention_fold_begin(&a, my_head);

    for (int split = lowest / ATTENTION_SPLIT; split <= highest / ATTENTION_SPLIT; split++) {
        int first = split * ATTENTION_SPLIT;
        const int32_t *table = blocks + first / ATTENTION_KV_BLOCK;
        int start = first + lane / 2 * ATTENTION_KV_BLOCK;
        gpu_barrier();
        if (start <= highest && start + ATTENTION_KV_BLOCK > lowest) {
            const uint8_t *k = kv + table[lane / 2] * block_bytes;
            attention_tile_scores(&a, type, k, lane % 2 * 8, q, wave * ATTENTION_WAVE_PAIRS, scores);
        }
        gpu_wave_sync();
        for (int i = 0; i < ATTENTION_WAVE_PAIRS; i++) {
            int pair = wave * ATTENTION_WAVE_PAIRS + i;
            if (pair < n_pairs) {
                int position = a.positions[first_row + pair / n_heads];
                float *of_pair = scores + pair * ATTENTION_SPLIT, top, sum;
                for (int p = lane; p < ATTENTION_SPLIT; p += GPU_WAVE) {
                    bool is_there = first + p <= highest && (first + p) / 16 * 16 + 16 > lowest;
                    float s = is_there ? of_pair[p] : 0;
                    of_pair[p] = attention_score(&a, s, first_head + pair % n_heads, position,
                                                 first + p);
                }
                attention_softmax(of_pair, &top, &sum);
                if (lane == 0) {
                    largest[pair] = top;
                    sums[pair] = sum;
                }
            }
        }
        gpu_barrier();
        if (is_mine && first <= my_position && first + ATTENTION_SPLIT > my_lowest) {
            attention_fold_in(&f, largest[my_pair], sums[my_pair]);
            GPU_UNROLL
            for (int c = 0; c < 2; c++) {
                int column = my_column + c * per_pair * 8;
                if (column >= a.dim_v) {
                    continue;
                }
                float total[8] = {0};
                for (int l = 0; l < ATTENTION_LISTS; l++) {
                    int from = l * ATTENTION_OF_LIST, to = from + ATTENTION_OF_LIST;
                    from = from < my_lowest - first ? my_lowest - first : from;
                    to = to > my_position + 1 - first ? my_position + 1 - first : to;
                    float sum[8] = {0};
                    for (int p = from; p < to; p++) {
                        float w = scores[my_pair * ATTENTION_SPLIT + p];
                        const uint8_t *k = kv + table[p / ATTENTION_KV_BLOCK] * block_bytes;
                        struct cache_value v =
                            attention_value(&a, type, k, p % ATTENTION_KV_BLOCK, column);
                        GPU_UNROLL
                        for (int i = 0; i < 8; i++) {
                            sum[i] = gpu_fma(w, cache_value_number(type, &v, i), sum[i]);
                        }
                    }
                    GPU_UNROLL
                    for (int i = 0; i < 8; i++) {
                        total[i] += sum[i];
                    }
                }
                GPU_UNROLL
                for (int i = 0; i < 8; i++) {
                    value[c][i] = attention_fold_value(&f, value[c][i], total[i]);
                }
            }
        }
    }
    GPU_UNROLL
    for (int c = 0; c < 2; c++) {
        int column = my_column + c * per_pair * 8;
        if (is_mine && column < a.dim_v) {
            float *y = a.y + my_row * a.y_stride + (int64_t)my_head * a.dim_v + column;
            GPU_UNROLL
            for (int i = 0; i < 8; i++) {
                y[i] = value[c][i] / f.sum;
            }
        }
    }
}

GPU_KERNEL(attention_tile, ATTENTION_TILE_THREADS)
{
    attention_tile_run(a, TYPE_F16);
}
GPU_KERNEL(attention_tile_q8, ATTENTION_TILE_THREADS)
{
    attention_tile_run(a, TYPE_Q8_0);
}
GPU_KERNEL(attention_tile_wide, ATTENTION_TILE_THREADS)
{
    attention_tile_run(a, cache_wide_type(a.type));
}
