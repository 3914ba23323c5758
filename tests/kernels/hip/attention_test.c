/* Attention on the emulator against double precision: paged, shuffled blocks full of stale NaN,
 * grouped heads, windows, sinks, soft cap, slopes, values inside keys, long sequences, every type
 * of cache; one row's bits with any others beside it. */
#include "kernels/half.h"
#include "kernels/kv.h"
#include "tests/kernels/hip/device.h"

extern const struct gpu_host_kernel attention_split_kernel, attention_split_q8_kernel,
    attention_split_wide_kernel, attention_split_one_kernel, attention_split_one_q8_kernel,
    attention_split_one_wide_kernel, attention_fold_kernel, attention_tile_kernel,
    attention_tile_q8_kernel, attention_tile_wide_kernel;

enum { MAX_ROWS = 19, BLOCK = 16 };
struct shape {
    int n_head, n_kv_head, dim_k, dim_v, n_rows;
    int positions[MAX_ROWS]; /* each row is of its own sequence */
    int first;               /* if not 0: n_rows rows of one sequence, from here */
    int window;
    float softcap;
    bool v_in_k, has_sinks, has_alibi;
    enum type type; /* of the cache */
};

/* Element (position, dimension) of a KV head. */
static size_t elem(const struct shape *s, int block, int head, int position, int d, bool is_v)
{
    size_t of_head = (size_t)BLOCK * (size_t)(s->dim_k + (s->v_in_k ? 0 : s->dim_v));
    size_t at = ((size_t)block * (size_t)s->n_kv_head + (size_t)head) * of_head;
    bool is_row = is_v && !s->v_in_k;
    return at + (is_row ? (size_t)(BLOCK * s->dim_k + position % BLOCK * s->dim_v + d)
                        : (size_t)(d * BLOCK + position % BLOCK));
}

/* A random number into element `at` of the cache, and what it is to kv. A Q8_0 tile's scales stand
 * before its bytes. */
static void put(const struct shape *s, uint8_t *cache, double *kv, size_t at, int position, int d,
                bool is_v, uint64_t *seed)
{
    float x = (float)test_uniform(seed);
    uint16_t half = s->type == TYPE_BF16 ? half_bf16_from_f32(x) : half_from_f32(x);
    if (s->type == TYPE_F32) {
        memcpy(cache + 4 * at, &x, 4);
        kv[at] = (double)x;
    } else if (s->type != TYPE_Q8_0) {
        memcpy(cache + 2 * at, &half, 2);
        kv[at] = (double)(s->type == TYPE_BF16 ? half_bf16_to_f32(half) : half_to_f32(half));
    } else {
        struct kv_layer l = {.type = TYPE_Q8_0,
                             .n_head = 1,
                             .dim_k = s->dim_k,
                             .dim_v = s->dim_v,
                             .v_in_k = s->v_in_k};
        size_t of_head = (size_t)BLOCK * (size_t)(s->dim_k + (s->v_in_k ? 0 : s->dim_v));
        uint8_t *tile = cache + at / of_head * kv_head_bytes(&l) +
                        (is_v ? kv_tile_bytes(TYPE_Q8_0, s->dim_k) : 0);
        size_t groups = kv_q8_groups(is_v ? s->dim_v : s->dim_k), slot = (size_t)(position % BLOCK);
        size_t scale_at = is_v ? slot * groups + (size_t)d / 32 : (size_t)d / 32 * BLOCK + slot;
        size_t in_tile = at % of_head - (is_v ? (size_t)(BLOCK * s->dim_k) : 0);
        /* One scale for each group, whichever of its numbers asks first. */
        uint16_t scale =
            half_from_f32(0.002f + 0.0001f * (float)((scale_at * 7 + at / of_head) % 61));
        int8_t q = (int8_t)(x * 127);
        memcpy(tile + 2 * scale_at, &scale, 2);
        memcpy(tile + 2 * BLOCK * groups + in_tile, &q, 1);
        kv[at] = (double)half_to_f32(scale) * q;
    }
}

