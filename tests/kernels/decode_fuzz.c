/* Any bytes as blocks of any type: decoding, packing and multiplying stay inside the buffers (which
 * have exactly the size of the data) and never trap. The first byte picks the type, the second the
 * number of rows. */
#include "kernels/matmul.h"
#include "kernels/quant.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pool *pool;
    if (!pool && pool_create(1, &pool) != 0) {
        abort();
    }
    if (size < 2) {
        return 0;
    }
    enum type type = (enum type)(data[0] % TYPE_ID_END);
    int64_t n_rows = 1 + data[1] % 18;
    const struct type_info *info = type_info(type);
    int64_t n_blocks = (int64_t)((size - 2) / info->block_bytes) / n_rows;
    if (!quant_decoder(type) || n_blocks == 0) {
        return 0;
    }
    int64_t n_cols = n_blocks * info->block_elems;
    size_t bytes = (size_t)(n_rows * n_blocks) * info->block_bytes;
    uint8_t *blocks = malloc(bytes);
    float *row = malloc((size_t)n_cols * sizeof *row);
    float *y = malloc((size_t)n_rows * 3 * sizeof *y);
    memcpy(blocks, data + 2, bytes);
    for (int64_t r = 0; r < n_rows; r++) {
        matmul_row(type, blocks, r, n_cols, row);
    }
    float *x = malloc((size_t)n_cols * 3 * sizeof *x);
    for (int64_t i = 0; i < 3 * n_cols; i++) {
        x[i] = row[i % n_cols];
    }
    for (int isa = ISA_SCALAR; isa <= (int)isa_detect(); isa++) {
        struct matmul_weight w;
        if (matmul_prepare(&w, type, (enum isa)isa, n_rows, n_cols, blocks, pool) != 0) {
            abort();
        }
        void *act = w.act == MATMUL_ACT_F32
                        ? malloc((size_t)n_cols * 3 * sizeof *x)
                        : aligned_alloc(64, 3 * matmul_act_bytes(w.act, n_cols));
        matmul_act((enum isa)isa, w.act, x, act, 3, n_cols, pool);
        matmul_run(&(struct matmul){.w = &w, .x = act, .y = y, .y_stride = n_rows, .n_tokens = 3},
                   pool);
        free(act);
        matmul_finish(&w);
    }
    quant_encode_fn *encode = quant_encoder(type);
    if (encode) {
        encode(row, blocks, n_cols, NULL);
    }
    free(blocks);
    free(row);
    free(x);
    free(y);
    return 0;
}
