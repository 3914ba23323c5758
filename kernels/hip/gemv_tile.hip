/* Products of packed weights with two to sixteen tokens on matrix units: gemv's sums in gemv's order, so gemv's bits. A block
 * does a panel of 32 rows, of both matrices where gate and up go together; a wave every 16th segment of 256 columns. Codes go
 * from memory to the matrix unit's registers as they stand: a word of a panel is 16 bytes of each row, which are the columns
 * that a lane holds of that row, in whatever way the target deals them out. The next piece is asked for before one is used.
 *
 * For a group of 32 weights of Q4_0 and 8 tokens: 18 bytes, 2 products of 16 x 16 x 32, and for a lane 8 sums of three
 * operations each, where gemv has 8 times 14. */
#include "kernels/hip/act.h"
#include "kernels/hip/activate.h"
#include "kernels/hip/group.h"

#define gemv_tile_q4_0_args matmul_args
#define gemv_tile_q8_0_args matmul_args
#define gemv_tile_q4_k_args matmul_args
#define gemv_tile_q6_k_args matmul_args

enum {
    GEMV_TILE_WAVES = GEMV_TILE_THREADS / GPU_WAVE,
    GEMV_TILE_FEW = 8,
    GEMV_TILE_SLOTS = 2 * GEMV_TILE_WAVES * GEMV_TILE_FEW, /* of a unit and token each */
    GEMV_TILE_PITCH = GEMV_ROWS + 4 /* of a slot's sums: lanes that store at once meet few banks twice */
};

/* What a block does: units of 256 columns, first those of the first matrix, then those of the second, which stands `second`
 * bytes further on. Pointers are the panel's. */
struct gemv_tile_work {
    const uint8_t *words;
    int64_t scale_at, super_at, second;
    int n_chunks, n_segments, n_units;
    const int8_t *x;
    int64_t x_bytes;
    int n_cols, n;
};

/* 64 columns of the panel: what a lane needs of their codes, and the scales of row gpu_lane(). */
struct gemv_tile_piece {
    struct gpu_frag_i8 words[4][2]; /* [word][half of the panel] */
    uint32_t upper[4][2][GPU_FRAG_ROWS];
    uint32_t scale, super;
};
/* Element i of those that count. */
GPU_FN int gemv_tile_at(bool is_few, int i)
{
    return is_few ? gpu_few(i) : i;
}
/* Which token stands in row r of the tile; more than there are: none. */
GPU_FN int gemv_tile_token(bool is_few, int r)
{
    return is_few ? gpu_few_row(r) : r;
}

/* Where a chunk of the panel stands, for a lane: words of row gpu_frag_row(0), scales of row gpu_lane(). */
struct gemv_tile_place {
    const int8_t *words;
    const uint8_t *uppers, *scales, *supers;
};
/* Chunk c of unit u, or, beyond the last, of the first; a second chunk that is missing is the first once more. */
GPU_FN void gemv_tile_find(const struct gemv_tile_work *k, int type, int u, int c,
                           struct gemv_tile_place *ret)
{
    u = u < k->n_units ? u : 0;
    int segment = u >= k->n_segments ? u - k->n_segments : u, chunk = 2 * segment + c;
    chunk = chunk < k->n_chunks ? chunk : k->n_chunks - 1;
    const uint8_t *words = k->words + (u >= k->n_segments ? k->second : 0);
    const uint8_t *row =
        words + (int64_t)chunk * (ARGS_PANEL * group_words(type) * 16) + gpu_frag_row(0) * 16;
    ret->words = gpu_frag_at((const int8_t *)row);
    ret->uppers = row + 4 * ARGS_PANEL * 16;
    ret->scales = words + k->scale_at + (chunk * ARGS_PANEL + gpu_lane()) * 8;
    ret->supers = words + k->super_at + (segment * ARGS_PANEL + gpu_lane()) * 4;
}

/* The first or second half of a chunk. */
GPU_FN void gemv_tile_load(const struct gemv_tile_place *place, int type, int half,
                           struct gemv_tile_piece *ret)
{
    const int8_t *low = place->words + half * (type == TYPE_Q8_0 ? 4 : 2) * ARGS_PANEL * 16;
    GPU_UNROLL
    for (int j = 0; j < 2; j++) {
        GPU_UNROLL
        for (int i = 0; i < (type == TYPE_Q8_0 ? 4 : 2); i++) {
            const int8_t *rows[GPU_FRAG_ROWS];
            GPU_UNROLL
            for (int r = 0; r < GPU_FRAG_ROWS; r++) {
                int row = i * ARGS_PANEL + 16 * j + (gpu_frag_row(r) - gpu_frag_row(0));
                rows[r] = low + row * 16;
            }
            ret->words[i][j] = gpu_frag_i8_at(rows, GPU_FRAG_ROWS);
        }
        GPU_UNROLL
        for (int r = 0; r < (type == TYPE_Q6_K ? GPU_FRAG_ROWS : 0); r++) {
            int row = 16 * j + (gpu_frag_row(r) - gpu_frag_row(0));
            struct gpu_16 v =
                gpu_load16(place->uppers + (half * ARGS_PANEL + row) * 16);
            GPU_UNROLL
            for (int i = 0; i < 4; i++) {
                ret->upper[i][j][r] = v.w[i];
            }
        }
    }
    ret->scale = ((const uint32_t *)(const void *)place->scales)[half];
    ret->super = group_has_super(type) ? *(const uint32_t *)(const void *)place->supers : 0;
}

