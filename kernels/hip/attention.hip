/* Attention over the paged KV cache, for rows of any sequences and any positions. Positions are cut into splits counted from
 * position 0; each split's softmax is made alone and the splits are folded in ascending order. The cut and every
 * order inside depend on the row's position only, so a row's result does not depend on its neighbours. Positions
 * that the row may not see are never multiplied: stale blocks may hold anything. */
#include "kernels/hip/args.h"
#include "kernels/hip/gpu.h"

#define attention_split_args attention_args
#define attention_fold_args attention_args

enum { ATTENTION_KV_BLOCK = 16, ATTENTION_WAVES = ATTENTION_THREADS / GPU_WAVE };
#define ATTENTION_NO_SCORE (-1e30f)

/* The first position that the row sees. */
GPU_FN int attention_lowest(const struct attention_args *a, int position)
{
    return a->window > 0 && position >= a->window ? position - a->window + 1 : 0;
}

GPU_FN int64_t attention_head_elems(const struct attention_args *a)
{
    return (int64_t)ATTENTION_KV_BLOCK * (a->dim_k + (a->v_in_k ? 0 : a->dim_v));
}

GPU_FN float *attention_part(const struct attention_args *a, int row, int head, int split)
{
    int64_t index = ((int64_t)row * a->n_head + head) * a->n_splits + split;
    return a->part + index * (2 + a->dim_v);
}

GPU_FN float attention_half(struct gpu_16 v, int i)
{
    return gpu_f16_f32((uint16_t)(v.w[i / 2] >> i % 2 * 16));
}

/* Scores of a block's 16 positions for all heads. Lane l does positions 8 (l % 2) and up, of every 16th dimension. */
GPU_FN void attention_scores(const struct attention_args *a, const uint16_t *k,
                             const float *q, int first_head, int n_heads, int position, int first,
                             int index, float *scores)
{
    float sum[ATTENTION_HEADS][8];
    for (int h = 0; h < ATTENTION_HEADS; h++) {
        for (int i = 0; i < 8; i++) {
            sum[h][i] = 0;
        }
    }
    int half = gpu_lane() % 2, lowest = attention_lowest(a, position);
    for (int d = gpu_lane() / 2; d < a->dim_k; d += GPU_WAVE / 2) {
        struct gpu_16 v = gpu_load16(k + d * ATTENTION_KV_BLOCK + 8 * half);
        for (int h = 0; h < ATTENTION_HEADS; h++) {
            float of_head = q[h * ATTENTION_MAX_DIM + d];
            for (int i = 0; i < 8; i++) {
                sum[h][i] = gpu_fma(of_head, attention_half(v, i), sum[h][i]);
            }
        }
    }
    for (int h = 0; h < ATTENTION_HEADS; h++) {
        for (int i = 0; i < 8; i++) {
            float s = sum[h][i];
            for (int mask = 2; mask < GPU_WAVE; mask *= 2) {
                s += gpu_shuffle_xor(s, mask);
            }
            if (gpu_lane() / 2 == (h * 8 + i) % 16 && h < n_heads) {
                int p = first + 8 * half + i;
                s = a->softcap > 0 ? a->softcap * gpu_tanh(s / a->softcap) : s;
                s = a->alibi ? s + a->alibi[first_head + h] * (float)(p - position) : s;
                bool is_seen = p >= lowest && p <= position;
                scores[h * ATTENTION_SPLIT + index + 8 * half + i] = is_seen ? s : ATTENTION_NO_SCORE;
            }
        }
    }
}

/* A wave turns a head's scores into weights; lane 0 leaves maximum and sum. */
GPU_FN void attention_softmax(float *scores, float *part)
{
    float largest = ATTENTION_NO_SCORE, sum = 0;
    for (int i = gpu_lane(); i < ATTENTION_SPLIT; i += GPU_WAVE) {
        largest = gpu_max2(scores[i], largest);
    }
    largest = gpu_max(largest);
    for (int i = gpu_lane(); i < ATTENTION_SPLIT; i += GPU_WAVE) {
        float w = scores[i] == ATTENTION_NO_SCORE ? 0.0f : gpu_exp(scores[i] - largest);
        scores[i] = w;
        sum += w;
    }
    sum = gpu_sum(sum);
    if (gpu_lane() == 0) {
        part[0] = largest;
        part[1] = sum;
    }
}