static void exact_head(const struct shape *s, const double *kv, const int32_t *table,
                       const float *q, int position, int head, float scale, float sink, float slope,
                       double *y)
{
    int kv_head = head / (s->n_head / s->n_kv_head);
    int from = s->window > 0 ? MAX(0, position - s->window + 1) : 0;
    double *w = calloc((size_t)position + 1, sizeof *w);
    double sum = 0, largest = s->has_sinks ? (double)sink : -INFINITY;
    for (int p = from; p <= position; p++) {
        for (int d = 0; d < s->dim_k; d++) {
            w[p] += (double)q[d] * kv[elem(s, table[p / BLOCK], kv_head, p, d, false)];
        }
        w[p] *= (double)scale;
        w[p] = s->softcap > 0 ? (double)s->softcap * tanh(w[p] / (double)s->softcap) : w[p];
        w[p] += s->has_alibi ? (double)slope * (p - position) : 0;
        largest = fmax(largest, w[p]);
    }
    sum = s->has_sinks ? exp((double)sink - largest) : 0;
    memset(y, 0, (size_t)s->dim_v * sizeof *y);
    for (int p = from; p <= position; p++) {
        double e = exp(w[p] - largest);
        sum += e;
        for (int d = 0; d < s->dim_v; d++) {
            y[d] += e * kv[elem(s, table[p / BLOCK], kv_head, p, d, true)];
        }
    }
    for (int d = 0; d < s->dim_v; d++) {
        y[d] /= sum;
    }
    free(w);
}

static void launch(const struct attention_args *a, bool is_one)
{
    if (a->type == TYPE_F16 && is_one) {
        DEVICE_RUN(attention_split_one, a);
    } else if (a->type == TYPE_F16) {
        DEVICE_RUN(attention_split, a);
    } else if (a->type == TYPE_Q8_0 && is_one) {
        DEVICE_RUN(attention_split_one_q8, a);
    } else if (a->type == TYPE_Q8_0) {
        DEVICE_RUN(attention_split_q8, a);
    } else if (is_one) {
        DEVICE_RUN(attention_split_one_wide, a);
    } else {
        DEVICE_RUN(attention_split_wide, a);
    }
    if (a->n_splits > 1) {
        DEVICE_RUN(attention_fold, a);
    }
}

static void launch_tiles(const struct attention_args *a)
{
    if (a->type == TYPE_F16) {
        DEVICE_RUN(attention_tile, a);
    } else if (a->type == TYPE_Q8_0) {
        DEVICE_RUN(attention_tile_q8, a);
    } else {
        DEVICE_RUN(attention_tile_wide, a);
    }
}

/* The same rows in tiles: the same bits. */
static void check_tiles(struct attention_args a, const float *y)
{
    int32_t tiles[2 * MAX_ROWS], n = 0, of_tile = table_attention_rows(&a);
    for (int r = 0; r < a.n_rows; r += of_tile) {
        tiles[2 * n] = r;
        tiles[2 * n + 1] = MIN(of_tile, a.n_rows - r);
        n++;
    }
    size_t n_bytes = (size_t)a.n_rows * (size_t)a.y_stride * 4;
    void *dtiles = device_copy(tiles, (size_t)n * 8), *dy = emulator_alloc(n_bytes, 0);
    float *got = malloc(n_bytes);
    a.tiles = dtiles;
    a.n_tiles = n;
    a.part = NULL;
    a.y = dy;
    launch_tiles(&a);
    emulator_download(got, dy, n_bytes);
    CHECK(memcmp(got, y, n_bytes) == 0);
    emulator_free(dtiles);
    emulator_free(dy);
    free(got);
}

