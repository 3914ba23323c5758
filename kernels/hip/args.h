/* Arguments of the GPU kernels, one struct each, passed by value; compiled by both sides. What
 * launches a kernel: its struct, and the grid that kernels/hip/table.h derives from it. All shared
 * memory is static: none is asked for at launch.
 *
 * Pointers are device addresses. Strides count elements of the pointed-to type (bytes for int8_t),
 * and are 64-bit: a product of a row and a stride must not wrap. A grid of no rows is not
 * launched. */
#ifndef KERNELS_HIP_ARGS_H
#define KERNELS_HIP_ARGS_H

#include <stdint.h>

/* What every kernel gets besides its arguments: where its first thread leaves a number as it
 * begins, so that the host knows which of a recorded step's kernels was the last to begin when
 * nothing can be asked of the card any more. */
struct args_crumb {
    uint32_t *at; /* the host's memory; NULL: nowhere */
    uint32_t number, reserved;
};

/* A row of n activations in 8 bits (n a multiple of 32): the n bytes, then for each 32 struct
 * args_act: x[i] = scale * q[i]. Rows are aligned to 16 bytes; their stride is args_act_bytes(n) or
 * more. */
struct args_act {
    float scale;
    int16_t sum[2]; /* of the bytes of each half of the 32 */
};
enum { ARGS_GROUP = 32, ARGS_CHUNK = 128, ARGS_SEGMENT = 256, ARGS_PANEL = 32 };
static inline int64_t args_act_bytes(int64_t n)
{
    return (n + n / ARGS_GROUP * 8 + 15) / 16 * 16;
}

/* probe: data[i] of each PROBE_THREADS = 2654435761 * the mirrored one + the sum of the thread
 * numbers of the wave; n is a multiple of PROBE_THREADS. safety/probe_hip.c, which may not see
 * this, launches it. */
enum { PROBE_THREADS = 256 };
struct probe_args {
    uint32_t *data;
    int32_t n;
};

/* norm: a block does a group of a row. As op norm. With act, y's row (all groups) is given in 8
 * bits too. */
enum { NORM_THREADS = 256 };
struct norm_args {
    const float *x;
    float *y;            /* NULL: act only */
    int8_t *act;         /* NULL: y only; else n is a multiple of 32 */
    const float *weight; /* NULL: 1 */
    const float *bias;   /* NULL: 0 */
    int64_t x_stride, y_stride, act_stride;
    int32_t n_rows;
    int32_t n, n_groups, x_group;
    int32_t kind; /* enum op_norm_kind */
    int32_t per_group;
    float eps;
};

/* quantize: rows of n values (a multiple of 32) to 8 bits; op convert. */
enum { QUANTIZE_THREADS = 256 };
struct quantize_args {
    const float *x;
    int8_t *act;
    int64_t x_stride, act_stride;
    int32_t n_rows, n;
};

/* rope: as op rope; y may be x. */
enum { ROPE_THREADS = 256 };
struct rope_args {
    const float *x, *table;
    float *y;
    int64_t x_stride, table_stride, y_stride;
    int32_t n_rows;
    int32_t n_groups, n, x_group, n_rot, adjacent;
};

/* glu: as op glu; y may be gate or up. With act, y's row is given in 8 bits too (n_groups * n a
 * multiple of 32). */
enum { GLU_THREADS = 256 };
struct glu_args {
    const float *gate;
    const float *up; /* NULL: f(gate) */
    float *y;        /* NULL: act only */
    int8_t *act;     /* NULL: y only */
    int64_t gate_stride, up_stride, y_stride, act_stride;
    int32_t n_rows;
    int32_t kind; /* enum op_glu_kind */
    int32_t n_groups, n, gate_group;
    int32_t gate_is_one; /* the gate's one column serves all of up's */
    float alpha, limit;
};

/* add: as op add; y may be a or b. scale: as op scale. */
enum { ADD_THREADS = 256 };
struct add_args {
    const float *a, *b;
    float *y;
    int64_t a_stride, b_stride, y_stride;
    int32_t n_rows, n;
    float a_scale, b_scale;
};
struct scale_args {
    const float *x;
    float *y;
    int64_t x_stride, y_stride;
    int32_t n_rows, n;
    float scale, cap;
};

