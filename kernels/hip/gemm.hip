/* Products of packed weights with many tokens, on matrix units. A block does 128 rows of the matrix and 64 tokens, a wave 32 of
 * each. Codes are unpacked to bytes in shared memory once for the 64 tokens, while the next chunk is on its way from
 * memory. Each output is summed in gemv's order with gemv's operations, so its bits are gemv's.
 *
 * For a chunk of 128 columns and an output: 128 integer products on the matrix unit, and 4 conversions, products and
 * fused multiply-adds (twice that where halves of groups have scales of their own, one more with minima). */
#include "kernels/hip/gemm.h"
#include "kernels/hip/group.h"

#define gemm_args matmul_args
#define gemm_q4_0_args matmul_args
#define gemm_q8_0_args matmul_args
#define gemm_q4_k_args matmul_args
#define gemm_q6_k_args matmul_args

enum {
    GEMM_WAVE_ROWS = 32,
    GEMM_WAVE_TOKENS = 32,
    GEMM_PITCH = ARGS_CHUNK + 16, /* of a row of bytes: eight rows meet all banks once */
    GEMM_GROUPS = ARGS_CHUNK / ARGS_GROUP
};

/* What a thread holds of the next chunk. */
struct gemm_next {
    struct group_chunk w;  /* half a chunk of a row */
    struct gpu_16 x[2];
    struct args_act scales; /* of one token and group */
};

struct gemm_shared {
    int8_t *w, *x;
    float *scale, *min;      /* [group][half][row] */
    struct args_act *scales; /* [group][token] */
    int32_t *rows;           /* of each token: its row of x, or -1 */
};

struct gemm_place {
    int panel;      /* of the wave's loads; beyond the matrix: -1 */
    int half;       /* of the chunk, likewise */
    int first_row;  /* of the wave's outputs, in the block */
    int first_token;
};

GPU_FN void gemm_load(const struct matmul_args *a, const struct args_weight *w, int type,
                      const struct gemm_place *place, const struct gemm_shared *s, int chunk,
                      struct gemm_next *next)
{
    int thread = gpu_thread(), n_chunks = (a->n_cols + ARGS_CHUNK - 1) / ARGS_CHUNK;
    int n_groups = a->n_cols / ARGS_GROUP;
    if (place->panel >= 0) {
        next->w = group_load(w, type, n_chunks, place->panel * ARGS_PANEL + gpu_lane(), chunk,
                             place->half);
    }
    GPU_UNROLL
    for (int i = 0; i < 2; i++) {
        int token = thread / 8 + 32 * i, piece = thread % 8;
        next->x[i] = (struct gpu_16){{0, 0, 0, 0}};
        if (s->rows[token] >= 0 && chunk * GEMM_GROUPS + piece / 2 < n_groups) {
            next->x[i] = gpu_load16((const int8_t *)a->x + s->rows[token] * a->x_bytes +
                                    chunk * ARGS_CHUNK + piece * 16);
        }
    }
    int token = thread / GEMM_GROUPS, group = chunk * GEMM_GROUPS + thread % GEMM_GROUPS;
    next->scales = (struct args_act){0, {0, 0}};
    if (s->rows[token] >= 0 && group < n_groups) {
        const int8_t *row = (const int8_t *)a->x + s->rows[token] * a->x_bytes;
        next->scales = ((const struct args_act *)(const void *)(row + a->n_cols))[group];
    }
}

/* Both groups of the thread's half chunk, offset taken off, to bytes. */
GPU_FN void gemm_unpack(const struct gemm_next *next, int type, bool has_min, int half, int row,
                        const struct gemm_shared *s)
{
    uint32_t offset = (uint32_t)group_offset(type);
    GPU_UNROLL
    for (int i = 0; i < 2; i++) {
        struct group g = group_of(&next->w, type, i);
        int at = 2 * half + i;
        GPU_UNROLL
        for (int h = 0; h < 2; h++) {
            struct gpu_16 v;
            GPU_UNROLL
            for (int k = 0; k < 4; k++) {
                v.w[k] = g.q[4 * h + k];
                if (offset > 0) { /* codes are below 64: no byte carries */
                    v.w[k] = (v.w[k] + (128 - offset) * 0x01010101u) ^ 0x80808080u;
                }
            }
            gpu_store16(s->w + row * GEMM_PITCH + at * ARGS_GROUP + 16 * h, v);
            s->scale[(at * 2 + h) * GEMM_ROWS + row] = g.scale[h];
            if (has_min) {
                s->min[(at * 2 + h) * GEMM_ROWS + row] = g.min[h];
            }
        }
    }
}