GPU_KERNEL(attention_split, ATTENTION_THREADS)
{
    GPU_SHARED(float, q, ATTENTION_HEADS * ATTENTION_MAX_DIM);
    GPU_SHARED(float, scores, ATTENTION_HEADS * ATTENTION_SPLIT);
    GPU_SHARED(float, sums, ATTENTION_THREADS * 8);
    int split = gpu_block_x(), row = gpu_block_z(), thread = gpu_thread();
    int position = a.positions[row], first = split * ATTENTION_SPLIT;
    int lowest = attention_lowest(&a, position);
    if (first > position || first + ATTENTION_SPLIT <= lowest) {
        return;
    }
    int group = a.n_head / a.n_kv_head, chunks = (group + ATTENTION_HEADS - 1) / ATTENTION_HEADS;
    int kv_head = gpu_block_y() / chunks, chunk = gpu_block_y() % chunks * ATTENTION_HEADS;
    int first_head = kv_head * group + chunk;
    int n_heads = group - chunk < ATTENTION_HEADS ? group - chunk : ATTENTION_HEADS;
    const int32_t *table = a.tables + a.row_table[row] * a.table_stride + first / ATTENTION_KV_BLOCK;
    int64_t head_elems = attention_head_elems(&a), block_elems = head_elems * a.n_kv_head;
    const uint16_t *kv = a.kv + kv_head * head_elems;

    for (int i = thread; i < ATTENTION_HEADS * a.dim_k; i += ATTENTION_THREADS) {
        int h = i / a.dim_k, d = i % a.dim_k;
        float of_head = 0;
        if (h < n_heads) {
            of_head = a.scale * a.q[row * a.q_stride + (int64_t)(first_head + h) * a.dim_k + d];
        }
        q[h * ATTENTION_MAX_DIM + d] = of_head;
    }
    gpu_barrier();
    for (int b = thread / GPU_WAVE; b < ATTENTION_SPLIT / ATTENTION_KV_BLOCK; b += ATTENTION_WAVES) {
        int start = first + b * ATTENTION_KV_BLOCK;
        if (start <= position && start + ATTENTION_KV_BLOCK > lowest) {
            attention_scores(&a, kv + table[b] * block_elems, q, first_head, n_heads, position,
                             start, b * ATTENTION_KV_BLOCK, scores);
        } else {
            for (int i = gpu_lane(); i < n_heads * ATTENTION_KV_BLOCK; i += GPU_WAVE) {
                int at = i / ATTENTION_KV_BLOCK * ATTENTION_SPLIT + i % ATTENTION_KV_BLOCK;
                scores[at + b * ATTENTION_KV_BLOCK] = ATTENTION_NO_SCORE;
            }
        }
    }
    gpu_barrier();
    for (int h = thread / GPU_WAVE; h < n_heads; h += ATTENTION_WAVES) {
        attention_softmax(scores + h * ATTENTION_SPLIT,
                          attention_part(&a, row, first_head + h, split));
    }
    gpu_barrier();

    /* Thread t: eight columns, and every n_lists-th position of the split. */
    int per_row = a.dim_v / 8, n_lists = ATTENTION_THREADS / per_row;
    int column = thread % per_row * 8, list = thread / per_row;
    float sum[ATTENTION_HEADS][8];
    for (int h = 0; h < ATTENTION_HEADS; h++) {
        for (int i = 0; i < 8; i++) {
            sum[h][i] = 0;
        }
    }
    int end = position + 1 - first < ATTENTION_SPLIT ? position + 1 - first : ATTENTION_SPLIT;
    for (int p = list < n_lists ? list : end; p < end; p += n_lists) {
        if (first + p < lowest) {
            continue;
        }
        const uint16_t *k = kv + table[p / ATTENTION_KV_BLOCK] * block_elems;
        int in_block = p % ATTENTION_KV_BLOCK;
        float v[8];
        if (a.v_in_k) {
            for (int i = 0; i < 8; i++) {
                v[i] = gpu_f16_f32(k[(column + i) * ATTENTION_KV_BLOCK + in_block]);
            }
        } else {
            struct gpu_16 loaded = gpu_load16(k + ATTENTION_KV_BLOCK * a.dim_k +
                                              in_block * a.dim_v + column);
            for (int i = 0; i < 8; i++) {
                v[i] = attention_half(loaded, i);
            }
        }
        for (int h = 0; h < ATTENTION_HEADS; h++) {
            float w = h < n_heads ? scores[h * ATTENTION_SPLIT + p] : 0;
            for (int i = 0; i < 8; i++) {
                sum[h][i] = gpu_fma(w, v[i], sum[h][i]);
            }
        }
    }
    for (int h = 0; h < ATTENTION_HEADS; h++) {
        if (h < n_heads) {
            for (int i = 0; i < 8; i++) {
                sums[thread * 8 + i] = sum[h][i];
            }
            gpu_barrier();
            float *part = attention_part(&a, row, first_head + h, split) + 2;
            for (int d = thread; d < a.dim_v; d += ATTENTION_THREADS) {
                float total = 0;
                for (int l = 0; l < n_lists; l++) {
                    total += sums[l * a.dim_v + d];
                }
                part[d] = total;
            }
            gpu_barrier();
        }
    }
}

GPU_KERNEL(attention_fold, ATTENTION_FOLD_THREADS)
{
    int head = gpu_block_x(), row = gpu_block_y(), position = a.positions[row];
    int from = attention_lowest(&a, position) / ATTENTION_SPLIT, to = position / ATTENTION_SPLIT;
    float *y = a.y + row * a.y_stride + (int64_t)head * a.dim_v;
    for (int d = gpu_thread(); d < a.dim_v; d += ATTENTION_FOLD_THREADS) {
        float largest = a.sinks ? a.sinks[head] : ATTENTION_NO_SCORE;
        float sum = a.sinks ? 1.0f : 0.0f, value = 0;
        for (int s = from; s <= to; s++) {
            const float *part = attention_part(&a, row, head, s);
            float both = gpu_max2(largest, part[0]);
            float old_weight = gpu_exp(largest - both), new_weight = gpu_exp(part[0] - both);
            sum = sum * old_weight + part[1] * new_weight;
            value = value * old_weight + part[2 + d] * new_weight;
            largest = both;
        }
        y[d] = value / sum;
    }
}
