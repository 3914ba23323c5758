/* The product of packed weights with one token, or with a slot of experts: gemv's sums in gemv's order, so gemv's bits. A block does
 * a panel of 32 rows, of both matrices where gate and up go together. A lane does a row, a wave every 16th segment of 256
 * columns. x stands in shared memory: read from the caches between the weights that stream past, it would wait for each group.
 * x is asked for first (behind the weights it would come last), the first weights before x is there, and each piece before
 * the one ahead of it is used.
 *
 * For a group of 32 weights of Q4_0: 18 bytes of memory, 40 of shared memory for the whole wave, some 30 operations. */
#include "kernels/hip/act.h"
#include "kernels/hip/activate.h"
#include "kernels/hip/group.h"
#include "kernels/hip/norm.h"

#define gemv_one_q4_0_args matmul_args
#define gemv_one_q8_0_args matmul_args
#define gemv_one_q4_k_args matmul_args
#define gemv_one_q6_k_args matmul_args

enum {
    GEMV_ONE_WAVES = GEMV_ONE_THREADS / GPU_WAVE,
    GEMV_ONE_UNITS = 80, /* whose sums, and GEMV_ONE_COLS whose x, are in shared memory at a time */
    GEMV_ONE_COLS = GEMV_ONE_UNITS * ARGS_SEGMENT,
    GEMV_ONE_STEP = 16 * GEMV_ONE_THREADS, /* columns that are staged at a time */
    GEMV_ONE_STEPS = GEMV_ONE_COLS / GEMV_ONE_STEP,
    GEMV_ONE_NORM_STEPS = GEMV_ONE_NORM / NORM_STEP,
    GEMV_ONE_ADD = 8,   /* sums that are on their way before the first is added */
    GEMV_ONE_PIECE = 4, /* words of 16 bytes, at most, of a piece */
    GEMV_ONE_AHEAD = 2  /* pieces that are asked for before the first is needed */
};

/* What a block does in a round: segments [first, first + n) of each of n_matrices. Unit u is segment first + u of the first
 * matrix, then come those of the second, which differs from the first in its data only. */
struct gemv_one_round {
    struct args_weight w;
    const uint8_t *second;
    int row, n_chunks, first, n, n_matrices;
};

/* Piece p of unit u: of so many, a chunk or half of one. The last chunk stands for what is missing; x is 0 there. */
GPU_FN struct group_chunk gemv_one_load(const struct gemv_one_round *r, int type, int u, int p,
                                        int n_pieces)
{
    struct args_weight w = r->w;
    w.data = u >= r->n ? r->second : w.data;
    int segment = r->first + (u >= r->n ? u - r->n : u);
    int chunk = 2 * segment + (n_pieces == 2 ? p : p / 2);
    chunk = chunk < r->n_chunks ? chunk : r->n_chunks - 1;
    return group_load(&w, type, r->n_chunks, r->row, chunk, n_pieces == 2 ? GROUP_WHOLE : p % 2);
}

/* What a thread brings of x to shared memory at a time: 16 columns of GEMV_ONE_STEP, and scales; 0 beyond the row. */
struct gemv_one_x {
    struct gpu_16 q;
    struct args_act scales;
};
GPU_FN struct gemv_one_x gemv_one_ask(const int8_t *x, int n_cols, int from)
{
    struct gemv_one_x v = {{{0, 0, 0, 0}}, {0, {0, 0}}};
    const struct args_act *of_x = (const struct args_act *)(const void *)(x + n_cols);
    int at = from + 16 * gpu_thread(), group = from / ARGS_GROUP + gpu_thread();
    if (at < n_cols) {
        v.q = gpu_load16(x + at);
    }
    if (gpu_thread() < GEMV_ONE_STEP / ARGS_GROUP && group < n_cols / ARGS_GROUP) {
        v.scales = of_x[group];
    }
    return v;
}
/* n columns are wanted, a multiple of ARGS_SEGMENT. */
GPU_FN void gemv_one_put(const struct gemv_one_x *x, int n, int8_t *q, struct args_act *scales)
{
    if (16 * gpu_thread() < n) {
        gpu_store16(q + 16 * gpu_thread(), x->q);
    }
    if (gpu_thread() < GEMV_ONE_STEP / ARGS_GROUP && gpu_thread() < n / ARGS_GROUP) {
        scales[gpu_thread()] = x->scales;
    }
}
/* Columns [from, from + n); `first` are the first GEMV_ONE_STEP of them. */
GPU_FN void gemv_one_stage(const int8_t *x, int n_cols, int from, int n,
                           const struct gemv_one_x *first, int8_t *q, struct args_act *scales)
{
    struct gemv_one_x more[GEMV_ONE_STEPS - 1];
    GPU_UNROLL
    for (int i = 1; i < GEMV_ONE_STEPS; i++) {
        if (GEMV_ONE_STEP * i < n) {
            more[i - 1] = gemv_one_ask(x, n_cols, from + GEMV_ONE_STEP * i);
        }
    }
    gemv_one_put(first, n, q, scales);
    GPU_UNROLL
    for (int i = 1; i < GEMV_ONE_STEPS; i++) {
        int at = GEMV_ONE_STEP * i;
        if (at < n) {
            gemv_one_put(&more[i - 1], n - at, q + at, scales + at / ARGS_GROUP);
        }
    }
}

