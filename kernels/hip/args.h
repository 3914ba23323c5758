/* Arguments of the GPU kernels, one struct each, passed by value; compiled by both sides. Pointers are device addresses.
 * Strides count elements of the pointed-to type, and are 64-bit: a product of a row and a stride must not wrap. */
#ifndef KERNELS_HIP_ARGS_H
#define KERNELS_HIP_ARGS_H

#include <stdint.h>

/* A row of n activations in 8 bits (n a multiple of 32): the n bytes, then for each 32 their scale and the scaled sum
 * of the bytes: x[i] = scale * q[i]. Rows are aligned to 16 bytes. */
static inline int64_t args_act_bytes(int64_t n)
{
    return (n + n / 32 * 8 + 15) / 16 * 16;
}

/* norm: grid (n_groups, rows). As op norm. With act, y's row (all groups) is given in 8 bits too, and y may be NULL. */
enum { NORM_THREADS = 256 };
struct norm_args {
    const float *x;
    float *y;            /* NULL: act only */
    int8_t *act;         /* NULL: y only; else n is a multiple of 32 */
    const float *weight; /* NULL: 1 */
    const float *bias;   /* NULL: 0 */
    int64_t x_stride, y_stride, act_stride;
    int32_t n, n_groups, x_group;
    int32_t kind; /* enum op_norm_kind */
    int32_t per_group;
    float eps;
};

/* quantize: grid (ceil(n / QUANTIZE_THREADS), rows). */
enum { QUANTIZE_THREADS = 256 };
struct quantize_args {
    const float *x;
    int8_t *act;
    int64_t x_stride, act_stride;
    int32_t n;
};

/* rope: grid (ceil(n_groups * (n - n_rot / 2) / ROPE_THREADS), rows). As op rope; y may be x. */
enum { ROPE_THREADS = 256 };
struct rope_args {
    const float *x, *table;
    float *y;
    int64_t x_stride, table_stride, y_stride;
    int32_t n_groups, n, x_group, n_rot, adjacent;
};

/* glu: grid (ceil(n_groups * n / GLU_THREADS), rows). As op glu; y may be gate or up. */
enum { GLU_THREADS = 256 };
struct glu_args {
    const float *gate;
    const float *up; /* NULL: f(gate) */
    float *y;
    int64_t gate_stride, up_stride, y_stride;
    int32_t kind; /* enum op_glu_kind */
    int32_t n_groups, n, gate_group;
    int32_t gate_is_one; /* the gate's one column serves all of up's */
    float alpha, limit;
};

/* add: grid (ceil(n / ADD_THREADS), rows). y = a_scale * a + b_scale * b; y may be a or b. */
enum { ADD_THREADS = 256 };
struct add_args {
    const float *a, *b;
    float *y;
    int64_t a_stride, b_stride, y_stride;
    int32_t n;
    float a_scale, b_scale;
};

/* scale: grid as add's. As op scale. */
struct scale_args {
    const float *x;
    float *y;
    int64_t x_stride, y_stride;
    int32_t n;
    float scale, cap;
};

/* decode: grid (ceil(n_cols / DECODE_THREADS), rows). y = scale * row ids[r] of a tensor in the file's form; ids NULL:
 * row r. n_cols: a multiple of the type's block length. */
enum { DECODE_THREADS = 256 };
struct decode_args {
    const uint8_t *data;
    const int32_t *ids;
    float *y;
    int64_t row_bytes, y_stride;
    int32_t type; /* enum type */
    int32_t n_cols;
    float scale;
};

/* gemv_<type>: grid (ceil(n_rows / GEMV_ROWS), ceil(n_tokens / GEMV_TOKENS)). y = w x + bias + add, with w packed
 * (kernels/hip/pack.h) and x in 8 bits. add may be y. */
enum { GEMV_ROWS = 4, GEMV_THREADS = GEMV_ROWS * 32, GEMV_TOKENS = 4 };
struct gemv_args {
    const uint8_t *low, *high, *scale, *super; /* planes of w */
    const int8_t *act;
    const float *bias; /* NULL: 0 */
    const float *add;  /* NULL: 0 */
    float *y;
    int64_t act_stride, y_stride;
    int32_t n_rows, n_cols, n_tokens;
};
#define gemv_q4_0_args gemv_args
#define gemv_q8_0_args gemv_args
#define gemv_q4_k_args gemv_args
#define gemv_q6_k_args gemv_args

/* attention_split: grid (splits, n_kv_head * ceil(group / ATTENTION_HEADS), rows), group = n_head / n_kv_head. Each block
 * does ATTENTION_SPLIT positions of up to ATTENTION_HEADS query heads of one row and leaves maximum, sum and
 * weighted values in part; splits beyond the row's position, or before its window, leave nothing.
 * attention_fold: grid (n_head, rows): folds the splits in ascending order into y.
 * K and V lie in blocks of 16 positions as kernels/kv.h says, in binary16, and dim_k and dim_v are multiples of 8. */
enum { ATTENTION_SPLIT = 256, ATTENTION_HEADS = 4, ATTENTION_THREADS = 128, ATTENTION_FOLD_THREADS = 128,
       ATTENTION_MAX_DIM = 576 /* dim_k; dim_v at most 1024 */ };
struct attention_split_args {
    const float *q;           /* rows of n_head x dim_k */
    const uint16_t *kv;       /* the layer's blocks */
    const int32_t *tables;    /* block tables, table_stride entries apart */
    const int32_t *row_table; /* of each row, which table */
    const int32_t *positions; /* of each row */
    float *part;              /* [row][head][split][2 + dim_v] */
    const float *sinks;       /* n_head scores without a value, or NULL */
    const float *alibi;       /* n_head slopes, or NULL */
    float *y;                 /* rows of n_head x dim_v */
    int64_t q_stride, y_stride, table_stride;
    int32_t n_head, n_kv_head, dim_k, dim_v;
    int32_t v_in_k;
    int32_t n_splits;
    int32_t window; /* 0: all */
    float scale, softcap;
};
#define attention_fold_args attention_split_args

#endif
