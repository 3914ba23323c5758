/* embed on the emulator: packed rows of every type decode to the same values as the CPU's
 * reference, which is tested against published vectors. */
#include "kernels/hip/pack.h"
#include "kernels/quant.h"
#include "tests/kernels/blocks.h"
#include "tests/kernels/hip/device.h"

extern const struct gpu_host_kernel embed_kernel;

static void test(enum type type, int n_cols)
{
    enum { ROWS = 37 };
    static const int32_t ids[4] = {36, 0, 3, 32};
    size_t row_bytes = type_row_bytes(type, (size_t)n_cols), n_y = COUNT_OF(ids) * (size_t)n_cols;
    uint8_t *file = malloc(row_bytes * ROWS);
    uint64_t seed = (uint64_t)type;
    blocks_fill(type, file, ROWS * n_cols, &seed);
    struct pack_layout l;
    CHECK(pack_layout(type, ROWS, n_cols, &l) == 0);
    uint8_t *packed = calloc(1, (size_t)l.n_bytes);
    pack_rows(type, &l, file, 0, 5, n_cols, packed); /* in two pieces, as an upload does */
    pack_rows(type, &l, file + 5 * row_bytes, 5, ROWS - 5, n_cols, packed);
    void *dw = device_copy(packed, (size_t)l.n_bytes), *dids = device_copy(ids, sizeof ids);
    void *dy = emulator_alloc(n_y * 4, 0);
    struct embed_args a = {
        .w = {.data = dw, .scale_at = l.scale_at, .super_at = l.super_at, .n_rows = ROWS},
        .ids = dids,
        .y = dy,
        .y_stride = n_cols,
        .type = (int32_t)type,
        .n_rows = COUNT_OF(ids),
        .n_cols = n_cols,
        .scale = 2};
    DEVICE_RUN(embed, &a);
    float *y = malloc(n_y * 4), *w = malloc((size_t)n_cols * 4);
    emulator_download(y, dy, n_y * 4);
    for (int r = 0; r < (int)COUNT_OF(ids); r++) {
        quant_decoder(type)(file + (size_t)ids[r] * row_bytes, w, n_cols);
        for (int i = 0; i < n_cols; i++) {
            if (y[r * n_cols + i] != 2 * w[i]) {
                TEST_FAIL("%s: weight %d of row %d is %g, expected %g",
                          type_info((uint32_t)type)->name, i, (int)ids[r],
                          (double)y[r * n_cols + i], 2 * (double)w[i]);
            }
        }
    }
    emulator_free(dw);
    emulator_free(dids);
    emulator_free(dy);
    free(file);
    free(packed);
    free(y);
    free(w);
}

int main(void)
{
    struct pack_layout l;
    CHECK(pack_layout(TYPE_I32, 1, 256, &l) != 0);
    for (int i = 0; i < BLOCKS_N_TYPES; i++) {
        int elems = (int)type_info((uint32_t)blocks_types[i])->block_elems;
        test(blocks_types[i], elems == 1 ? 257 : 3 * elems);
    }
    return 0;
}
