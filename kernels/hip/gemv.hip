/* Products of packed weights with a few tokens (gemv_one does one). A lane does a row of the matrix, so that sums need no
 * exchange; x is the same for all lanes. Wave w of a block takes segments w, w + 8, ... of 256 columns, and the segments'
 * sums are added in ascending order: one order for every number of tokens, and that of gemm.
 *
 * For a group of 32 weights of Q4_0: 18 bytes, 13 operations to unpack it, and for each token 8 four-fold products, a
 * conversion, a product and a fused multiply-add; x stays in the caches. One token is bound by memory up to
 * 2 operations a byte, 8 tokens are below 6. */
#include "kernels/hip/act.h"
#include "kernels/hip/activate.h"
#include "kernels/hip/group.h"

#define gemv_args matmul_args
#define gemv_q4_0_args matmul_args
#define gemv_q8_0_args matmul_args
#define gemv_q4_k_args matmul_args
#define gemv_q6_k_args matmul_args
#define gemv_f16_args matmul_args
#define gemv_bf16_args matmul_args
#define gemv_f32_args matmul_args

/* Types without a kernel of their own. */
#define GEMV_OTHERS(CASE)                                                                          \
    CASE(Q4_1) CASE(Q5_0) CASE(Q5_1) CASE(Q2_K) CASE(Q3_K) CASE(Q5_K) CASE(Q8_K) CASE(IQ1_S)       \
    CASE(IQ1_M) CASE(IQ2_XXS) CASE(IQ2_XS) CASE(IQ2_S) CASE(IQ3_XXS) CASE(IQ3_S) CASE(IQ4_NL)      \
    CASE(IQ4_XS) CASE(MXFP4) CASE(NVFP4) CASE(TQ1_0) CASE(TQ2_0) CASE(Q1_0) CASE(Q2_0)

enum {
    GEMV_WAVES = GEMV_THREADS / GPU_WAVE,
    GEMV_SLOTS = 2 * GEMV_WAVES * GEMV_TOKENS /* of a segment and token each, in shared memory */
};

/* Adds the products of chunk c with n rows of x, at most max (a constant). Branches would keep the loads of one token from those
 * of the next, so without is_checked what is missing up to max is done with the last row over again. */
GPU_FN void gemv_chunk(const struct matmul_args *a, const struct group_chunk *chunk, int type, int c,
                       const int8_t *x, int n, int max, bool is_checked, float *sum)
{
    int n_groups = a->n_cols / ARGS_GROUP;
    GPU_UNROLL
    for (int i = 0; i < 4; i++) {
        bool is_there = 4 * c + i < n_groups;
        int at = is_there ? 4 * c + i : n_groups - 1;
        struct group g = group_of(chunk, type, i);
        const int8_t *q = x + ARGS_GROUP * at;
        GPU_UNROLL
        for (int t = 0; t < GEMV_TOKENS; t++) {
            if (t < max && (!is_checked || t < n) && is_there) {
                struct args_act scales = *(const struct args_act *)(const void *)(
                    q + a->n_cols - (int)(ARGS_GROUP - sizeof scales) * at);
                struct gpu_16 first = gpu_load16(q), second = gpu_load16(q + 16);
                int32_t dot[2] = {0, 0};
                GPU_UNROLL
                for (int k = 0; k < 4; k++) {
                    dot[0] = gpu_dot4((int32_t)g.q[k], (int32_t)first.w[k], dot[0]);
                    dot[1] = gpu_dot4((int32_t)g.q[4 + k], (int32_t)second.w[k], dot[1]);
                }
                sum[t] = group_add(sum[t], &g, type, dot, scales);
                q += is_checked || t + 1 < n ? a->x_bytes : 0;
            }
        }
    }
}