/* The same of a row that is normalised here; all of it. */
GPU_FN void gemv_one_norm(const struct norm_args *norm, struct norm_held *held, int n, int8_t *q,
                          struct args_act *scales)
{
    for (int i = norm->n + 4 * gpu_thread(); i < n; i += 4 * GEMV_ONE_THREADS) {
        *(uint32_t *)(void *)(q + i) = 0;
        if (i % ARGS_GROUP == 0) {
            scales[i / ARGS_GROUP] = (struct args_act){0, {0, 0}};
        }
    }
    norm_group(norm, norm->x, 0, true, GEMV_ONE_NORM_STEPS, held, NULL, q, scales);
}

/* Adds the products of n groups with theirs of x. */
GPU_FN float gemv_one_piece(const struct group_chunk *piece, int type, int n, const int8_t *q,
                            const struct args_act *scales, float sum)
{
    GPU_UNROLL
    for (int i = 0; i < n; i++) {
        struct group g = group_of(piece, type, i);
        struct gpu_16 low = gpu_load16(q + ARGS_GROUP * i), high = gpu_load16(q + ARGS_GROUP * i + 16);
        int32_t dot[2] = {0, 0};
        GPU_UNROLL
        for (int k = 0; k < 4; k++) {
            dot[0] = gpu_dot4((int32_t)g.q[k], (int32_t)low.w[k], dot[0]);
            dot[1] = gpu_dot4((int32_t)g.q[4 + k], (int32_t)high.w[k], dot[1]);
        }
        sum = group_add(sum, &g, type, dot, scales[i]);
    }
    return sum;
}

/* total + the lane's sums of n segments, in order. */
GPU_FN float gemv_one_total(const float *sums, int n, float total)
{
    GPU_LOOP
    for (int first = 0; first < n; first += GEMV_ONE_ADD) {
        float v[GEMV_ONE_ADD];
        GPU_UNROLL
        for (int i = 0; i < GEMV_ONE_ADD; i++) {
            v[i] = sums[(first + i < n ? first + i : n - 1) * GPU_WAVE];
        }
        GPU_UNROLL
        for (int i = 0; i < GEMV_ONE_ADD; i++) {
            total = first + i < n ? total + v[i] : total;
        }
    }
    return total;
}

/* What is added to a row's sums. */
struct gemv_one_end {
    float bias, second_bias, add;
};
GPU_FN struct gemv_one_end gemv_one_load_end(const struct matmul_args *a, int part, bool is_glu,
                                             int64_t of_expert, int slot, int row)
{
    struct gemv_one_end e = {0, 0, 0};
    if (a->bias[part]) {
        e.bias = a->bias[part][of_expert];
    }
    if (is_glu && a->bias[1]) {
        e.second_bias = a->bias[1][of_expert];
    }
    if (a->add && part == 0) {
        e.add = a->add[slot * a->add_stride + row];
    }
    return e;
}