/* copy: groups of columns of rows: y[r][g][i] = x[ids ? ids[r] : r][g][i]. Ops gather (ids), copy,
 * and concat in two. */
enum { COPY_THREADS = 256 };
struct copy_args {
    const float *x;
    const int32_t *ids; /* NULL: every row */
    float *y;
    int64_t x_stride, y_stride;
    int32_t n_rows;
    int32_t n_groups, n, x_group, y_group; /* x_group 0: the first for all */
};

/* A packed matrix (kernels/hip/pack.h), or many of one shape, each_bytes apart. */
struct args_weight {
    const uint8_t *data;
    int64_t scale_at, super_at; /* planes: bytes from data */
    int64_t each_bytes;
    int32_t n_rows;
    int32_t reserved;
};

/* embed: y = scale * row ids[r] of a packed matrix. As op embed; ids are below w.n_rows. */
enum { EMBED_THREADS = 256 };
struct embed_args {
    struct args_weight w;
    const int32_t *ids;
    float *y;
    int64_t y_stride;
    int32_t type; /* enum type */
    int32_t n_rows, n_cols;
    float scale;
};

/* Products of up to MATMUL_MAX matrices of one type and width with the same rows x: y[i] = w[i] x +
 * bias[i], y[0] + add.
 *   gemv_one_<type>   one token, or a slot; quantized weights
 *   gemv_<type>   a few tokens; weights are read once for GEMV_TOKENS of them
 *   gemv_tile_<type>   likewise for GEMV_TILE_TOKENS, on matrix units: quantized weights whose columns are a multiple of
 *                      ARGS_CHUNK, no experts; the types of gemv_one
 *   gemm_<type>   many tokens
 * The bits of a result are the same from all, for any number of tokens.
 * With glu (and two matrices): y[0] = f(w[0] x + bias[0]) * (w[1] x + bias[1]) as op glu, in gemv
 * only, and in 8 bits in act; y[0] may be NULL then.
 * With experts, w[i] are arrays. gemv: slot s (token * n_used + choice) multiplies with matrix
 * ids[token * ids_stride + choice] the row x[s / n_used], or x[s] with x_per_slot, and writes row s
 * of y. gemm: op order's output (kernel order) says which slots go together. With ids_stride = 0
 * and ids = 0, 1, 2 ... it is op heads.
 * With norm.x, gemv_one makes its x itself, as kernel norm would, of norm.x: one group of at most
 * GEMV_ONE_NORM columns, one token, no experts; norm.x and norm.weight are aligned to 16 bytes. */
enum {
    MATMUL_MAX = 3,
    GEMV_THREADS = 256,
    GEMV_ROWS = 32,
    GEMV_TOKENS = 8,
    GEMV_TILE_THREADS = 512,
    GEMV_TILE_TOKENS = 16,
    GEMV_ONE_THREADS = NORM_THREADS,
    GEMV_ONE_NORM = 1024,
    GEMV_ONE_NORM_WORK = 1 << 19, /* columns times blocks: beyond, a norm once costs less */
    GEMM_THREADS = 256,
    GEMM_ROWS = 128,
    GEMM_TOKENS = 64,
    MATMUL_NO_GLU = -1
};
struct matmul_args {
    struct args_weight w[MATMUL_MAX];
    float *y[MATMUL_MAX];
    const float *bias[MATMUL_MAX]; /* NULL: 0; with experts n_rows for each */
    const float *add;              /* NULL: 0; may be y[0] */
    const void *x;                 /* rows in 8 bits; of floats for F32, F16 and BF16 weights */
    int8_t *act;                   /* NULL: y only */
    const int32_t *ids;            /* NULL: no experts */
    const int32_t *order;          /* gemm with experts: what kernel order wrote */
    int64_t y_stride[MATMUL_MAX];
    int64_t add_stride, act_stride, ids_stride;
    int64_t x_bytes; /* stride of x */
    int32_t type;    /* enum type */
    int32_t n_cols, n_w;
    int32_t n_tokens; /* with experts: slots */
    int32_t n_expert, n_used, x_per_slot;
    int32_t glu; /* enum op_glu_kind, or MATMUL_NO_GLU */
    float alpha, limit;
    struct norm_args norm; /* of gemv_one */
};

