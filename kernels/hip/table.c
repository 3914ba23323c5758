/* The table of GPU kernels; see table.h. */
#include "kernels/hip/table.h"

#include <string.h>

#define TABLE_ENTRY(name, args, threads, op, x, y, z)                                              \
    static void name##_grid(const void *p, int32_t ret[3])                                         \
    {                                                                                              \
        const struct args *a = p;                                                                  \
        (void)a;                                                                                   \
        ret[0] = (x);                                                                              \
        ret[1] = (y);                                                                              \
        ret[2] = (z);                                                                              \
    }
TABLE_KERNELS(TABLE_ENTRY)
#undef TABLE_ENTRY

const struct table_kernel table_kernels[TABLE_COUNT] = {
#define TABLE_ENTRY(name, args, threads, op, x, y, z)                                              \
    {#name, sizeof(struct args), threads, OP_##op, name##_grid},
    TABLE_KERNELS(TABLE_ENTRY)
#undef TABLE_ENTRY
};

enum table_id table_gemv(enum type type)
{
    switch ((int)type) {
    case TYPE_Q4_0:
        return TABLE_gemv_q4_0;
    case TYPE_Q8_0:
        return TABLE_gemv_q8_0;
    case TYPE_Q4_K:
        return TABLE_gemv_q4_k;
    case TYPE_Q6_K:
        return TABLE_gemv_q6_k;
    case TYPE_F32:
        return TABLE_gemv_f32;
    case TYPE_F16:
        return TABLE_gemv_f16;
    case TYPE_BF16:
        return TABLE_gemv_bf16;
    default:
        return TABLE_gemv;
    }
}

enum table_id table_gemv_one(enum type type)
{
    switch ((int)type) {
    case TYPE_Q4_0:
        return TABLE_gemv_one_q4_0;
    case TYPE_Q8_0:
        return TABLE_gemv_one_q8_0;
    case TYPE_Q4_K:
        return TABLE_gemv_one_q4_k;
    case TYPE_Q6_K:
        return TABLE_gemv_one_q6_k;
    default:
        return table_gemv(type);
    }
}

enum table_id table_gemv_tile(enum type type, int64_t n_cols)
{
    switch (n_cols % ARGS_CHUNK == 0 ? (int)type : -1) {
    case TYPE_Q4_0:
        return TABLE_gemv_tile_q4_0;
    case TYPE_Q8_0:
        return TABLE_gemv_tile_q8_0;
    case TYPE_Q4_K:
        return TABLE_gemv_tile_q4_k;
    case TYPE_Q6_K:
        return TABLE_gemv_tile_q6_k;
    default:
        return table_gemv(type);
    }
}

bool table_has_matrix(const char *arch)
{
    return strncmp(arch, "gfx10", 5) != 0;
}

enum table_id table_gemm(enum type type)
{
    switch ((int)type) {
    case TYPE_Q4_0:
        return TABLE_gemm_q4_0;
    case TYPE_Q8_0:
        return TABLE_gemm_q8_0;
    case TYPE_Q4_K:
        return TABLE_gemm_q4_k;
    case TYPE_Q6_K:
        return TABLE_gemm_q6_k;
    case TYPE_F32:
        return TABLE_gemm_f32;
    case TYPE_F16:
        return TABLE_gemm_f16;
    case TYPE_BF16:
        return TABLE_gemm_bf16;
    default:
        return TABLE_gemm;
    }
}

enum table_id table_kv_write(enum type type)
{
    return type == TYPE_Q8_0 ? TABLE_kv_write_q8 : TABLE_kv_write;
}

enum table_id table_attention_split(enum type type)
{
    return type == TYPE_F16    ? TABLE_attention_split
           : type == TYPE_Q8_0 ? TABLE_attention_split_q8
                               : TABLE_attention_split_wide;
}

enum table_id table_attention_split_one(enum type type)
{
    return type == TYPE_F16    ? TABLE_attention_split_one
           : type == TYPE_Q8_0 ? TABLE_attention_split_one_q8
                               : TABLE_attention_split_one_wide;
}

enum table_id table_attention_tile(enum type type)
{
    return type == TYPE_F16    ? TABLE_attention_tile
           : type == TYPE_Q8_0 ? TABLE_attention_tile_q8
                               : TABLE_attention_tile_wide;
}
