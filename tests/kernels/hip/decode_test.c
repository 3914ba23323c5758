/* decode on the emulator: the same values as the CPU's reference, which is tested against published vectors. */
#include "kernels/quant.h"
#include "tests/kernels/blocks.h"
#include "tests/kernels/hip/device.h"

extern const struct gpu_host_kernel decode_kernel;

static bool has_codebook(enum type t)
{
    return t == TYPE_IQ1_S || t == TYPE_IQ1_M || t == TYPE_IQ2_XXS || t == TYPE_IQ2_XS ||
           t == TYPE_IQ2_S || t == TYPE_IQ3_XXS || t == TYPE_IQ3_S;
}

static void test(enum type type)
{
    enum { ROWS = 5 };
    static const int32_t ids[3] = {4, 0, 3};
    int elems = (int)type_info((uint32_t)type)->block_elems, n_cols = elems == 1 ? 257 : 3 * elems;
    size_t row_bytes = type_row_bytes(type, (size_t)n_cols);
    uint8_t *file = malloc(row_bytes * ROWS);
    uint64_t seed = (uint64_t)type;
    blocks_fill(type, file, ROWS * n_cols, &seed);
    void *dw = device_copy(file, row_bytes * ROWS), *dids = device_copy(ids, sizeof ids);
    void *dy = emulator_alloc(3 * (size_t)n_cols * 4, 0);
    struct decode_args a = {.data = dw, .ids = dids, .y = dy, .row_bytes = (int64_t)row_bytes,
                            .y_stride = n_cols, .type = (int32_t)type, .n_cols = n_cols,
                            .scale = 2};
    DEVICE_RUN(decode, (n_cols + DECODE_THREADS - 1) / DECODE_THREADS, 3, 1, &a);
    float *y = malloc(3 * (size_t)n_cols * 4), *w = malloc((size_t)n_cols * 4);
    emulator_download(y, dy, 3 * (size_t)n_cols * 4);
    for (int r = 0; r < 3; r++) {
        quant_decoder(type)(file + (size_t)ids[r] * row_bytes, w, n_cols);
        for (int i = 0; i < n_cols; i++) {
            float got = y[r * n_cols + i];
            if (has_codebook(type) ? !isnan(got) : got != 2 * w[i]) {
                TEST_FAIL("%s: weight %d is %g, expected %g", type_info((uint32_t)type)->name, i,
                          (double)got, 2 * (double)w[i]);
            }
        }
    }
    emulator_free(dw);
    emulator_free(dids);
    emulator_free(dy);
    free(file);
    free(y);
    free(w);
}

int main(void)
{
    for (int i = 0; i < BLOCKS_N_TYPES; i++) {
        test(blocks_types[i]);
    }
    return 0;
}
