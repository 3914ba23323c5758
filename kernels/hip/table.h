/* The GPU kernels, declared once: name (in the code object), argument struct (kernels/hip/args.h), threads of a block, the op
 * of kernels/ops.def that it does or begins to do, and the grid in blocks as a function of its arguments `a`.
 *
 * gemv_* and gemm_* exist for a type of their own (table_gemv and table_gemm name it) and, in a general form, for all other
 * quantized types. Shared memory is static; sizes and registers stand in kernels/hip/budget. */
#ifndef KERNELS_HIP_TABLE_H
#define KERNELS_HIP_TABLE_H

#include "kernels/hip/args.h"
#include "kernels/ops.h"
#include "shared/type.h"

#include <stdbool.h>

#define TABLE_CEIL(a, b) (((a) + (b) - 1) / (b))

#define TABLE_GEMV(KERNEL, name)                                                                   \
    KERNEL(name, matmul_args, GEMV_THREADS, matmul, table_row_blocks(a, GEMV_ROWS),                \
           a->ids ? a->n_tokens : TABLE_CEIL(a->n_tokens, GEMV_TOKENS), 1)
#define TABLE_GEMV_ONE(KERNEL, name)                                                               \
    KERNEL(name, matmul_args, GEMV_ONE_THREADS, matmul, table_row_blocks(a, GEMV_ROWS),            \
           a->n_tokens, 1)

#define TABLE_GEMV_TILE(KERNEL, name)                                                              \
    KERNEL(name, matmul_args, GEMV_TILE_THREADS, matmul, table_row_blocks(a, GEMV_ROWS),           \
           TABLE_CEIL(a->n_tokens, GEMV_TILE_TOKENS), 1)

/* With experts: no more tiles than slots, and than full tiles and one of each expert. */
#define TABLE_GEMM(KERNEL, name)                                                                   \
    KERNEL(name, matmul_args, GEMM_THREADS, matmul, table_row_blocks(a, GEMM_ROWS),                \
           table_gemm_tiles(a), 1)

#define TABLE_SPLIT(KERNEL, name, heads)                                                           \
    KERNEL(name, attention_args, ATTENTION_THREADS, attention, a->n_splits,                        \
           table_attention_chunks(a, heads), a->n_rows)
#define TABLE_TILE(KERNEL, name)                                                                   \
    KERNEL(name, attention_args, ATTENTION_TILE_THREADS, attention, a->n_tiles,                    \
           table_attention_chunks(a, ATTENTION_PAIRS), 1)

static inline int32_t table_gemm_tiles(const struct matmul_args *a)
{
    int32_t n = TABLE_CEIL(a->n_tokens, GEMM_TOKENS) + (a->order ? a->n_expert : 0);
    return n < a->n_tokens ? n : a->n_tokens;
}
static inline int32_t table_attention_chunks(const struct attention_args *a, int32_t heads)
{
    return a->n_kv_head * TABLE_CEIL(a->n_head / a->n_kv_head, heads);
}
/* Rows of a tile of attention_tile. */
static inline int32_t table_attention_rows(const struct attention_args *a)
{
    int32_t group = a->n_head / a->n_kv_head;
    return group < ATTENTION_PAIRS ? ATTENTION_PAIRS / group : 1;
}
static inline int32_t table_kv_write_threads(const struct kv_write_args *a)
{
    int32_t queries = a->q ? a->n_head * a->dim_k / 2 : 0;
    return queries + a->n_kv_head * (a->dim_k / 2 + (a->v_in_k ? 0 : a->dim_v));
}
static inline int32_t table_kv_write_q8_blocks(const struct kv_write_args *a)
{
    int32_t queries = a->q ? a->n_head * a->dim_k / 2 : 0;
    int32_t groups = TABLE_CEIL(a->dim_k, 32) + (a->v_in_k ? 0 : TABLE_CEIL(a->dim_v, 32));
    return TABLE_CEIL(queries, KV_WRITE_THREADS) +
           TABLE_CEIL(a->n_kv_head * groups, KV_WRITE_THREADS / 32);
}
static inline int32_t table_row_blocks(const struct matmul_args *a, int32_t rows)
{
    int32_t n = 0;
    for (int32_t i = 0; i < (a->glu == MATMUL_NO_GLU ? a->n_w : 1); i++) {
        n += TABLE_CEIL(a->w[i].n_rows, rows);
    }
    return n;
}

