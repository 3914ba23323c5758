/* Matrix multiplication: preparing weights, converting activations, and choosing the kernel.
 * Runs on the token loop's thread and its pool; prepare allocates, run does not. */
#include "kernels/matmul.h"

#include "kernels/cpu/matmul_kernel.h"
#include "kernels/quant.h"
#include "shared/num.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int matmul_prepare(struct matmul_weight *w, enum type type, enum isa isa, int64_t n_rows,
                   int64_t n_cols, const void *data, struct pool *pool)
{
    (void)pool;
    if (!quant_decoder(type)) {
        return -ENOTSUP;
    }
    *w = (struct matmul_weight){
        .type = type,
        .isa = isa,
        .n_rows = n_rows,
        .n_cols = n_cols,
        .data = data,
        .row_bytes = type_row_bytes(type, (size_t)n_cols),
        .act = MATMUL_ACT_F32,
    };
    return 0;
}

void matmul_finish(struct matmul_weight *w)
{
    free(w->packed);
    *w = (struct matmul_weight){0};
}

size_t matmul_act_bytes(enum matmul_act act, int64_t n_cols)
{
    (void)act;
    return num_pad((size_t)n_cols * sizeof(float), 64);
}

void matmul_act(enum isa isa, enum matmul_act act, const float *x, void *y, int64_t n_rows,
                int64_t n_cols, struct pool *pool)
{
    (void)isa;
    (void)act;
    (void)pool;
    memcpy(y, x, (size_t)n_rows * (size_t)n_cols * sizeof *x);
}

static void run_rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    matmul_scalar_rows(arg, lo, hi);
}

void matmul_run(const struct matmul *m, struct pool *pool)
{
    pool_run(pool, m->w->n_rows, 4, run_rows, (void *)(uintptr_t)m);
}

void matmul_slice(const struct matmul *m, int64_t lo, int64_t hi)
{
    matmul_scalar_rows(m, lo, hi);
}

void matmul_row(enum type type, const void *data, int64_t row, int64_t n_cols, float *y)
{
    size_t row_bytes = type_row_bytes(type, (size_t)n_cols);
    quant_decoder(type)((const char *)data + (size_t)row * row_bytes, y, n_cols);
}
