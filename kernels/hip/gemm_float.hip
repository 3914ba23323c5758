/* Products of float weights with many tokens. A block does 128 rows of the matrix and 64 tokens, a thread 8 rows and 4 tokens,
 * from 32 columns of both in shared memory, while the next 32 are on their way. Each output is one chain of fused
 * multiply-adds over a segment's columns, and the segments' sums are added in ascending order: gemv's bits. (Matrix units
 * would round x to 16 bits, and sum in an order of their own.)
 *
 * For 32 columns and an output: 32 fused multiply-adds; a thread reads 12 numbers for 32 of them. Of memory, a block reads
 * 128 rows of weights for 64 tokens: 64 operations a byte for F16. */
#include "kernels/hip/gemm.h"
#include "kernels/hip/group.h"

#define gemm_f16_args matmul_args
#define gemm_bf16_args matmul_args
#define gemm_f32_args matmul_args

enum {
    GEMM_FLOAT_STEP = 32, /* columns */
    GEMM_FLOAT_ROWS = 8,
    GEMM_FLOAT_TOKENS = 4,
    GEMM_FLOAT_W_PITCH = GEMM_ROWS + 4, /* of a column, in floats */
    GEMM_FLOAT_X_PITCH = GEMM_TOKENS + 4,
    GEMM_FLOAT_WORDS = 4, /* of 16 bytes that a thread loads of a step's weights, at most */
    GEMM_FLOAT_OF_WAVE = GEMM_TOKENS / (GEMM_THREADS / GPU_WAVE)
};

struct gemm_float_next {
    struct gpu_16 w[GEMM_FLOAT_WORDS];
    float x[GEMM_FLOAT_OF_WAVE];
};

/* Weight k of a word. */
GPU_FN float gemm_float_weight(int type, const struct gpu_16 *v, int k)
{
    uint16_t half = (uint16_t)(v->w[k / 2 % 4] >> k % 2 * 16);
    return type == TYPE_F32   ? gpu_bits_f32(v->w[k % 4])
           : type == TYPE_F16 ? gpu_f16_f32(half)
                              : gpu_bf16_f32(half);
}

/* Step s of the columns. A thread: half of the step's words of one row; a wave: a column a lane of eight tokens. row: in its
 * panel's place of the matrix, or -1. */
GPU_FN void gemm_float_load(const struct matmul_args *a, const struct args_weight *w, int type,
                            int row, const int32_t *x_rows, int s, struct gemm_float_next *next)
{
    int n_chunks = (a->n_cols + ARGS_CHUNK - 1) / ARGS_CHUNK, n_words = group_words(type);
    int of_thread = n_words / (ARGS_CHUNK / GEMM_FLOAT_STEP) / 2, lane = gpu_lane();
    int chunk = s / (ARGS_CHUNK / GEMM_FLOAT_STEP), of_chunk = s % (ARGS_CHUNK / GEMM_FLOAT_STEP);
    int wave = gpu_uniform(gpu_thread() / GPU_WAVE), column = s * GEMM_FLOAT_STEP + lane;
    if (row >= 0) {
        int64_t at = ((int64_t)(row / ARGS_PANEL) * n_chunks + chunk) * ARGS_PANEL;
        const uint8_t *words = w->data + (at * n_words + lane) * 16;
        GPU_UNROLL
        for (int i = 0; i < of_thread; i++) {
            int word = (2 * of_chunk + wave / 4) * of_thread + i;
            next->w[i] = gpu_load16(words + word * ARGS_PANEL * 16);
        }
    }
    GPU_UNROLL
    for (int i = 0; i < GEMM_FLOAT_OF_WAVE; i++) {
        int x_row = x_rows[wave * GEMM_FLOAT_OF_WAVE + i];
        const float *x = (const float *)(const void *)((const int8_t *)a->x + x_row * a->x_bytes);
        next->x[i] = x_row >= 0 && column < a->n_cols ? x[column] : 0.0f;
    }
}

GPU_FN void gemm_float_store(int type, const struct gemm_float_next *next, float *w, float *x)
{
    int of_thread = group_words(type) / (ARGS_CHUNK / GEMM_FLOAT_STEP) / 2;
    int per_word = ARGS_CHUNK / group_words(type), lane = gpu_lane();
    int wave = gpu_uniform(gpu_thread() / GPU_WAVE);
    GPU_UNROLL
    for (int i = 0; i < of_thread; i++) {
        GPU_UNROLL
        for (int k = 0; k < per_word; k++) {
            int column = (wave / 4 * of_thread + i) * per_word + k;
            w[column * GEMM_FLOAT_W_PITCH + wave % 4 * GPU_WAVE + lane] =
                gemm_float_weight(type, &next->w[i], k);
        }
    }
    GPU_UNROLL
    for (int i = 0; i < GEMM_FLOAT_OF_WAVE; i++) {
        x[lane * GEMM_FLOAT_X_PITCH + wave * GEMM_FLOAT_OF_WAVE + i] = next->x[i];
    }
}