GPU_FN void gemm_store(const struct matmul_args *a, int type, const struct gemm_place *place,
                       const struct gemm_shared *s, const struct gemm_next *next)
{
    int thread = gpu_thread(), row = thread / GPU_WAVE % 4 * ARGS_PANEL + gpu_lane();
    if (type >= 0) {
        gemm_unpack(next, type, group_has_min(type), place->half, row, s);
    } else {
        switch (a->type) {
#define FORM(name, low, high, scale, super)                                                        \
    case TYPE_##name:                                                                              \
        gemm_unpack(next, TYPE_##name, true, place->half, row, s);                                 \
        break;
            FORMS(FORM)
#undef FORM
        default:
            break;
        }
    }
    GPU_UNROLL
    for (int i = 0; i < 2; i++) {
        int token = thread / 8 + 32 * i, piece = thread % 8;
        gpu_store16(s->x + token * GEMM_PITCH + piece * 16, next->x[i]);
    }
    s->scales[thread % GEMM_GROUPS * GEMM_TOKENS + thread / GEMM_GROUPS] = next->scales;
}

/* A chunk's products for the wave's 32 x 32 outputs. */
GPU_FN void gemm_chunk(bool has_halves, bool has_min, const struct gemm_place *place,
                       const struct gemm_shared *s, struct gpu_acc_f32 sum[2][2])
{
    const int32_t from = GROUP_START;
    const struct gpu_acc_i32 start = {{from, from, from, from, from, from, from, from}};
    GPU_LOOP
    for (int g = 0; g < GEMM_GROUPS; g++) {
        GPU_UNROLL
        for (int i = 0; i < 2; i++) {
            int token = place->first_token + 16 * i;
            gpu_keep_order();
            const int8_t *x = s->x + token * GEMM_PITCH + g * ARGS_GROUP;
            struct args_act scales[8];
            GPU_UNROLL
            for (int e = 0; e < 8; e++) {
                scales[e] = s->scales[g * GEMM_TOKENS + token + gpu_acc_row(e)];
            }
            GPU_UNROLL
            for (int j = 0; j < 2; j++) {
                int first = place->first_row + 16 * j;
                const int8_t *w = s->w + first * GEMM_PITCH + g * ARGS_GROUP;
                GPU_UNROLL
                for (int h = has_halves ? 0 : 1; h < 2; h++) {
                    struct gpu_acc_i32 dot = start;
                    if (has_halves) {
                        gpu_mma_i8_rows(x + 16 * h, w + 16 * h, GEMM_PITCH, &dot);
                    } else {
                        gpu_mma_i8_rows_32(x, w, GEMM_PITCH, &start, &dot);
                    }
                    GPU_UNROLL
                    for (int e = 0; e < 8; e++) {
                        int row = (g * 2 + h) * GEMM_ROWS + first + gpu_acc_col(e);
                        float scale = s->scale[row], min = has_min ? s->min[row] : 0.0f;
                        struct args_act of = scales[e];
                        int of_x = has_halves ? of.sum[h] : of.sum[0] + of.sum[1];
                        sum[i][j].x[e] = group_step(sum[i][j].x[e], group_dot(dot.x[e]), scale, has_min,
                                                    min, of.scale, of_x);
                    }
                }
            }
        }
    }
}

GPU_FN void gemm_run(const struct matmul_args a, int type)
{
    GPU_SHARED(int8_t, w8, GEMM_ROWS * GEMM_PITCH);
    GPU_SHARED(int8_t, x8, GEMM_TOKENS * GEMM_PITCH);
    GPU_SHARED(float, w_scale, GEMM_GROUPS * 2 * GEMM_ROWS);
    GPU_SHARED(float, w_min, GEMM_GROUPS * 2 * GEMM_ROWS);
    GPU_SHARED(struct args_act, x_scales, GEMM_GROUPS * GEMM_TOKENS);
    GPU_SHARED(int32_t, x_rows, GEMM_TOKENS);
    GPU_SHARED(int32_t, y_rows, GEMM_TOKENS);
    const struct gemm_shared s = {w8, x8, w_scale, w_min, x_scales, x_rows};
    int part = 0, block = gpu_block_x();
    while (part + 1 < a.n_w && block >= (a.w[part].n_rows + GEMM_ROWS - 1) / GEMM_ROWS) {
        block -= (a.w[part].n_rows + GEMM_ROWS - 1) / GEMM_ROWS;
        part++;
    }
    int expert = 0, first = 0, n = 0;
    if (!gemm_find(&a, gpu_block_y(), &expert, &first, &n)) {
        return;
    }
    if (gpu_thread() < GEMM_TOKENS) {
        int t = gpu_thread(), slot = t < n ? first + t : -1;
        slot = t < n && a.order ? a.order[a.n_expert + 1 + slot] : slot;
        y_rows[t] = slot;
        x_rows[t] = slot >= 0 && a.order && !a.x_per_slot ? slot / a.n_used : slot;
    }
    gpu_barrier();
    struct args_weight w = a.w[part];
    w.data += expert * w.each_bytes;
    int wave = gpu_uniform(gpu_thread() / GPU_WAVE), actual = type >= 0 ? type : a.type;
    int panel = block * (GEMM_ROWS / ARGS_PANEL) + wave % 4;
    const struct gemm_place place = {
        .panel = panel * ARGS_PANEL < w.n_rows ? panel : -1, .half = wave / 4,
        .first_row = wave % 4 * GEMM_WAVE_ROWS, .first_token = wave / 4 * GEMM_WAVE_TOKENS};
    struct gemm_next next = {{{{{0}}}, {0, 0, 0, 0}, 0}, {{{0}}}, {0, {0, 0}}};
    struct gpu_acc_f32 total[2][2] = {{{{0}}}}, sum[2][2] = {{{{0}}}};
    int n_chunks = (a.n_cols + ARGS_CHUNK - 1) / ARGS_CHUNK;
    gemm_load(&a, &w, actual, &place, &s, 0, &next);
    for (int c = 0; c < n_chunks; c++) {
        gpu_barrier();
        gemm_store(&a, type, &place, &s, &next);
        gpu_barrier();
        if (c + 1 < n_chunks) {
            gemm_load(&a, &w, actual, &place, &s, c + 1, &next);
        }
        if (type >= 0) {
            gemm_chunk(group_has_halves(type), group_has_min(type), &place, &s, sum);
        } else if (group_has_halves(actual)) { /* a minimum of 0 adds nothing */
            gemm_chunk(true, true, &place, &s, sum);
        } else {
            gemm_chunk(false, true, &place, &s, sum);
        }
        if (c % 2 == 1 || c + 1 == n_chunks) { /* a segment's end */
            GPU_UNROLL
            for (int i = 0; i < 4; i++) {
                GPU_UNROLL
                for (int e = 0; e < 8; e++) {
                    total[i / 2][i % 2].x[e] += sum[i / 2][i % 2].x[e];
                    sum[i / 2][i % 2].x[e] = 0;
                }
            }
        }
    }
    GPU_UNROLL
    for (int j = 0; j < 2; j++) {
        const float *bias = a.bias[part];
        GPU_UNROLL
        for (int i = 0; i < 2; i++) {
            /* All on their way before the first is needed; y may be add. */
            float of_row[8], of_place[8];
            int to[8];
            GPU_UNROLL
            for (int e = 0; e < 8; e++) {
                int row = block * GEMM_ROWS + place.first_row + 16 * j + gpu_acc_col(e);
                to[e] = row < w.n_rows ? y_rows[place.first_token + 16 * i + gpu_acc_row(e)] : -1;
                of_row[e] = bias && row < w.n_rows ? bias[(int64_t)expert * w.n_rows + row] : 0;
                of_place[e] = a.add && part == 0 && to[e] >= 0 ? a.add[to[e] * a.add_stride + row] : 0;
            }
            GPU_UNROLL
            for (int e = 0; e < 8; e++) {
                int row = block * GEMM_ROWS + place.first_row + 16 * j + gpu_acc_col(e);
                float y = bias ? total[i][j].x[e] + of_row[e] : total[i][j].x[e];
                y = a.add && part == 0 ? y + of_place[e] : y;
                if (to[e] >= 0) {
                    a.y[part][to[e] * a.y_stride[part] + row] = y;
                }
            }
        }
    }
}

GPU_KERNEL(gemm_q4_0, GEMM_THREADS)
{
    gemm_run(a, TYPE_Q4_0);
}
GPU_KERNEL(gemm_q8_0, GEMM_THREADS)
{
    gemm_run(a, TYPE_Q8_0);
}
GPU_KERNEL(gemm_q4_k, GEMM_THREADS)
{
    gemm_run(a, TYPE_Q4_K);
}
GPU_KERNEL(gemm_q6_k, GEMM_THREADS)
{
    gemm_run(a, TYPE_Q6_K);
}
/* Every other quantized type. */
GPU_KERNEL(gemm, GEMM_THREADS)
{
    gemm_run(a, -1);
}