/* Group g of a piece: its codes, offset not taken off, of half j of the panel. */
GPU_FN void gemv_tile_codes(const struct gemv_tile_piece *piece, int type, int g, int j,
                            struct gpu_frag_i8 b[2])
{
    GPU_UNROLL
    for (int h = 0; h < 2; h++) {
        GPU_UNROLL
        for (int i = 0; i < GPU_FRAG_WORDS; i++) {
            if (type == TYPE_Q8_0) {
                b[h].w[i] = piece->words[2 * g + h][j].w[i];
                continue;
            }
            b[h].w[i] = piece->words[g][j].w[i] >> 4 * h & 0x0f0f0f0fu;
            if (type == TYPE_Q6_K) {
                uint32_t bits = piece->upper[2 * g + h][j][i % GPU_FRAG_ROWS] >> 2 * gpu_frag_quad(i);
                b[h].w[i] |= (bits & 0x03030303u) << 4;
            }
        }
    }
}

/* The scales of a piece to shared memory: of each of its groups every row's scales of its halves, or its scale and minimum. */
enum { GEMV_TILE_SCALES = 4 * GEMV_ROWS };
GPU_FN void gemv_tile_scales(const struct gemv_tile_piece *piece, int type, float *scales)
{
    gpu_wave_sync(); /* what stood there has been used */
    GPU_UNROLL
    for (int g = 0; g < 2; g++) {
        struct group of;
        group_scales(type, piece->scale >> 16 * g & 0xffff, piece->super, &of);
        scales[2 * g * GEMV_ROWS + gpu_lane()] = of.scale[0];
        if (group_has_halves(type) || group_has_min(type)) {
            scales[(2 * g + 1) * GEMV_ROWS + gpu_lane()] =
                group_has_min(type) ? of.min[0] : of.scale[1];
        }
    }
    gpu_wave_sync();
}

/* A group of x: of the tokens whose rows of bytes and of scales are given. */
struct gemv_tile_x {
    struct gpu_frag_i8 q[2];
    struct args_act of[8];
};
GPU_FN void gemv_tile_x_load(bool is_few, const int8_t *const rows[GPU_FRAG_ROWS],
                             const int8_t *const of_x[8], int group, struct gemv_tile_x *ret)
{
    GPU_UNROLL
    for (int h = 0; h < 2; h++) {
        const int8_t *of[GPU_FRAG_ROWS];
        GPU_UNROLL
        for (int r = 0; r < GPU_FRAG_ROWS; r++) {
            of[r] = rows[r] + group * ARGS_GROUP + 16 * h;
        }
        ret->q[h] = gpu_frag_i8_at(of, is_few ? GPU_FEW_ROWS : GPU_FRAG_ROWS);
    }
    GPU_UNROLL
    for (int i = 0; i < (is_few ? 4 : 8); i++) {
        struct gpu_8 v = ((const struct gpu_8 *)(const void *)of_x[i])[group];
        __builtin_memcpy(&ret->of[i], &v, sizeof v);
    }
}

