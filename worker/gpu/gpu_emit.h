/* From ops to launches: which kernels do an op, with which arguments. Between the engine
 * (gpu_engine*.c) and gpu_emit*.c. */
#ifndef WORKER_GPU_GPU_EMIT_H
#define WORKER_GPU_GPU_EMIT_H

#include "worker/gpu/door.h"
#include "worker/gpu/gpu_weight.h"

enum {
    GPU_EMIT_MAX_TABLES = 8,
    /* The bits are the same on either side of these. */
    GPU_EMIT_GEMV_ROWS = 16,    /* more rows are multiplied by gemm */
    GPU_EMIT_EXPERT_SLOTS = 64, /* more slots are sorted by expert and multiplied on matrix units */
    GPU_EMIT_TILE_ROWS = 8,     /* so many rows of a sequence and more are attended to in tiles */
    GPU_EMIT_MAX_PIECES = 64,
};

/* Rows of a step that stand together and are attended to one by one. */
struct gpu_piece {
    int32_t first, n;
};

/* What the host gives to a step: copied to the device at once. Addresses on the device. */
struct gpu_inputs {
    const int32_t *tokens, *positions, *row_table, *out_rows;
    const struct args_run *runs; /* of recurrent ops */
    int32_t n_runs;
    const float *rope[GPU_EMIT_MAX_TABLES]; /* by number of the rope_table op */
    const int32_t *tiles[GPU_EMIT_MAX_TABLES]; /* for the number of rows in tile_rows */
    int32_t n_tiles[GPU_EMIT_MAX_TABLES];
};

struct gpu_emit {
    struct door *door;
    const struct program *p;
    const struct gpu_weights *weights;
    const unsigned char *is_unread; /* by buffer: no launch of its own reads it */
    const int32_t *rope_of;         /* by buffer: number of the rope_table op that makes it; -1 */
    struct gpu_inputs in;
    int64_t n_rows, n_out;
    bool is_batch; /* products of several rows go to matrix units */
    bool is_inner; /* ops go into the kernels of others, where these can */
    int32_t tile_rows[GPU_EMIT_MAX_TABLES]; /* sizes of tiles that the attention ops want */
    int32_t n_tile_rows;
    struct gpu_piece pieces[GPU_EMIT_MAX_PIECES]; /* rows that are in no tile */
    int32_t n_pieces;
    const int32_t *tables; /* block tables, by slot of the sequence */
    int64_t max_blocks;
    float *part; /* of attention */
    size_t part_bytes;
    int32_t n_splits;
    int64_t state_floats; /* of a sequence's slot: the states of all layers */
    const int32_t *heads; /* 0, 1, 2 ... */
    void *heads_scratch;  /* gpu_emit_heads_bytes */
};

/* Launches everything that the group of ops at index i does (op.n_joined). */
void gpu_emit(const struct gpu_emit *t, size_t i);

/* Memory that op heads wants for so many rows, and the largest number of heads; 0: there is no
 * such op. */
size_t gpu_emit_heads_bytes(const struct program *p, int64_t n_rows, int32_t *ret_n_heads);

/* Rows of a tile of this op; 0: its heads are too large for tiles. */
int32_t gpu_emit_tile_rows(const struct program *p, const struct op_attention *o);

/* Memory that attention wants for rows of so many splits; at least for one row. */
size_t gpu_emit_part_bytes(const struct program *p, int64_t n_rows, int64_t n_splits, size_t limit);

#endif