GPU_FN void gemv_segment(const struct matmul_args *a, const struct args_weight *w, int type,
                         int row, int segment, const int8_t *x, int n, int max, bool is_checked,
                         float *sum)
{
    int n_chunks = (a->n_cols + ARGS_CHUNK - 1) / ARGS_CHUNK;
    for (int c = 2 * segment; c < 2 * segment + 2 && c < n_chunks; c++) {
        struct group_chunk chunk = group_load(w, type, n_chunks, row, c, GROUP_WHOLE);
        gemv_chunk(a, &chunk, type, c, x, n, max, is_checked, sum);
    }
}

/* The same with weights and x in floats. */
GPU_FN void gemv_segment_float(const struct matmul_args *a, const struct args_weight *w, int type,
                               int row, int segment, const int8_t *x, int n, float *sum)
{
    int n_chunks = (a->n_cols + ARGS_CHUNK - 1) / ARGS_CHUNK, n_words = group_words(type);
    int per_word = ARGS_CHUNK / n_words;
    for (int c = 2 * segment; c < 2 * segment + 2 && c < n_chunks; c++) {
        int64_t at = ((int64_t)(row / ARGS_PANEL) * n_chunks + c) * ARGS_PANEL;
        const uint8_t *words = w->data + (at * n_words + row % ARGS_PANEL) * 16;
        for (int i = 0; i < n_words; i++) {
            int column = c * ARGS_CHUNK + i * per_word;
            if (column >= a->n_cols) {
                break;
            }
            struct gpu_16 v = gpu_load16(words + i * ARGS_PANEL * 16);
            const int8_t *of_token = x;
            GPU_UNROLL
            for (int t = 0; t < GEMV_TOKENS; t++) {
                if (t < n) {
                    const float *u = (const float *)(const void *)of_token + column;
                    GPU_UNROLL
                    for (int k = 0; k < per_word; k++) {
                        uint16_t half = (uint16_t)(v.w[k / 2 % 4] >> k % 2 * 16);
                        float weight = type == TYPE_F32   ? gpu_bits_f32(v.w[k % 4])
                                       : type == TYPE_F16 ? gpu_f16_f32(half)
                                                          : gpu_bf16_f32(half);
                        if (column + k < a->n_cols) {
                            sum[t] = gpu_fma(weight, u[k], sum[t]);
                        }
                    }
                    of_token += a->x_bytes;
                }
            }
        }
    }
}

/* The lane's sums over segments from + wave, then every GEMV_WAVES further on, below end: that of segment s and token t to
 * sums[((s - from) * n + t) * GPU_WAVE]. type: a constant, or -1: whichever is not a constant elsewhere. */