static void test(const struct shape *given)
{
    struct shape copy = *given, *s = &copy;
    bool is_run = s->first > 0;
    for (int r = 0; r < s->n_rows && is_run; r++) {
        s->positions[r] = s->first + r;
    }

    uint64_t seed = (uint64_t)(s->dim_k + s->n_head + s->positions[0]);
    int longest = 0, n_blocks = 1;
    for (int r = 0; r < s->n_rows; r++) {
        longest = MAX(longest, s->positions[r]);
    }
    int table_stride = longest / BLOCK + 1;
    static int32_t tables[MAX_ROWS * 2600];
    int32_t rows[MAX_ROWS];
    CHECK(s->n_rows * table_stride <= (int)COUNT_OF(tables));
    /* Blocks are dealt to the sequences in turn, from the end of the pool: never in order. */
    int pool = (is_run ? 1 : s->n_rows) * table_stride + 1;
    for (int r = 0; r < s->n_rows; r++) {
        rows[r] = is_run ? 0 : s->n_rows - 1 - r;
        for (int b = 0; b < table_stride && (!is_run || r == s->n_rows - 1); b++) {
            bool is_used = b <= s->positions[r] / BLOCK;
            tables[rows[r] * table_stride + b] = is_used ? pool - n_blocks : -1;
            n_blocks += is_used;
        }
    }
    size_t n_kv = (size_t)pool * elem(s, 1, 0, 0, 0, false);
    struct kv_layer layer = {.type = s->type,
                             .n_head = s->n_kv_head,
                             .dim_k = s->dim_k,
                             .dim_v = s->dim_v,
                             .v_in_k = s->v_in_k};
    size_t n_bytes = (size_t)pool * kv_block_bytes(&layer);
    double *kv = malloc(n_kv * sizeof *kv);
    uint8_t *cache = malloc(n_bytes);
    for (size_t i = 0; i < n_bytes; i++) {
        cache[i] = i % 2 ? 0x7f : 0xff; /* not a number, in every type */
    }
    for (int r = is_run ? s->n_rows - 1 : 0; r < s->n_rows; r++) {
        for (int p = 0; p <= s->positions[r]; p++) {
            int block = tables[rows[r] * table_stride + p / BLOCK];
            for (int h = 0; h < s->n_kv_head; h++) {
                for (int d = 0; d < s->dim_k; d++) {
                    put(s, cache, kv, elem(s, block, h, p, d, false), p, d, false, &seed);
                }
                for (int d = 0; d < s->dim_v && !s->v_in_k; d++) {
                    put(s, cache, kv, elem(s, block, h, p, d, true), p, d, true, &seed);
                }
            }
        }
    }
    int q_n = s->n_head * s->dim_k, y_n = s->n_head * s->dim_v;
    float *q = device_random((int64_t)s->n_rows * q_n, 2, &seed);
    float *sinks = device_random(s->n_head, 2, &seed),
          *alibi = device_random(s->n_head, 0.1f, &seed);
    struct attention_args a = {.q_stride = q_n,
                               .y_stride = y_n,
                               .table_stride = table_stride,
                               .n_rows = s->n_rows,
                               .n_head = s->n_head,
                               .n_kv_head = s->n_kv_head,
                               .dim_k = s->dim_k,
                               .dim_v = s->dim_v,
                               .v_in_k = s->v_in_k,
                               .n_splits = longest / ATTENTION_SPLIT + 1,
                               .window = s->window,
                               .scale = 0.3f,
                               .softcap = s->softcap,
                               .type = (int32_t)s->type};
    size_t n_part = (size_t)(s->n_rows * s->n_head * a.n_splits) * (size_t)(2 + s->dim_v);
    void *dq = device_copy(q, (size_t)(s->n_rows * q_n) * 4), *dkv = device_copy(cache, n_bytes);
    void *dt = device_copy(tables, (size_t)(s->n_rows * table_stride) * 4);
    void *dr = device_copy(rows, (size_t)s->n_rows * 4);
    void *dp = device_copy(s->positions, (size_t)s->n_rows * 4);
    void *dsinks = device_copy(sinks, (size_t)s->n_head * 4);
    void *dalibi = device_copy(alibi, (size_t)s->n_head * 4);
    void *dpart = emulator_alloc(n_part * 4, 0);
    void *dy = emulator_alloc((size_t)(s->n_rows * y_n) * 4, 0);
    a.q = dq;
    a.kv = dkv;
    a.tables = dt;
    a.row_table = dr;
    a.positions = dp;
    a.part = dpart;
    a.sinks = s->has_sinks ? dsinks : NULL;
    a.alibi = s->has_alibi ? dalibi : NULL;
    a.y = dy;
    launch(&a, false);
    float *y = malloc((size_t)(s->n_rows * y_n) * 4), *alone = malloc((size_t)y_n * 4);
    double *exact = malloc((size_t)y_n * sizeof *exact);
    emulator_download(y, dy, (size_t)(s->n_rows * y_n) * 4);
    for (int r = 0; r < s->n_rows; r++) {
        for (int h = 0; h < s->n_head; h++) {
            exact_head(s, kv, tables + rows[r] * table_stride, q + r * q_n + h * s->dim_k,
                       s->positions[r], h, a.scale, sinks[h], alibi[h], exact + h * s->dim_v);
        }
        device_check("attention", y + r * y_n, exact, y_n, 1e-5);
    }
    if (is_run) {
        check_tiles(a, y);
    }
    /* The last row alone, a head a block, with fewer splits where its position allows. */
    int last = s->n_rows - 1;
    a.q = (float *)dq + last * q_n;
    a.row_table = (int32_t *)dr + last;
    a.positions = (int32_t *)dp + last;
    a.n_splits = s->positions[last] / ATTENTION_SPLIT + 1;
    a.n_rows = 1;
    launch(&a, true);
    emulator_download(alone, dy, (size_t)y_n * 4);
    CHECK(memcmp(alone, y + last * y_n, (size_t)y_n * 4) == 0);

    void *device[] = {dq, dkv, dt, dr, dp, dsinks, dalibi, dpart, dy};
    for (size_t i = 0; i < COUNT_OF(device); i++) {
        emulator_free(device[i]);
    }
    void *host[] = {kv, cache, q, sinks, alibi, y, alone, exact};
    for (size_t i = 0; i < COUNT_OF(host); i++) {
        free(host[i]);
    }
}