/* Adds group g's products. */
GPU_FN void gemv_tile_group(const struct gemv_tile_piece *piece, int type, bool is_few, int g,
                            const struct gemv_tile_x *x, const float *scales, float sum[2][8])
{
    bool has_halves = group_has_halves(type), has_min = group_has_min(type);
    int n = is_few ? 4 : 8, offset = group_offset(type);
    struct gpu_acc_i32 start[2];
    GPU_UNROLL
    for (int h = 0; h < 2; h++) {
        GPU_UNROLL
        for (int i = 0; i < 8; i++) {
            start[h].x[i] = GROUP_START;
        }
        GPU_UNROLL
        for (int i = 0; i < n; i++) {
            int of_x = has_halves ? x->of[i].sum[h] : x->of[i].sum[0] + x->of[i].sum[1];
            start[h].x[gemv_tile_at(is_few, i)] = GROUP_START - offset * of_x;
        }
    }
    GPU_UNROLL
    for (int j = 0; j < 2; j++) {
        struct gpu_frag_i8 b[2];
        gemv_tile_codes(piece, type, g, j, b);
        float scale[2][GPU_ACC_COLS];
        GPU_UNROLL
        for (int c = 0; c < 2 * GPU_ACC_COLS; c++) {
            int at = c / GPU_ACC_COLS, row = 16 * j + gpu_acc_column(c % GPU_ACC_COLS);
            if (at == 0 || has_halves || has_min) {
                scale[at][c % GPU_ACC_COLS] = scales[at * GEMV_ROWS + row];
            }
        }
        GPU_UNROLL
        for (int h = 0; h < (has_halves ? 2 : 1); h++) {
            struct gpu_acc_i32 dot;
            if (has_halves) {
                gpu_mma_i8_from(x->q[h], b[h], &start[h], &dot);
            } else {
                gpu_mma_i8_32(x->q, b, &start[0], &dot);
            }
            GPU_UNROLL
            for (int i = 0; i < n; i++) {
                int e = gemv_tile_at(is_few, i), c = gpu_acc_which(e);
                sum[j][i] = group_step(sum[j][i], group_dot(dot.x[e]), scale[has_halves ? h : 0][c],
                                       has_min, has_min ? scale[1][c] : 0, x->of[i].scale,
                                       x->of[i].sum[0] + x->of[i].sum[1]);
            }
        }
    }
}

/* The wave's sums over units from + wave, then every GEMV_TILE_WAVES further on, below end: those of unit u and token t to
 * slot (u - from) * n + t. */
GPU_FN void gemv_tile_units(const struct gemv_tile_work *k, int type, bool is_few, int from, int end,
                            float *scales, float *sums)
{
    int wave = gpu_uniform(gpu_thread() / GPU_WAVE);
    int n = is_few ? 4 : 8, last = k->n - 1;
    uint32_t rows[GPU_FRAG_ROWS], of_x[8]; /* bytes from x on: 16 rows are less than 2^32 */
    GPU_UNROLL
    for (int r = 0; r < GPU_FRAG_ROWS; r++) {
        int token = gemv_tile_token(is_few, gpu_frag_row(r));
        rows[r] = (uint32_t)((token < last ? token : last) * k->x_bytes);
    }
    GPU_UNROLL
    for (int i = 0; i < n; i++) {
        int token = gemv_tile_token(is_few, gpu_acc_row(gemv_tile_at(is_few, i)));
        of_x[i] = (uint32_t)((token < last ? token : last) * k->x_bytes + k->n_cols);
    }
    struct gemv_tile_place place;
    struct gemv_tile_piece pieces[2];
    gemv_tile_find(k, type, from + wave, 0, &place);
    gemv_tile_load(&place, type, 0, &pieces[0]);
    for (int u = from + wave; u < end; u += GEMV_TILE_WAVES) {
        float sum[2][8] = {{0, 0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0}};
        int segment = u < k->n_segments ? u : u - k->n_segments;
        GPU_LOOP
        for (int c = 0; c < 2; c++) {
            const int8_t *at[GPU_FRAG_ROWS], *of[8]; /* x of this chunk */
            int group = 4 * (2 * segment + c);
            GPU_UNROLL
            for (int r = 0; r < GPU_FRAG_ROWS; r++) {
                at[r] = gpu_frag_at(k->x + (rows[r] + (uint32_t)(group * ARGS_GROUP)));
            }
            GPU_UNROLL
            for (int i = 0; i < n; i++) {
                of[i] = k->x + (of_x[i] + (uint32_t)group * (uint32_t)sizeof(struct args_act));
            }
            GPU_UNROLL
            for (int half = 0; half < 2; half++) {
                if (half == 1) {
                    gemv_tile_find(k, type, u + c * GEMV_TILE_WAVES, 1 - c, &place);
                }
                gpu_keep_order();
                gemv_tile_load(&place, type, 1 - half, &pieces[1 - half]);
                if (group < 4 * k->n_chunks) {
                    gemv_tile_scales(&pieces[half], type, scales);
                    GPU_UNROLL
                    for (int g = 0; g < 2; g++) {
                        struct gemv_tile_x x;
                        gemv_tile_x_load(is_few, at, of, 2 * half + g, &x);
                        gemv_tile_group(&pieces[half], type, is_few, g, &x,
                                        scales + 2 * g * GEMV_ROWS, sum);
                        if (group_has_halves(type)) {
                            gpu_keep_order();
                        }
                    }
                }
            }
        }
        GPU_UNROLL
        for (int i = 0; i < n; i++) {
            int e = gemv_tile_at(is_few, i), token = gemv_tile_token(is_few, gpu_acc_row(e));
            GPU_UNROLL
            for (int j = 0; j < 2 && token < k->n; j++) {
                sums[((u - from) * k->n + token) * GEMV_TILE_PITCH + 16 * j + gpu_acc_col(e)] =
                    sum[j][i];
            }
        }
    }
}

