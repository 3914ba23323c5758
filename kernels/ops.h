/* Ops: what programs are made of. Declared once in ops.def; from it come the codes, the argument
 * structs and the CPU table here, and (later) the GPU's.
 *
 * An op is a pure description: its arguments name rows of buffers and borrowed parameters. Running it
 * needs a step (which tokens, which positions, which blocks). Ops allocate nothing and fail never:
 * what could be wrong was checked when the program was built.
 *
 * Invariance: a row's result depends on that row and on its sequence's past only: not on the other
 * rows of the step, not on where prompt chunks were cut, not on the number of threads. */
#ifndef KERNELS_OPS_H
#define KERNELS_OPS_H

#include "kernels/cpu/isa.h"
#include "kernels/cpu/pool.h"
#include "kernels/kv.h"
#include "kernels/matmul.h"
#include "kernels/op_kinds.h"
#include "shared/base.h"

#include <stdatomic.h>

/* Columns [col, col + n) of a buffer's rows. data and stride are set when the program is linked:
 * row r stands at data + r * stride (in floats, whatever is stored there). */
struct op_rows {
    int32_t buf; /* -1: absent */
    int32_t col;
    int32_t n;
    int64_t stride;
    float *data; /* NULL: absent */
};

enum op_code {
#define OP(name, limit, fields) OP_##name,
#include "kernels/ops.def"
#undef OP
    OP_COUNT
};

#define OP_IN(x) struct op_rows x;
#define OP_OUT(x) struct op_rows x;
#define OP_VEC(x) const float *x;
#define OP_VEC64(x) const double *x;
#define OP_MAT(x) const struct matmul_weight *x;
#define OP_INT(x) int32_t x;
#define OP_NUM(x) float x;
#define OP(name, limit, fields)                                                                    \
    struct op_##name {                                                                             \
        fields                                                                                     \
    };
#include "kernels/ops.def"
#undef OP
#undef OP_IN
#undef OP_OUT
#undef OP_VEC
#undef OP_VEC64
#undef OP_MAT
#undef OP_INT
#undef OP_NUM

enum op_place { OP_ON_CPU, OP_ON_GPU };

struct op {
    enum op_code code;
    int16_t layer;    /* of the model, for traces; -1: none */
    uint8_t n_joined; /* so many ops that follow run in the same job, see ops_run */
    uint8_t place;    /* enum op_place; ops that are joined have one place */
    union {
#define OP(name, limit, fields) struct op_##name name;
#include "kernels/ops.def"
#undef OP
    } u;
};

/* Rows of one sequence in a step. */
struct op_run {
    int64_t first, n;      /* rows of the step */
    int64_t pos;           /* position of the first */
    const int32_t *blocks; /* the sequence's block table, covering pos + n tokens */
    int32_t state;         /* its slot in the recurrent states */
};

/* A recurrent layer's states: slot s begins at data + s * slot_floats. */
struct op_state {
    float *data;
    int64_t slot_floats;
};

/* One step; everything borrowed. */
struct op_step {
    enum isa isa;
    struct pool *pool;
    int64_t n_rows;           /* tokens */
    const int32_t *tokens;    /* n_rows */
    const int32_t *positions; /* n_rows */
    const int32_t *out_rows;  /* rows that want logits, ascending */
    const struct op_run *runs;
    int64_t n_runs;
    const struct kv_layer *kv;     /* by op field `layer` */
    const struct op_state *states; /* by op field `state` */
    void *scratch;                 /* at least ops_scratch_bytes() of the op that runs */
    _Atomic uint32_t *op_mark;     /* borrowed: the op that runs is told there; NULL: nowhere */
    /* Copies a row of embed's table, in the file's form, on any of the pool's threads. NULL, or false:
     * it is read in place. */
    bool (*read_row)(void *arg, int64_t row, void *to);
    void *read_row_arg;
};

/* Runs one op on the CPU for n rows (of its output buffer), and the n_joined that follow it in the array:
 * products (matmul, or experts of one order) that do not read each other's results, and last of all
 * perhaps the glu over the two products before it. One job in place of several: every hand-over to
 * the pool costs as much as thousands of values. */
void ops_run(const struct op *op, const struct op_step *s, int64_t n);
enum { OPS_MAX_JOINED = 7 };

/* Scratch memory that the op needs for steps of at most max_rows rows of positions below n_ctx. kv: the layers
 * that its `layer` field indexes. */
size_t ops_scratch_bytes(const struct op *op, const struct kv_layer *kv, int64_t max_rows,
                         int64_t n_ctx, int n_threads);

const char *ops_name(enum op_code code);
float ops_error_limit(enum op_code code);

/* The CPU forms, one file each: kernels/cpu/<name>.c. */
#define OP(name, limit, fields)                                                                    \
    void op_##name##_run(const struct op_##name *o, const struct op_step *s, int64_t n);
#include "kernels/ops.def"
#undef OP

#endif