static void test_types(const struct shape *s, const enum type *types, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct shape of_type = *s;
        of_type.type = types[i];
        test(&of_type);
    }
}

/* Keys and values written, and all rotated, by attention itself: the bits of kv_write and
 * attention, in the cache too. */
static void test_write(enum type type, int n_head, int n_kv_head, bool v_in_k, bool is_one)
{
    enum { ROWS = 2, DIM_K = 64, DIM_V = 48, N_ROT = 24, BLOCKS = 40 };
    extern const struct gpu_host_kernel kv_write_kernel;
    static const int32_t positions[ROWS] = {255, 300}, row_table[ROWS] = {1, 0};
    uint64_t seed = (uint64_t)n_head;
    int n_q = n_head * DIM_K, n_k = n_kv_head * DIM_K, n_v = n_kv_head * DIM_V;
    int32_t tables[ROWS * BLOCKS / 2];
    for (int i = 0; i < ROWS * BLOCKS / 2; i++) {
        tables[i] = BLOCKS - 1 - i;
    }
    struct kv_layer l = {.type = type, .n_head = n_kv_head, .dim_k = DIM_K, .dim_v = DIM_V,
                         .v_in_k = v_in_k};
    size_t n_cache = BLOCKS * kv_block_bytes(&l), n_y = (size_t)(ROWS * n_head * DIM_V) * 4;
    uint8_t *cache = malloc(n_cache), *got[2] = {malloc(n_cache), malloc(n_cache)};
    for (size_t i = 0; i < n_cache; i++) {
        cache[i] = (uint8_t)(test_random(&seed) % 60); /* small numbers, in every type */
    }
    float *x[4] = {device_random(ROWS * n_q, 2, &seed), device_random(ROWS * n_k, 2, &seed),
                   device_random(ROWS * n_v, 2, &seed), device_random(ROWS * N_ROT, 1, &seed)};
    void *dk = device_copy(x[1], (size_t)(ROWS * n_k) * 4);
    void *dv = device_copy(x[2], (size_t)(ROWS * n_v) * 4);
    void *drope = device_copy(x[3], ROWS * N_ROT * 4), *dt = device_copy(tables, sizeof tables);
    void *dr = device_copy(row_table, sizeof row_table);
    void *dp = device_copy(positions, sizeof positions);
    void *dpart = emulator_alloc((size_t)(ROWS * n_head * 2) * (2 + DIM_V) * 4, 0);
    float *y[2] = {malloc(n_y), malloc(n_y)};
    for (int is_joined = 0; is_joined < 2; is_joined++) {
        void *dq = device_copy(x[0], (size_t)(ROWS * n_q) * 4);
        void *dcache = device_copy(cache, n_cache);
        void *dy = emulator_alloc(n_y, 0);
        struct kv_write_args w = {.k = dk, .v = v_in_k ? NULL : dv,
                                  .q = dq, .table = drope, .kv = dcache,
                                  .tables = dt, .row_table = dr, .positions = dp, .k_stride = n_k,
                                  .v_stride = n_v, .q_stride = n_q, .table_stride = N_ROT,
                                  .tables_stride = BLOCKS / 2, .n_rows = ROWS,
                                  .type = (int32_t)type,
                                  .n_head = n_head, .n_kv_head = n_kv_head, .dim_k = DIM_K,
                                  .dim_v = DIM_V, .v_in_k = v_in_k, .n_rot = N_ROT};
        struct attention_args a = {.q = dq, .kv = dcache, .tables = dt, .row_table = dr,
                                   .positions = dp, .part = dpart, .y = dy, .q_stride = n_q,
                                   .y_stride = n_head * DIM_V, .table_stride = BLOCKS / 2,
                                   .n_rows = ROWS, .type = (int32_t)type, .n_head = n_head,
                                   .n_kv_head = n_kv_head, .dim_k = DIM_K, .dim_v = DIM_V,
                                   .v_in_k = v_in_k, .n_splits = 2, .scale = 0.3f};
        if (is_joined) {
            a.write = w;
        } else {
            DEVICE_RUN(kv_write, &w);
        }
        launch(&a, is_one);
        emulator_download(y[is_joined], dy, n_y);
        emulator_download(got[is_joined], dcache, n_cache);
        emulator_free(dq);
        emulator_free(dcache);
        emulator_free(dy);
    }
    CHECK(memcmp(got[0], cache, n_cache) != 0 && memcmp(got[0], got[1], n_cache) == 0);
    CHECK(memcmp(y[0], y[1], n_y) == 0);
    void *device[] = {dk, dv, drope, dt, dr, dp, dpart};
    for (size_t i = 0; i < COUNT_OF(device); i++) {
        emulator_free(device[i]);
    }
    void *host[] = {cache, got[0], got[1], x[0], x[1], x[2], x[3], y[0], y[1]};
    for (size_t i = 0; i < COUNT_OF(host); i++) {
        free(host[i]);
    }
}

