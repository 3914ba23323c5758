/* gemv on the emulator: packed weights against the decoded file's form in double precision, and one token's result the same
 * bits with others beside it. */
#include "kernels/hip/pack.h"
#include "kernels/quant.h"
#include "tests/kernels/blocks.h"
#include "tests/kernels/hip/device.h"

extern const struct gpu_host_kernel quantize_kernel, gemv_q4_0_kernel, gemv_q8_0_kernel,
    gemv_q4_k_kernel, gemv_q6_k_kernel;

static void test(enum type type, const struct gpu_host_kernel *kernel, int n_rows, int n_cols,
                 int n_tokens)
{
    uint64_t seed = (uint64_t)(n_rows * 1000 + n_cols + n_tokens);
    size_t row_bytes = type_row_bytes(type, (size_t)n_cols), n_y = (size_t)(n_tokens * n_rows);
    uint8_t *file = malloc(row_bytes * (size_t)n_rows);
    blocks_fill(type, file, (int64_t)n_rows * n_cols, &seed);
    struct pack_layout l;
    CHECK(pack_layout(type, n_rows, n_cols, &l) == 0);
    uint8_t *packed = calloc(1, l.n_bytes);
    int cut = n_rows / 3; /* in two pieces, as an upload does */
    pack_rows(type, &l, file, 0, cut, n_cols, packed);
    pack_rows(type, &l, file + (size_t)cut * row_bytes, cut, n_rows - cut, n_cols, packed);

    float *x = device_random((int64_t)n_tokens * n_cols, 3, &seed);
    float *bias = device_random(n_rows, 1, &seed), *add = device_random((int64_t)n_y, 1, &seed);
    void *dx = device_copy(x, (size_t)(n_tokens * n_cols) * 4), *dw = device_copy(packed, l.n_bytes);
    void *db = device_copy(bias, (size_t)n_rows * 4), *dy = device_copy(add, n_y * 4);
    int64_t act_bytes = args_act_bytes(n_cols);
    void *dact = emulator_alloc((size_t)(n_tokens * act_bytes), 0);
    struct quantize_args q = {.x = dx, .act = dact, .x_stride = n_cols, .act_stride = act_bytes,
                              .n = n_cols};
    DEVICE_RUN(quantize, (n_cols + QUANTIZE_THREADS - 1) / QUANTIZE_THREADS, n_tokens, 1, &q);
    struct gemv_args a = {.low = (uint8_t *)dw + l.low, .high = (uint8_t *)dw + l.high,
                          .scale = (uint8_t *)dw + l.scale, .super = (uint8_t *)dw + l.super,
                          .act = dact, .bias = db, .add = dy, .y = dy, .act_stride = act_bytes,
                          .y_stride = n_rows, .n_rows = n_rows, .n_cols = n_cols,
                          .n_tokens = n_tokens};
    int blocks = (n_rows + GEMV_ROWS - 1) / GEMV_ROWS;
    device_run(kernel, blocks, (n_tokens + GEMV_TOKENS - 1) / GEMV_TOKENS, 1, &a, sizeof a);

    float *y = malloc(n_y * 4), *w = malloc((size_t)n_cols * 4), *alone = malloc((size_t)n_rows * 4);
    double *exact = calloc(n_y, sizeof *exact);
    int8_t *act = aligned_alloc(16, (size_t)act_bytes);
    emulator_download(y, dy, n_y * 4);
    for (int t = 0; t < n_tokens; t++) {
        emulator_download(act, (int8_t *)dact + t * act_bytes, (size_t)(n_cols + n_cols / 32 * 8));
        const float *scales = (const float *)(const void *)(act + n_cols);
        for (int r = 0; r < n_rows; r++) {
            double *e = &exact[t * n_rows + r];
            quant_decoder(type)(file + (size_t)r * row_bytes, w, n_cols);
            *e = (double)bias[r] + (double)add[t * n_rows + r];
            for (int i = 0; i < n_cols; i++) {
                *e += (double)w[i] * (double)scales[i / 32 * 2] * act[i];
            }
        }
        device_check(type_info((uint32_t)type)->name, y + t * n_rows, exact + t * n_rows, n_rows, 3e-6);
    }
    /* The last token alone. */
    void *dalone = device_copy(add + (n_tokens - 1) * n_rows, (size_t)n_rows * 4);
    a.act = (int8_t *)dact + (n_tokens - 1) * act_bytes;
    a.n_tokens = 1;
    a.add = a.y = dalone;
    device_run(kernel, blocks, 1, 1, &a, sizeof a);
    emulator_download(alone, dalone, (size_t)n_rows * 4);
    CHECK(memcmp(alone, y + (n_tokens - 1) * n_rows, (size_t)n_rows * 4) == 0);

    void *device[] = {dx, dw, db, dy, dact, dalone};
    for (size_t i = 0; i < COUNT_OF(device); i++) {
        emulator_free(device[i]);
    }
    void *host[] = {file, packed, x, bias, add, y, w, alone, exact, act};
    for (size_t i = 0; i < COUNT_OF(host); i++) {
        free(host[i]);
    }
}

int main(void)
{
    static const struct {
        enum type type;
        const struct gpu_host_kernel *kernel;
    } forms[] = {{TYPE_Q4_0, &gemv_q4_0_kernel},
                 {TYPE_Q8_0, &gemv_q8_0_kernel},
                 {TYPE_Q4_K, &gemv_q4_k_kernel},
                 {TYPE_Q6_K, &gemv_q6_k_kernel}};
    struct pack_layout l;
    CHECK(pack_layout(TYPE_IQ1_S, 1, 256, &l) != 0);
    for (size_t i = 0; i < COUNT_OF(forms); i++) {
        int block = (int)type_info((uint32_t)forms[i].type)->block_elems;
        test(forms[i].type, forms[i].kernel, 1, block, 1);
        test(forms[i].type, forms[i].kernel, 31, 5 * block, 3);
        test(forms[i].type, forms[i].kernel, 33, 33 * 32 / block * block + block, 5);
        test(forms[i].type, forms[i].kernel, 6, 2048 + block, 8);
    }
    return 0;
}