/* KERNEL(name, struct, threads, op, x, y, z). What is no op of a program: none. y and z are at most 65,535: tokens of a step,
 * but not tokens times experts or heads, which stand in x. */
enum { OP_none = OP_COUNT };
#define TABLE_KERNELS(KERNEL)                                                                      \
    KERNEL(norm, norm_args, NORM_THREADS, norm, a->n_groups, a->n_rows, 1)                         \
    KERNEL(quantize, quantize_args, QUANTIZE_THREADS, convert, a->n_rows,                          \
           TABLE_CEIL(a->n, QUANTIZE_THREADS), 1)                                                  \
    KERNEL(rope, rope_args, ROPE_THREADS, rope,                                                    \
           TABLE_CEIL(a->n_groups *(a->n - a->n_rot / 2), ROPE_THREADS), a->n_rows, 1)             \
    KERNEL(glu, glu_args, GLU_THREADS, glu, a->n_rows, TABLE_CEIL(a->n_groups *a->n, GLU_THREADS), \
           1)                                                                                      \
    KERNEL(add, add_args, ADD_THREADS, add, TABLE_CEIL(a->n, ADD_THREADS), a->n_rows, 1)           \
    KERNEL(scale, scale_args, ADD_THREADS, scale, TABLE_CEIL(a->n, ADD_THREADS), a->n_rows, 1)     \
    KERNEL(copy, copy_args, COPY_THREADS, copy, TABLE_CEIL(a->n_groups *a->n, COPY_THREADS),       \
           a->n_rows, 1)                                                                           \
    KERNEL(embed, embed_args, EMBED_THREADS, embed, TABLE_CEIL(a->n_cols, EMBED_THREADS),          \
           a->n_rows, 1)                                                                           \
    KERNEL(kv_write, kv_write_args, KV_WRITE_THREADS, kv_write,                                    \
           TABLE_CEIL(table_kv_write_threads(a), KV_WRITE_THREADS), a->n_rows, 1)                  \
    KERNEL(kv_write_q8, kv_write_args, KV_WRITE_THREADS, kv_write, table_kv_write_q8_blocks(a),     \
           a->n_rows, 1)                                                                           \
    TABLE_GEMV(KERNEL, gemv)                                                                       \
    TABLE_GEMV(KERNEL, gemv_q4_0)                                                                  \
    TABLE_GEMV(KERNEL, gemv_q8_0)                                                                  \
    TABLE_GEMV(KERNEL, gemv_q4_k)                                                                  \
    TABLE_GEMV(KERNEL, gemv_q6_k)                                                                  \
    TABLE_GEMV(KERNEL, gemv_f32)                                                                   \
    TABLE_GEMV(KERNEL, gemv_f16)                                                                   \
    TABLE_GEMV(KERNEL, gemv_bf16)                                                                  \
    TABLE_GEMV_ONE(KERNEL, gemv_one_q4_0)                                                          \
    TABLE_GEMV_ONE(KERNEL, gemv_one_q8_0)                                                          \
    TABLE_GEMV_ONE(KERNEL, gemv_one_q4_k)                                                          \
    TABLE_GEMV_ONE(KERNEL, gemv_one_q6_k)                                                          \
    TABLE_GEMV_TILE(KERNEL, gemv_tile_q4_0)                                                        \
    TABLE_GEMV_TILE(KERNEL, gemv_tile_q8_0)                                                        \
    TABLE_GEMV_TILE(KERNEL, gemv_tile_q4_k)                                                        \
    TABLE_GEMV_TILE(KERNEL, gemv_tile_q6_k)                                                        \
    TABLE_GEMM(KERNEL, gemm)                                                                       \
    TABLE_GEMM(KERNEL, gemm_q4_0)                                                                  \
    TABLE_GEMM(KERNEL, gemm_q8_0)                                                                  \
    TABLE_GEMM(KERNEL, gemm_q4_k)                                                                  \
    TABLE_GEMM(KERNEL, gemm_q6_k)                                                                  \
    TABLE_GEMM(KERNEL, gemm_f32)                                                                   \
    TABLE_GEMM(KERNEL, gemm_f16)                                                                   \
    TABLE_GEMM(KERNEL, gemm_bf16)                                                                  \
    KERNEL(route, route_args, ROUTE_THREADS, route, a->n_rows, 1, 1)                               \
    KERNEL(order, order_args, ORDER_THREADS, order, 1, 1, 1)                                       \
    KERNEL(combine, combine_args, COMBINE_THREADS, combine, TABLE_CEIL(a->n, COMBINE_THREADS),     \
           a->n_rows, 1)                                                                           \
    KERNEL(conv, conv_args, CONV_THREADS, conv, TABLE_CEIL(a->n, CONV_THREADS), a->n_runs, 1)      \
    KERNEL(ssm, ssm_args, SSM_THREADS, ssm, a->n_head *TABLE_CEIL(a->dim, SSM_THREADS / 32),       \
           a->n_runs, 1)                                                                           \
    KERNEL(delta, delta_args, DELTA_THREADS, delta,                                                \
           a->n_head_v *TABLE_CEIL(a->dim_v, DELTA_THREADS / 32 * DELTA_COLUMNS), a->n_runs, 1)    \
    KERNEL(top_part, top_args, TOP_THREADS, none, a->n_parts, a->n_rows, 1)                        \
    KERNEL(top_fold, top_args, TOP_THREADS, none, a->n_rows, 1, 1)                                 \
    TABLE_SPLIT(KERNEL, attention_split, ATTENTION_HEADS)                                          \
    TABLE_SPLIT(KERNEL, attention_split_q8, ATTENTION_HEADS)                                       \
    TABLE_SPLIT(KERNEL, attention_split_wide, ATTENTION_HEADS)                                     \
    TABLE_SPLIT(KERNEL, attention_split_one, 1)                                                    \
    TABLE_SPLIT(KERNEL, attention_split_one_q8, 1)                                                 \
    TABLE_SPLIT(KERNEL, attention_split_one_wide, 1)                                               \
    KERNEL(attention_fold, attention_args, ATTENTION_FOLD_THREADS, attention, a->n_head,           \
           a->n_rows, 1)                                                                           \
    TABLE_TILE(KERNEL, attention_tile)                                                             \
    TABLE_TILE(KERNEL, attention_tile_q8)                                                          \
    TABLE_TILE(KERNEL, attention_tile_wide)

