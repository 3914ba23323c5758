/* Keys and values into the paged cache, keys and queries rotated on the way. A thread does a pair of
 * dimensions of a head, or a value: 6 bytes a value, 3 operations where it is rotated. */
#include "kernels/hip/args.h"
#include "kernels/hip/gpu.h"

enum { KV_WRITE_BLOCK = 16 };

/* Dimensions that thread `pair` of a head of n does, and their values. */
struct kv_write_pair {
    int first, second;
    float u, v;
};

GPU_FN struct kv_write_pair kv_write_rotated(const struct kv_write_args *a, const float *x, int row,
                                             int pair)
{
    int n_pairs = a->n_rot / 2;
    struct kv_write_pair p;
    if (pair >= n_pairs) { /* not rotated: neighbours */
        p.first = 2 * pair;
        p.second = p.first + 1;
        p.u = x[p.first];
        p.v = x[p.second];
        return p;
    }
    p.first = a->adjacent ? 2 * pair : pair;
    p.second = a->adjacent ? p.first + 1 : pair + n_pairs;
    float u = x[p.first], v = x[p.second];
    const float *table = a->table + row * a->table_stride;
    float cosine = table[pair], sine = table[n_pairs + pair];
    p.u = u * cosine - v * sine;
    p.v = u * sine + v * cosine;
    return p;
}

GPU_KERNEL(kv_write, KV_WRITE_THREADS)
{
    int row = gpu_block_y(), index = gpu_block_x() * KV_WRITE_THREADS + gpu_thread();
    int of_head = a.dim_k / 2, n_q = a.q ? a.n_head * of_head : 0, n_k = a.n_kv_head * of_head;
    if (index < n_q) {
        float *x = a.q + row * a.q_stride + (int64_t)(index / of_head) * a.dim_k;
        struct kv_write_pair p = kv_write_rotated(&a, x, row, index % of_head);
        x[p.first] = p.u;
        x[p.second] = p.v;
        return;
    }
    index -= n_q;
    int position = a.positions[row], slot = position % KV_WRITE_BLOCK;
    int64_t block = a.tables[a.row_table[row] * a.tables_stride + position / KV_WRITE_BLOCK];
    int64_t head_elems = (int64_t)KV_WRITE_BLOCK * (a.dim_k + (a.v_in_k ? 0 : a.dim_v));
    uint16_t *kv = a.kv + block * head_elems * a.n_kv_head;
    if (index < n_k) {
        int head = index / of_head;
        const float *x = a.k + row * a.k_stride + (int64_t)head * a.dim_k;
        struct kv_write_pair p = kv_write_rotated(&a, x, row, index % of_head);
        uint16_t *k = kv + head * head_elems + slot;
        k[p.first * KV_WRITE_BLOCK] = gpu_f32_f16(p.u);
        k[p.second * KV_WRITE_BLOCK] = gpu_f32_f16(p.v);
        return;
    }
    index -= n_k;
    if (!a.v_in_k && index < a.n_kv_head * a.dim_v) {
        int head = index / a.dim_v, d = index % a.dim_v;
        uint16_t *v = kv + head * head_elems + KV_WRITE_BLOCK * a.dim_k + slot * a.dim_v;
        v[d] = gpu_f32_f16(a.v[row * a.v_stride + index]);
    }
}