int main(int argc, char **argv)
{
    static const struct shape shapes[] = {
        {.n_head = 1, .n_kv_head = 1, .dim_k = 8, .dim_v = 8, .n_rows = 1, .positions = {0}},
        {.n_head = 2, .n_kv_head = 2, .dim_k = 64, .dim_v = 64, .n_rows = 2, .positions = {15, 16}},
        {.n_head = 7,
         .n_kv_head = 1,
         .dim_k = 64,
         .dim_v = 64,
         .n_rows = 3,
         .positions = {30, 256, 255}},
        {.n_head = 6,
         .n_kv_head = 2,
         .dim_k = 80,
         .dim_v = 80,
         .n_rows = 2,
         .positions = {600, 33},
         .window = 300,
         .softcap = 20},
        {.n_head = 4,
         .n_kv_head = 2,
         .dim_k = 40,
         .dim_v = 24,
         .n_rows = 2,
         .positions = {513, 290},
         .window = 17,
         .has_sinks = true,
         .has_alibi = true},
        {.n_head = 3,
         .n_kv_head = 1,
         .dim_k = 72,
         .dim_v = 64,
         .n_rows = 1,
         .positions = {300},
         .v_in_k = true},
        {.n_head = 1, .n_kv_head = 1, .dim_k = 128, .dim_v = 128, .n_rows = 1, .positions = {2304}},
        {.n_head = 1, .n_kv_head = 1, .dim_k = 8, .dim_v = 8, .n_rows = 3, .first = 15},
        {.n_head = 14, .n_kv_head = 2, .dim_k = 64, .dim_v = 64, .n_rows = 5, .first = 254},
        {.n_head = 4,
         .n_kv_head = 1,
         .dim_k = 80,
         .dim_v = 136,
         .n_rows = 6,
         .first = 510,
         .window = 258,
         .softcap = 20,
         .has_sinks = true,
         .has_alibi = true},
        {.n_head = 34,
         .n_kv_head = 2,
         .dim_k = 40,
         .dim_v = 32,
         .n_rows = 2,
         .first = 70,
         .window = 9},
        {.n_head = 1, .n_kv_head = 1, .dim_k = 256, .dim_v = 256, .n_rows = 19, .first = 1},
        {.n_head = 2,
         .n_kv_head = 1,
         .dim_k = 72,
         .dim_v = 64,
         .n_rows = 9,
         .first = 250,
         .v_in_k = true},
    };
    /* Past 2,048 and 32,768, in splits and in tiles. */
    static const struct shape past[] = {
        {.n_head = 2, .n_kv_head = 1, .dim_k = 40, .dim_v = 40, .n_rows = 1, .positions = {2305}},
        {.n_head = 2, .n_kv_head = 1, .dim_k = 24, .dim_v = 40, .n_rows = 3, .first = 2303},
    };
    static const struct shape far[] = {
        {.n_head = 1, .n_kv_head = 1, .dim_k = 16, .dim_v = 16, .n_rows = 1, .positions = {33000}},
        {.n_head = 2, .n_kv_head = 1, .dim_k = 8, .dim_v = 8, .n_rows = 3, .first = 32767},
        {.n_head = 1,
         .n_kv_head = 1,
         .dim_k = 8,
         .dim_v = 8,
         .n_rows = 2,
         .first = 40000,
         .window = 33000},
    };
    static const enum type types[] = {TYPE_F16, TYPE_Q8_0, TYPE_BF16, TYPE_F32};
    bool is_long = argc > 1 && strcmp(argv[1], "--long") == 0;
    for (size_t i = 0; i < COUNT_OF(shapes) && !is_long; i++) {
        test_types(&shapes[i], types, i % 2 == 1 ? COUNT_OF(types) : 1);
    }
    for (size_t i = 0; i < COUNT_OF(past) && !is_long; i++) {
        test_types(&past[i], types, COUNT_OF(types));
    }
    for (size_t i = 0; i < COUNT_OF(far) && is_long; i++) {
        test_types(&far[i], types, COUNT_OF(types));
    }
    for (size_t i = 2; i < COUNT_OF(types) && !is_long; i++) {
        test_write(types[i], 5, 1, false, false);
        test_write(types[i], 5, 1, false, true);
    }
    if (!is_long) {
        test_write(TYPE_F16, 7, 1, false, false);
        test_write(TYPE_F16, 4, 2, true, true);
    }
    return 0;
}