/* kv_write: K and V of each row into its sequence's blocks (kernels/kv.h; F16, BF16 or F32), K
 * rotated before as op rope does where n_rot > 0, and queries rotated in place of a launch of their
 * own. kv_write_q8: into blocks of Q8_0. */
enum { KV_WRITE_THREADS = 256 };
struct kv_write_args {
    const float *k, *v; /* v unused with v_in_k */
    float *q;           /* NULL: no queries; n_head x dim_k, rotated in place */
    const float *table; /* cosines and sines, or NULL: n_rot is 0 */
    uint8_t *kv;        /* the layer's blocks */
    const int32_t *tables, *row_table, *positions; /* as attention's */
    int64_t k_stride, v_stride, q_stride, table_stride, tables_stride;
    int32_t n_rows;
    int32_t type; /* enum type, of the cache */
    int32_t n_head, n_kv_head, dim_k, dim_v, v_in_k;
    int32_t n_rot, adjacent;
};

/* attention_split: each block does ATTENTION_SPLIT positions of up to ATTENTION_HEADS query heads of one row and
 * leaves maximum, sum and weighted values in part; splits beyond the row's position, or before its window, leave nothing.
 * attention_fold: folds the splits in ascending order into y, and into 8 bits.
 * attention_tile does the same, to the same bits, in one launch for rows that follow each other in a sequence: `tiles`
 * names first row and number of rows of each tile, at most table_attention_rows(a); y only, dim_k and dim_v at most
 * ATTENTION_TILE_DIM, part and n_splits unused.
 * K and V lie in blocks of 16 positions as kernels/kv.h says, and dim_k and dim_v are multiples of 8. The kernels so named read
 * F16; those with _q8 Q8_0, those with _wide F32 and BF16.
 * attention_split_one does one query head a block: where blocks are few, each has less to do.
 * With n_splits = 1 attention_split gives what attention_fold would. With write.n_rows it does what
 * kernel kv_write would before it, but leaves queries as they are: rows are of a sequence each,
 * dim_k and dim_v at most ATTENTION_TILE_DIM, the cache is not of Q8_0. */
enum {
    ATTENTION_SPLIT = 256,
    ATTENTION_HEADS = 4,
    ATTENTION_THREADS = 128,
    ATTENTION_FOLD_THREADS = 128,
    ATTENTION_MAX_DIM = 576, /* dim_k; dim_v at most 1024 */
    ATTENTION_TILE_THREADS = 256,
    ATTENTION_PAIRS = 16, /* of row and head, in a tile */
    ATTENTION_TILE_DIM = 256
};
struct attention_args {
    const float *q;           /* rows of n_head x dim_k */
    const uint8_t *kv;        /* the layer's blocks */
    const int32_t *tables;    /* block tables, table_stride entries apart */
    const int32_t *row_table; /* of each row, which table */
    const int32_t *positions; /* of each row */
    const int32_t *tiles;     /* of attention_tile: n_tiles pairs */
    float *part;              /* [row][head][split][2 + dim_v] */
    const float *sinks;       /* n_head scores without a value, or NULL */
    const float *alibi;       /* n_head slopes, or NULL */
    float *y;                 /* rows of n_head x dim_v; NULL: act only */
    int8_t *act;              /* NULL: y only; else dim_v is a multiple of 32 */
    int64_t q_stride, y_stride, act_stride, table_stride;
    int32_t n_rows;
    int32_t type; /* enum type, of the cache */
    int32_t n_head, n_kv_head, dim_k, dim_v;
    int32_t v_in_k;
    int32_t n_splits; /* of the longest row */
    int32_t window;   /* 0: all */
    int32_t n_tiles;
    float scale, softcap;
    struct kv_write_args write; /* of attention_split; n_rows = 0: K and V are there */
};