GPU_FN void gemv_tile_run(const struct matmul_args a, int type)
{
    GPU_SHARED(float, sums, GEMV_TILE_SLOTS * GEMV_TILE_PITCH);
    GPU_SHARED(float, scales, GEMV_TILE_WAVES * GEMV_TILE_SCALES);
    int wave = gpu_uniform(gpu_thread() / GPU_WAVE), lane = gpu_lane();
    float *own = scales + wave * GEMV_TILE_SCALES;
    bool is_gated = a.glu != MATMUL_NO_GLU;
    int part = 0, panel = gpu_block_x();
    while (part + 1 < a.n_w && !is_gated &&
           panel >= (a.w[part].n_rows + GEMV_ROWS - 1) / GEMV_ROWS) {
        panel -= (a.w[part].n_rows + GEMV_ROWS - 1) / GEMV_ROWS;
        part++;
    }
    int first = gpu_block_y() * GEMV_TILE_TOKENS;
    int n = a.n_tokens - first < GEMV_TILE_TOKENS ? a.n_tokens - first : GEMV_TILE_TOKENS;
    int n_segments = (a.n_cols + ARGS_SEGMENT - 1) / ARGS_SEGMENT;
    int n_chunks = (a.n_cols + ARGS_CHUNK - 1) / ARGS_CHUNK;
    const struct args_weight *w = &a.w[part];
    const uint8_t *data = w->data;
    int64_t at = (int64_t)panel * ARGS_PANEL;
    const struct gemv_tile_work k = {
        .words = data + at * n_chunks * (group_words(type) * 16),
        .scale_at = w->scale_at + at * n_chunks * (8 - group_words(type) * 16),
        .super_at = w->super_at + at * (n_segments * 4 - n_chunks * group_words(type) * 16),
        .second = is_gated ? a.w[1].data - data : 0,
        .n_chunks = n_chunks, .n_segments = n_segments,
        .n_units = is_gated ? 2 * n_segments : n_segments,
        .x = (const int8_t *)a.x + first * a.x_bytes, .x_bytes = a.x_bytes, .n_cols = a.n_cols,
        .n = n};
    int per_round = GEMV_TILE_SLOTS / n / GEMV_TILE_WAVES * GEMV_TILE_WAVES;
    float total[2] = {0, 0}; /* of token `wave`, of the gate and the other */
    for (int from = 0; from < k.n_units; from += per_round) {
        int end = from + per_round < k.n_units ? from + per_round : k.n_units;
        if (n <= GEMV_TILE_FEW) {
            gemv_tile_units(&k, type, true, from, end, own, sums);
        } else {
#ifndef FEWONLY
            gemv_tile_units(&k, type, false, from, end, own, sums);
#endif
        }
        gpu_barrier();
        for (int u = from; u < end && wave < n; u++) {
            float sum = sums[((u - from) * n + wave) * GEMV_TILE_PITCH + lane];
            total[0] += u < n_segments ? sum : 0;
            total[1] += u < n_segments ? 0 : sum;
        }
        gpu_barrier();
    }
    if (wave >= n) {
        return;
    }
    int row = panel * GEMV_ROWS + lane, n_rows = a.w[part].n_rows;
    GPU_UNROLL
    for (int m = 0; m < 2; m++) {
        const float *bias = a.bias[m == 0 ? part : 1];
        if (bias && row < n_rows && (m == 0 || is_gated)) {
            total[m] += bias[row];
        }
    }
    float y = total[0];
    if (is_gated) {
        y = activate_gated(a.glu, total[0], total[1], a.alpha, a.limit);
        if (a.act) {
            act_store(a.act + (first + wave) * a.act_stride, n_rows, panel * GEMV_ROWS, y);
        }
    }
    if (a.y[part] && row < n_rows) {
        if (a.add && part == 0) {
            y += a.add[(first + wave) * a.add_stride + row];
        }
        a.y[part][(first + wave) * a.y_stride[part] + row] = y;
    }
}

GPU_KERNEL(gemv_tile_q4_0, GEMV_TILE_THREADS)
{
    gemv_tile_run(a, TYPE_Q4_0);
}
GPU_KERNEL(gemv_tile_q8_0, GEMV_TILE_THREADS)
{
    gemv_tile_run(a, TYPE_Q8_0);
}
GPU_KERNEL(gemv_tile_q4_k, GEMV_TILE_THREADS)
{
    gemv_tile_run(a, TYPE_Q4_K);
}
GPU_KERNEL(gemv_tile_q6_k, GEMV_TILE_THREADS)
{
    gemv_tile_run(a, TYPE_Q6_K);
}