/* w: the thread's first row; x: its first token. */
GPU_FN void gemm_float_step(const float *w, const float *x,
                            float sum[GEMM_FLOAT_TOKENS][GEMM_FLOAT_ROWS])
{
    for (int k = 0; k < GEMM_FLOAT_STEP; k++) {
        struct gpu_16 of_x = gpu_load16(x + k * GEMM_FLOAT_X_PITCH), of_w[2];
        of_w[0] = gpu_load16(w + k * GEMM_FLOAT_W_PITCH);
        of_w[1] = gpu_load16(w + k * GEMM_FLOAT_W_PITCH + 4);
        GPU_UNROLL
        for (int t = 0; t < GEMM_FLOAT_TOKENS; t++) {
            GPU_UNROLL
            for (int r = 0; r < GEMM_FLOAT_ROWS; r++) {
                sum[t][r] = gpu_fma(gpu_bits_f32(of_w[r / 4].w[r % 4]), gpu_bits_f32(of_x.w[t]),
                                    sum[t][r]);
            }
        }
    }
}

GPU_FN void gemm_float_run(const struct matmul_args a, int type)
{
    GPU_SHARED(float, w32, GEMM_FLOAT_STEP * GEMM_FLOAT_W_PITCH);
    GPU_SHARED(float, x32, GEMM_FLOAT_STEP * GEMM_FLOAT_X_PITCH);
    GPU_SHARED(int32_t, x_rows, GEMM_TOKENS);
    GPU_SHARED(int32_t, y_rows, GEMM_TOKENS);
    int part = 0, block = gpu_block_x(), thread = gpu_thread();
    while (part + 1 < a.n_w && block >= (a.w[part].n_rows + GEMM_ROWS - 1) / GEMM_ROWS) {
        block -= (a.w[part].n_rows + GEMM_ROWS - 1) / GEMM_ROWS;
        part++;
    }
    int expert = 0, first = 0, n = 0;
    if (!gemm_find(&a, gpu_block_y(), &expert, &first, &n)) {
        return;
    }
    if (thread < GEMM_TOKENS) {
        int slot = thread < n ? first + thread : -1;
        slot = thread < n && a.order ? a.order[a.n_expert + 1 + slot] : slot;
        y_rows[thread] = slot;
        x_rows[thread] = slot >= 0 && a.order && !a.x_per_slot ? slot / a.n_used : slot;
    }
    gpu_barrier();
    struct args_weight w = a.w[part];
    w.data += expert * w.each_bytes;
    int panel = block * (GEMM_ROWS / ARGS_PANEL) + gpu_uniform(thread / GPU_WAVE) % 4;
    int row = panel * ARGS_PANEL < w.n_rows ? panel * ARGS_PANEL : -1;
    /* Lanes side by side do rows side by side: what they read of x is the same. */
    int my_row = thread % (GEMM_ROWS / GEMM_FLOAT_ROWS) * GEMM_FLOAT_ROWS;
    int my_token = thread / (GEMM_ROWS / GEMM_FLOAT_ROWS) * GEMM_FLOAT_TOKENS;
    float total[GEMM_FLOAT_TOKENS][GEMM_FLOAT_ROWS] = {{0}};
    float sum[GEMM_FLOAT_TOKENS][GEMM_FLOAT_ROWS] = {{0}};
    struct gemm_float_next next = {{{{0}}}, {0}};
    int n_steps = (a.n_cols + GEMM_FLOAT_STEP - 1) / GEMM_FLOAT_STEP;
    gemm_float_load(&a, &w, type, row, x_rows, 0, &next);
    for (int s = 0; s < n_steps; s++) {
        gpu_barrier();
        gemm_float_store(type, &next, w32, x32);
        gpu_barrier();
        if (s + 1 < n_steps) {
            gemm_float_load(&a, &w, type, row, x_rows, s + 1, &next);
        }
        gemm_float_step(w32 + my_row, x32 + my_token, sum);
        if ((s + 1) % (ARGS_SEGMENT / GEMM_FLOAT_STEP) == 0 || s + 1 == n_steps) {
            GPU_UNROLL
            for (int i = 0; i < GEMM_FLOAT_TOKENS * GEMM_FLOAT_ROWS; i++) {
                total[i / GEMM_FLOAT_ROWS][i % GEMM_FLOAT_ROWS] +=
                    sum[i / GEMM_FLOAT_ROWS][i % GEMM_FLOAT_ROWS];
                sum[i / GEMM_FLOAT_ROWS][i % GEMM_FLOAT_ROWS] = 0;
            }
        }
    }
    const float *bias = a.bias[part];
    GPU_UNROLL
    for (int t = 0; t < GEMM_FLOAT_TOKENS; t++) {
        int to = y_rows[my_token + t];
        GPU_UNROLL
        for (int r = 0; r < GEMM_FLOAT_ROWS; r++) {
            int of_row = block * GEMM_ROWS + my_row + r;
            if (to >= 0 && of_row < w.n_rows) {
                float y = total[t][r];
                y = bias ? y + bias[(int64_t)expert * w.n_rows + of_row] : y;
                y = a.add && part == 0 ? y + a.add[to * a.add_stride + of_row] : y;
                a.y[part][to * a.y_stride[part] + of_row] = y;
            }
        }
    }
}

GPU_KERNEL(gemm_f16, GEMM_THREADS)
{
    gemm_float_run(a, TYPE_F16);
}
GPU_KERNEL(gemm_bf16, GEMM_THREADS)
{
    gemm_float_run(a, TYPE_BF16);
}
GPU_KERNEL(gemm_f32, GEMM_THREADS)
{
    gemm_float_run(a, TYPE_F32);
}