/* top_part, then top_fold: the k largest of each row of n values, largest first, ties to the lower
 * index; k at most TOP_MAX. What is not finite counts as the lowest of all, and bad counts it. With
 * k = 1: argmax. */
enum { TOP_THREADS = 256, TOP_PART = 4096, TOP_FOLD = 8192, TOP_MAX = 64 };
struct top_args {
    const float *x;
    float *part_values; /* [row][part][k] */
    int32_t *part_ids;
    int32_t *part_bad;  /* [row][part] */
    float *values;      /* [row][k] */
    int32_t *ids;       /* [row][k] */
    int32_t *bad;       /* [row]: how many of the row's values are not finite */
    int64_t x_stride;
    /* n_parts = ceil(n / TOP_PART); n_parts * k is at most TOP_FOLD */
    int32_t n_rows, n, k, n_parts;
};

/* route: as op route; y rows: ids (int32), then weights. n_expert at most ROUTE_MAX. */
enum { ROUTE_THREADS = 32, ROUTE_MAX = 1024 };
struct route_args {
    const float *x, *bias;
    float *y;
    int64_t x_stride, y_stride;
    int32_t n_rows;
    int32_t n_expert, n_used, gating, n_group, n_group_used, normalize;
    float scale;
};

/* order: as op order, without the slots' places: n_expert + 1 offsets, then for each sorted place
 * its slot. */
enum { ORDER_THREADS = 256 };
struct order_args {
    const int32_t *ids; /* of route */
    int32_t *y;
    int64_t ids_stride;
    int32_t n_rows, n_expert, n_used;
};

/* combine: y = add + the sum over a row's slots, in order, of weight * x[slot]. As op combine; y
 * may be add. */
enum { COMBINE_THREADS = 256 };
struct combine_args {
    const float *x;       /* a row for each slot */
    const float *weights; /* of route: y + n_used */
    const float *add;     /* NULL: 0 */
    float *y;
    int64_t x_stride, weights_stride, add_stride, y_stride;
    int32_t n_rows, n, n_used;
};

/* Rows of one sequence in a step; recurrent kernels do them in order. */
struct args_run {
    int32_t first, n;
    int32_t state; /* the slot of its state */
    int32_t reserved;
};

/* conv: as op conv; width at most CONV_MAX_WIDTH. A state: width - 1 rows of n values, the latest
 * last. */
enum { CONV_THREADS = 128, CONV_MAX_WIDTH = 8 };
struct conv_args {
    const float *x, *weight, *bias;
    float *y, *states;
    const struct args_run *runs;
    int64_t x_stride, y_stride, state_stride;
    int32_t n_runs, n, width, silu;
};

/* ssm: as op ssm. A state: [head][dim][n_state]. n_state is a multiple of 32, at most
 * SSM_MAX_STATE. */
enum { SSM_THREADS = 128, SSM_MAX_STATE = 256 };
struct ssm_args {
    const float *x, *b, *c, *dt, *dt_bias, *a, *d;
    float *y, *states;
    const struct args_run *runs;
    int64_t x_stride, b_stride, c_stride, dt_stride, y_stride, state_stride;
    int32_t n_runs, n_head, dim, n_state, n_group;
};

/* delta: as op delta. A state: [value head][dim_k][dim_v]; dim_k a multiple of 32, at most
 * DELTA_MAX_DIM. */
enum { DELTA_THREADS = 256, DELTA_COLUMNS = 4, DELTA_MAX_DIM = 256 };
struct delta_args {
    const float *q, *k, *v, *gate, *beta, *dt_bias, *a;
    float *y, *states;
    const struct args_run *runs;
    int64_t q_stride, k_stride, v_stride, gate_stride, beta_stride, y_stride, state_stride;
    int32_t n_runs, n_head_k, n_head_v, dim_k, dim_v, tiled;
    float scale;
};

#endif
