/* Matrix multiplication y[t][r] = sum_k w[r][k] * x[t][k] over quantized weights.
 *
 * Invariance: each y[t][r] is computed in one fixed order that depends on the type and the ISA
 * only: not on n_tokens, not on which rows a thread got, not on neighbours. One token and a hundred
 * use the same micro-kernel family.
 *
 * Activations: with ISA_SCALAR they stay F32 (the reference). The vector paths take the
 * form that the weight names (8 bits for quantized weights), made once per op by matmul_act. */
#ifndef KERNELS_MATMUL_H
#define KERNELS_MATMUL_H

#include "kernels/cpu/isa.h"
#include "kernels/cpu/pool.h"
#include "shared/err.h"
#include "shared/type.h"

enum matmul_act {
    MATMUL_ACT_F32,   /* as they are */
    MATMUL_ACT_Q8,    /* 8 bits, a scale for 32 */
    MATMUL_ACT_Q8_16, /* 8 bits, a scale for 16: for types whose peers come close with 32 */
    MATMUL_ACT_Q16,   /* 16 bits, a scale for 64: for F16 and BF16 weights */
    MATMUL_ACT_COUNT
};

struct matmul_weight { /* a matrix ready to multiply */
    enum type type;
    enum isa isa;
    int64_t n_rows;   /* outputs */
    int64_t n_cols;   /* inputs; a multiple of the type's block length */
    const void *data; /* borrowed: the file's bytes; read by the scalar reference only */
    size_t row_bytes; /* of the file's form */
    const void *packed; /* panels (kernels/cpu/panel.h); NULL: for the scalar reference */
    size_t packed_bytes;
    void *owned;         /* packed, where matmul_prepare made its memory */
    enum matmul_act act; /* what x must be */
};

/* Counts the forms that packed weights had: one that was packed by another form is packed anew. */
enum { MATMUL_LAYOUT = 2 };

/* Describes a weight for the ISA: all but packed. With a vector ISA packed_bytes is above 0: so
 * much memory, aligned to 64, is filled by matmul_pack once and is then given as packed. Errors:
 * -ENOTSUP (no such type). */
MUST_CHECK int matmul_describe(struct matmul_weight *w, enum type type, enum isa isa,
                               int64_t n_rows, int64_t n_cols, const void *data);
/* Puts rows [lo, hi) of the file's form in the order that the vector kernels read; afterwards those
 * are needed for matmul_row only. `to` is the whole packed matrix; lo is a multiple of
 * MATMUL_GRAIN; hi too, or n_rows. */
void matmul_pack(const struct matmul_weight *w, int64_t lo, int64_t hi, void *to,
                 struct pool *pool);

/* Describes and packs a weight into memory of its own. Errors: -ENOMEM, -ENOTSUP. */
MUST_CHECK int matmul_prepare(struct matmul_weight *w, enum type type, enum isa isa, int64_t n_rows,
                              int64_t n_cols, const void *data, struct pool *pool);
void matmul_finish(struct matmul_weight *w);

/* Bytes of one activation row of n_cols, a multiple of 64. */
size_t matmul_act_bytes(enum matmul_act act, int64_t n_cols);
/* Converts rows of F32 (stride n_cols) to that form. One row's result depends on that row only.
 * pool NULL: the calling thread alone. */
void matmul_act(enum isa isa, enum matmul_act act, const float *x, void *y, int64_t n_rows,
                int64_t n_cols, struct pool *pool);

/* y (stride y_stride floats) = w * x; x as matmul_act made it (MATMUL_ACT_F32: stride n_cols
 * floats). bias (n_rows) and add (like y, may alias y) may be NULL: y = w*x + bias + add. */
struct matmul {
    const struct matmul_weight *w;
    const void *x;
    float *y;
    int64_t y_stride;
    int64_t n_tokens;
    const float *bias;
    const float *add;
};
void matmul_run(const struct matmul *m, struct pool *pool);

/* The part of matmul_run for outputs [lo, hi), on the calling thread: for jobs that join several
 * products in one pool_run (Q, K and V; gate and up; the experts of a step). lo is a multiple of
 * MATMUL_GRAIN; hi too, or n_rows. The same results as matmul_run. */
enum { MATMUL_GRAIN = 16 };
void matmul_slice(const struct matmul *m, int64_t lo, int64_t hi);
/* Outputs that are worth a slice of their own, a multiple of MATMUL_GRAIN, in a job of job_rows
 * outputs (of all its matrices). */
int64_t matmul_slice_rows(const struct matmul_weight *w, int64_t job_rows, int64_t n_tokens,
                          int n_threads);

/* One row of the weight as F32 (embedding lookup); works from the file's form. */
void matmul_row(enum type type, const void *data, int64_t row, int64_t n_cols, float *y);

#endif