GPU_FN void gemv_one_run(const struct matmul_args a, int type)
{
    GPU_SHARED(int8_t, q, GEMV_ONE_COLS);
    GPU_SHARED(struct args_act, scales, GEMV_ONE_COLS / ARGS_GROUP);
    GPU_SHARED(float, sums, GEMV_ONE_UNITS * GPU_WAVE);
    int wave = gpu_uniform(gpu_thread() / GPU_WAVE), lane = gpu_lane();
    bool is_glu = a.glu != MATMUL_NO_GLU;
    int part = 0, panel = gpu_block_x(), slot = gpu_block_y();
    while (part + 1 < a.n_w && !is_glu && panel >= (a.w[part].n_rows + GEMV_ROWS - 1) / GEMV_ROWS) {
        panel -= (a.w[part].n_rows + GEMV_ROWS - 1) / GEMV_ROWS;
        part++;
    }
    int token = a.ids ? slot / a.n_used : slot;
    int expert = a.ids ? gpu_uniform(a.ids[token * a.ids_stride + slot % a.n_used]) : 0;
    int x_row = a.ids && !a.x_per_slot ? token : slot;
    const int8_t *x = (const int8_t *)a.x + x_row * a.x_bytes;
    int n_segments = (a.n_cols + ARGS_SEGMENT - 1) / ARGS_SEGMENT, n_pieces = 4;
    if (group_words(type) <= GEMV_ONE_PIECE) {
        n_pieces = 2;
    }
    struct gemv_one_round r = {.w = a.w[part],
                               .second = a.w[1].data + expert * a.w[1].each_bytes,
                               .row = panel * GEMV_ROWS + lane,
                               .n_chunks = (a.n_cols + ARGS_CHUNK - 1) / ARGS_CHUNK,
                               .first = 0,
                               .n = 0,
                               .n_matrices = is_glu ? 2 : 1};
    r.w.data += expert * r.w.each_bytes;
    int most = GEMV_ONE_UNITS / r.n_matrices, of_piece = ARGS_SEGMENT / n_pieces;
    float total[2] = {0, 0}; /* of the gate and the other, in the first wave */
    int row = r.row, n_rows = a.w[part].n_rows;
    struct gemv_one_end end = {0, 0, 0};
    if (wave == 0 && row < n_rows) { /* on their way before they are needed; y may be add */
        end = gemv_one_load_end(&a, part, is_glu, (int64_t)expert * n_rows + row, slot, row);
    }
    for (; r.first < n_segments; r.first += most) {
        r.n = n_segments - r.first < most ? n_segments - r.first : most;
        int n_units = r.n * r.n_matrices;
        struct gemv_one_x of_x;
        struct norm_held held;
        if (a.norm.x) {
            norm_ask(&a.norm, a.norm.x, 0, true, GEMV_ONE_NORM_STEPS, &held);
        } else {
            of_x = gemv_one_ask(x, a.n_cols, r.first * ARGS_SEGMENT);
        }
        gpu_keep_order();
        struct group_chunk next[GEMV_ONE_AHEAD];
        GPU_UNROLL
        for (int p = 0; p < GEMV_ONE_AHEAD; p++) {
            next[p] = gemv_one_load(&r, type, wave < n_units ? wave : 0, p, n_pieces);
        }
        if (a.norm.x) {
            gemv_one_norm(&a.norm, &held, r.n * ARGS_SEGMENT, q, scales);
        } else {
            gemv_one_stage(x, a.n_cols, r.first * ARGS_SEGMENT, r.n * ARGS_SEGMENT, &of_x, q,
                           scales);
        }
        gpu_barrier();
        for (int u = wave; u < n_units; u += GEMV_ONE_WAVES) {
            int at = (u >= r.n ? u - r.n : u) * ARGS_SEGMENT;
            float sum = 0;
            GPU_UNROLL
            for (int p = 0; p < n_pieces; p++) {
                struct group_chunk now = next[p % GEMV_ONE_AHEAD];
                int of_next = (p + GEMV_ONE_AHEAD) % n_pieces;
                int after = p + GEMV_ONE_AHEAD < n_pieces ? u : u + GEMV_ONE_WAVES;
                if (after < n_units) {
                    next[p % GEMV_ONE_AHEAD] = gemv_one_load(&r, type, after, of_next, n_pieces);
                }
                gpu_keep_order();
                sum = gemv_one_piece(&now, type, of_piece / ARGS_GROUP, q + at + p * of_piece,
                                     scales + (at + p * of_piece) / ARGS_GROUP, sum);
            }
            sums[u * GPU_WAVE + lane] = sum;
        }
        gpu_barrier();
        if (wave == 0) {
            total[0] = gemv_one_total(sums + lane, r.n, total[0]);
            total[1] = gemv_one_total(sums + r.n * GPU_WAVE + lane, n_units - r.n, total[1]);
        }
    }
    if (wave > 0) {
        return;
    }
    float y = a.bias[part] ? total[0] + end.bias : total[0];
    if (is_glu) {
        float up = a.bias[1] ? total[1] + end.second_bias : total[1];
        y = activate_gated(a.glu, y, up, a.alpha, a.limit);
        if (a.act) {
            act_store(a.act + slot * a.act_stride, n_rows, panel * GEMV_ROWS, y);
        }
    }
    if (a.y[part] && row < n_rows) {
        if (a.add && part == 0) {
            y += end.add;
        }
        a.y[part][slot * a.y_stride[part] + row] = y;
    }
}

GPU_KERNEL(gemv_one_q4_0, GEMV_ONE_THREADS)
{
    gemv_one_run(a, TYPE_Q4_0);
}
GPU_KERNEL(gemv_one_q8_0, GEMV_ONE_THREADS)
{
    gemv_one_run(a, TYPE_Q8_0);
}
GPU_KERNEL(gemv_one_q4_k, GEMV_ONE_THREADS)
{
    gemv_one_run(a, TYPE_Q4_K);
}
GPU_KERNEL(gemv_one_q6_k, GEMV_ONE_THREADS)
{
    gemv_one_run(a, TYPE_Q6_K);
}
