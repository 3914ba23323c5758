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

/* decode: grid (ceil(n_cols / 16 / DECODE_THREADS), rows). y = scale * row ids[r] of a tensor in the file's form;
 * ids NULL: row r. n_cols: a multiple of the type's block length. */
enum { DECODE_THREADS = 64 };
struct decode_args {
    const uint8_t *data;
    const int32_t *ids;
    float *y;
    int64_t row_bytes, y_stride;
    int32_t type; /* enum type */
    int32_t n_cols;
    float scale;
};

#endif