enum table_id {
#define TABLE_ENTRY(name, args, threads, op, x, y, z) TABLE_##name,
    TABLE_KERNELS(TABLE_ENTRY)
#undef TABLE_ENTRY
        TABLE_COUNT
};

struct table_kernel {
    const char *name;
    size_t args_bytes;
    int threads;
    int op; /* enum op_code, or OP_none */
    void (*grid)(const void *args, int32_t ret[3]);
};
extern const struct table_kernel table_kernels[TABLE_COUNT]; /* by enum table_id */

/* Which kernel serves a KV cache of this type. */
enum table_id table_kv_write(enum type type);
enum table_id table_attention_split(enum type type);
enum table_id table_attention_split_one(enum type type); /* the same of one query head a block */
enum table_id table_attention_tile(enum type type);

/* Which gemv, which gemm serves matrices of this type. */
enum table_id table_gemv(enum type type);
enum table_id table_gemv_one(enum type type); /* the same of a token or slot a block, where there are few of them */
enum table_id table_gemv_tile(enum type type, int64_t n_cols); /* on matrix units; gemv where it cannot be done there */
enum table_id table_gemm(enum type type);
/* Whether a target ("gfx1100") has matrix units: where not, gemv is faster than gemv_tile. */
bool table_has_matrix(const char *arch);

#endif