GPU_FN void gemv_segments(const struct matmul_args *a, const struct args_weight *w, int type, int row,
                          int from, int end, const int8_t *x, int n, float *sums)
{
    bool is_float = type == TYPE_F32 || type == TYPE_F16 || type == TYPE_BF16;
    int wave = gpu_uniform(gpu_thread() / GPU_WAVE);
    for (int s = from + wave; s < end; s += GEMV_WAVES) {
        float sum[GEMV_TOKENS] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (is_float) {
            gemv_segment_float(a, w, type, row, s, x, n, sum);
        } else if (type >= 0 && n <= GEMV_TOKENS / 2) {
            gemv_segment(a, w, type, row, s, x, n, GEMV_TOKENS / 2, false, sum);
        } else if (type >= 0) {
            gemv_segment(a, w, type, row, s, x, n, GEMV_TOKENS, false, sum);
        } else {
            switch (a->type) {
#define GEMV_CASE(name)                                                                            \
    case TYPE_##name:                                                                              \
        gemv_segment(a, w, TYPE_##name, row, s, x, n, GEMV_TOKENS, true, sum);                     \
        break;
                GEMV_OTHERS(GEMV_CASE)
#undef GEMV_CASE
            default:
                break;
            }
        }
        GPU_UNROLL
        for (int t = 0; t < GEMV_TOKENS; t++) {
            if (t < n) {
                sums[((s - from) * n + t) * GPU_WAVE] = sum[t];
            }
        }
    }
}

GPU_FN void gemv_run(const struct matmul_args a, int type)
{
    GPU_SHARED(float, sums, GEMV_SLOTS * GPU_WAVE);
    int wave = gpu_uniform(gpu_thread() / GPU_WAVE), lane = gpu_lane();
    int part = 0, panel = gpu_block_x();
    while (part + 1 < a.n_w && a.glu == MATMUL_NO_GLU &&
           panel >= (a.w[part].n_rows + GEMV_ROWS - 1) / GEMV_ROWS) {
        panel -= (a.w[part].n_rows + GEMV_ROWS - 1) / GEMV_ROWS;
        part++;
    }
    int first = a.ids ? gpu_block_y() : gpu_block_y() * GEMV_TOKENS;
    int n = a.ids ? 1 : a.n_tokens - first < GEMV_TOKENS ? a.n_tokens - first : GEMV_TOKENS;
    int token = a.ids ? first / a.n_used : first;
    int expert = a.ids ? gpu_uniform(a.ids[token * a.ids_stride + first % a.n_used]) : 0;
    int x_row = a.ids && !a.x_per_slot ? token : first;
    const int8_t *x = (const int8_t *)a.x + x_row * a.x_bytes;

    int row = panel * GEMV_ROWS + lane, n_rows = a.w[part].n_rows;
    int n_segments = (a.n_cols + ARGS_SEGMENT - 1) / ARGS_SEGMENT;
    int per_round = GEMV_SLOTS / n / GEMV_WAVES * GEMV_WAVES;
    float total[2] = {0, 0}; /* of token `wave`, of the gate and the other */
    for (int m = 0; m < (a.glu == MATMUL_NO_GLU ? 1 : 2); m++) {
        struct args_weight w = a.w[part + m];
        w.data += expert * w.each_bytes;
        float of_token = 0;
        for (int from = 0; from < n_segments; from += per_round) {
            int end = from + per_round < n_segments ? from + per_round : n_segments;
            gemv_segments(&a, &w, type, row, from, end, x, n, sums + lane);
            gpu_barrier();
            for (int s = 0; s < end - from && wave < n; s++) {
                of_token += sums[(s * n + wave) * GPU_WAVE + lane];
            }
            gpu_barrier();
        }
        const float *bias = a.bias[part + m];
        if (bias && row < n_rows) {
            of_token += bias[(int64_t)expert * n_rows + row];
        }
        total[m] = of_token;
    }
    if (wave >= n) {
        return;
    }
    float y = total[0];
    if (a.glu != MATMUL_NO_GLU) {
        y = activate_gated(a.glu, total[0], total[1], a.alpha, a.limit);
        if (a.act) {
            act_store(a.act + (first + wave) * a.act_stride, n_rows, panel * GEMV_ROWS, y);
        }
    }
    if (a.y[part] && row < n_rows) {
        if (a.add && part == 0) {
            y += a.add[(first + wave) * a.add_stride + row];
        }
        a.y[part][(first + wave) * a.y_stride[part] + row] = y;
    }
}

GPU_KERNEL(gemv_q4_0, GEMV_THREADS)
{
    gemv_run(a, TYPE_Q4_0);
}
GPU_KERNEL(gemv_q8_0, GEMV_THREADS)
{
    gemv_run(a, TYPE_Q8_0);
}
GPU_KERNEL(gemv_q4_k, GEMV_THREADS)
{
    gemv_run(a, TYPE_Q4_K);
}
GPU_KERNEL(gemv_q6_k, GEMV_THREADS)
{
    gemv_run(a, TYPE_Q6_K);
}
GPU_KERNEL(gemv_f16, GEMV_THREADS)
{
    gemv_run(a, TYPE_F16);
}
GPU_KERNEL(gemv_bf16, GEMV_THREADS)
{
    gemv_run(a, TYPE_BF16);
}
GPU_KERNEL(gemv_f32, GEMV_THREADS)
{
    gemv_run(a, TYPE_F32);
}
/* Every other type. */
GPU_KERNEL(gemv, GEMV_THREADS)
{
    gemv_run(a, -1);
}
