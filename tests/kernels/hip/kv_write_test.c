/* kv_write and copy on the emulator: every value in its place of the paged cache, rotated or not,
 * and nothing else touched. */
#include "kernels/cpu/kv_q8.h"
#include "kernels/half.h"
#include "tests/kernels/hip/device.h"

extern const struct gpu_host_kernel kv_write_kernel, kv_write_q8_kernel, copy_kernel;

enum { BLOCK = 16, ROWS = 3, BLOCKS = 6 };

static double rotated(const float *x, const float *table, int n_rot, bool adjacent, int d)
{
    int n_pairs = n_rot / 2;
    if (d >= n_rot) {
        return (double)x[d];
    }
    int pair = adjacent ? d / 2 : d % n_pairs, is_second = adjacent ? d % 2 : d / n_pairs;
    double u = (double)x[adjacent ? 2 * pair : pair];
    double v = (double)x[adjacent ? 2 * pair + 1 : pair + n_pairs];
    double c = (double)table[pair], s = (double)table[n_pairs + pair];
    return is_second ? u * s + v * c : u * c - v * s;
}

static void check_half(uint16_t got, double exact)
{
    double error = fabs((double)half_to_f32(got) - exact);
    if (!(error <= 6e-4 * fabs(exact) + 1e-6)) {
        TEST_FAIL("%g in the cache, expected %g", (double)half_to_f32(got), exact);
    }
}

static const int32_t positions[ROWS] = {0, 17, 47}, row_table[ROWS] = {1, 0, 0};
static const int32_t tables[6] = {5, 1, 4, 2, -1, -1};

/* Rows of keys, values and queries, the numbers that rotate them, and a cache, here and on the
 * device. */
struct rows {
    float *k, *v, *q, *table;
    uint8_t *was, *got; /* the cache: what stood there, and what stands there afterwards */
    size_t n_bytes;
    struct kv_layer layer;
    struct kv_write_args a;
};

/* The cache's bytes, and the tables, are the caller's to fill, before rows_write. */
static struct rows rows_of(struct kv_layer l, int n_head, int n_rot)
{
    uint64_t seed = (uint64_t)(l.dim_k * 10 + n_rot + (int)l.type);
    struct rows r = {.layer = l, .n_bytes = BLOCKS * kv_block_bytes(&l)};
    int n_k = (int)(l.n_head * l.dim_k), n_v = (int)(l.n_head * l.dim_v);
    int n_q = n_head * (int)l.dim_k;
    r.k = device_random(ROWS * n_k, 2, &seed);
    r.v = device_random(ROWS * n_v, 2, &seed);
    r.q = device_random(ROWS * n_q + 1, 2, &seed);
    r.table = device_random(ROWS * n_rot + 1, 1, &seed);
    r.was = malloc(r.n_bytes);
    r.got = malloc(r.n_bytes);
    r.a = (struct kv_write_args){.k_stride = n_k,
                                 .v_stride = n_v,
                                 .q_stride = n_q,
                                 .table_stride = n_rot,
                                 .tables_stride = 3,
                                 .n_rows = ROWS,
                                 .type = (int32_t)l.type,
                                 .n_head = n_head,
                                 .n_kv_head = (int32_t)l.n_head,
                                 .dim_k = (int32_t)l.dim_k,
                                 .dim_v = (int32_t)l.dim_v,
                                 .v_in_k = l.v_in_k,
                                 .n_rot = n_rot};
    return r;
}

static void rows_write(struct rows *r)
{
    struct kv_write_args *a = &r->a;
    size_t q_bytes = (size_t)(ROWS * a->q_stride) * 4, table_bytes = (size_t)(ROWS * a->n_rot) * 4;
    void *dk = device_copy(r->k, (size_t)(ROWS * a->k_stride) * 4);
    void *dv = device_copy(r->v, (size_t)(ROWS * a->v_stride) * 4);
    void *dq = device_copy(r->q, q_bytes + 4), *dt = device_copy(r->table, table_bytes + 4);
    void *dkv = device_copy(r->was, r->n_bytes), *dtables = device_copy(tables, sizeof tables);
    void *drt = device_copy(row_table, sizeof row_table);
    void *dp = device_copy(positions, sizeof positions);
    a->k = dk;
    a->v = a->v_in_k ? NULL : dv;
    a->q = a->n_head ? dq : NULL;
    a->table = a->n_rot ? dt : NULL;
    a->kv = dkv;
    a->tables = dtables;
    a->row_table = drt;
    a->positions = dp;
    if (r->layer.type == TYPE_Q8_0) {
        DEVICE_RUN(kv_write_q8, a);
    } else {
        DEVICE_RUN(kv_write, a);
    }
    emulator_download(r->got, dkv, r->n_bytes);
    emulator_download(r->q, dq, q_bytes);
    void *device[] = {dk, dv, dq, dt, dkv, dtables, drt, dp};
    for (size_t i = 0; i < COUNT_OF(device); i++) {
        emulator_free(device[i]);
    }
}

static void rows_free(struct rows *r)
{
    void *host[] = {r->k, r->v, r->q, r->table, r->was, r->got};
    for (size_t i = 0; i < COUNT_OF(host); i++) {
        free(host[i]);
    }
}

static void test(int n_head, int n_kv_head, int dim_k, int dim_v, int n_rot, bool adjacent,
                 bool v_in_k)
{
    struct kv_layer l = {.type = TYPE_F16, .n_head = n_kv_head, .dim_k = dim_k, .dim_v = dim_v,
                         .v_in_k = v_in_k};
    struct rows rows = rows_of(l, n_head, n_rot);
    rows.a.adjacent = adjacent;
    int n_q = n_head * dim_k, head_elems = BLOCK * (dim_k + (v_in_k ? 0 : dim_v));
    uint16_t *kv = (uint16_t *)(void *)rows.got, *was = (uint16_t *)(void *)rows.was;
    for (size_t i = 0; i < rows.n_bytes / 2; i++) {
        was[i] = (uint16_t)(0x7c01 + i % 500);
    }
    float *q = malloc((size_t)(ROWS * n_q) * 4 + 1);
    double *exact = malloc((size_t)n_q * sizeof *exact + 1);
    memcpy(q, rows.q, (size_t)(ROWS * n_q) * 4);
    rows_write(&rows);
    for (int r = 0; r < ROWS; r++) {
        int block = tables[row_table[r] * 3 + positions[r] / BLOCK], slot = positions[r] % BLOCK;
        const float *table = rows.table + r * n_rot;
        for (int h = 0; h < n_kv_head; h++) {
            int at = (block * n_kv_head + h) * head_elems;
            const float *k = rows.k + (r * n_kv_head + h) * dim_k;
            const float *v = rows.v + (r * n_kv_head + h) * dim_v;
            for (int d = 0; d < dim_k; d++) {
                int i = at + d * BLOCK + slot;
                check_half(kv[i], rotated(k, table, n_rot, adjacent, d));
                kv[i] = was[i];
            }
            for (int d = 0; d < dim_v && !v_in_k; d++) {
                int i = at + BLOCK * dim_k + slot * dim_v + d;
                check_half(kv[i], (double)v[d]);
                kv[i] = was[i];
            }
        }
        for (int i = 0; i < n_q; i++) {
            exact[i] = rotated(q + r * n_q + i / dim_k * dim_k, table, n_rot, adjacent, i % dim_k);
        }
        device_check("queries", rows.q + r * n_q, exact, n_q, 1e-6);
    }
    CHECK(memcmp(kv, was, rows.n_bytes) == 0);
    free(q);
    free(exact);
    rows_free(&rows);
}

/* A row's numbers into a tile, as the processor does it. */
static void expect(enum type type, uint8_t *tile, const float *x, int dim, int slot, bool is_key)
{
    size_t n_groups = kv_q8_groups(dim);
    for (int d = 0; d < dim && type != TYPE_Q8_0; d++) {
        size_t at = (size_t)(is_key ? d * BLOCK + slot : slot * dim + d);
        uint16_t half = type == TYPE_BF16 ? half_bf16_from_f32(x[d]) : half_from_f32(x[d]);
        if (type == TYPE_F32) {
            memcpy(tile + 4 * at, &x[d], 4);
        } else {
            memcpy(tile + 2 * at, &half, 2);
        }
    }
    for (size_t g = 0; g < n_groups && type == TYPE_Q8_0; g++) {
        int first = (int)g * 32, n = MIN(32, dim - first);
        int8_t *q = (int8_t *)(tile + 2 * BLOCK * n_groups);
        uint16_t scale = is_key ? kv_q8_put(q + first * BLOCK + slot, BLOCK, x + first, n)
                                : kv_q8_put(q + slot * dim + first, 1, x + first, n);
        memcpy(tile + 2 * (is_key ? g * BLOCK + (size_t)slot : (size_t)slot * n_groups + g), &scale,
               2);
    }
}

/* Every type of cache: the processor's bytes, and nothing else touched. Queries are rotated beside,
 * by no angle. */
static void test_type(enum type type, int n_kv_head, int dim_k, int dim_v, bool v_in_k)
{
    enum { HEADS = 5, ROT = 8 };
    struct kv_layer l = {.type = type, .n_head = n_kv_head, .dim_k = dim_k, .dim_v = dim_v,
                         .v_in_k = v_in_k};
    struct rows rows = rows_of(l, HEADS, ROT);
    size_t n_q = (size_t)(ROWS * HEADS * dim_k);
    for (int i = 0; i < ROWS * ROT; i++) {
        rows.table[i] = i % ROT < ROT / 2 ? 1 : 0;
    }
    memset(rows.k, 0, 32 * 4);
    rows.v[3] = NAN;
    rows.k[n_kv_head * dim_k + 1] = 3e38f;
    rows.v[n_kv_head * dim_v] = 1e-9f;
    memset(rows.was, 0x5a, rows.n_bytes);
    float *q = malloc(n_q * 4);
    memcpy(q, rows.q, n_q * 4);
    rows_write(&rows);
    for (int r = 0; r < ROWS; r++) {
        for (int h = 0; h < n_kv_head; h++) {
            size_t block = (size_t)tables[row_table[r] * 3 + positions[r] / BLOCK];
            uint8_t *tile = rows.was + block * kv_block_bytes(&l) + (size_t)h * kv_head_bytes(&l);
            int row = r * n_kv_head + h, slot = positions[r] % BLOCK;
            expect(type, tile, rows.k + row * dim_k, dim_k, slot, true);
            if (!v_in_k) {
                expect(type, tile + kv_tile_bytes(type, dim_k), rows.v + row * dim_v, dim_v, slot,
                       false);
            }
        }
    }
    CHECK(memcmp(rows.got, rows.was, rows.n_bytes) == 0);
    CHECK(memcmp(rows.q, q, n_q * 4) == 0);
    free(q);
    rows_free(&rows);
}

static void test_copy(bool has_ids, int n_groups, int n, int x_group, int y_group)
{
    static const int32_t ids[2] = {2, 0};
    uint64_t seed = 4;
    int x_stride = 3 * n_groups * n + 5, y_stride = n_groups * y_group + n;
    float *x = device_random(3 * x_stride, 1, &seed), *y = calloc((size_t)(2 * y_stride), 4);
    void *dx = device_copy(x, (size_t)(3 * x_stride) * 4), *dids = device_copy(ids, sizeof ids);
    void *dy = device_copy(y, (size_t)(2 * y_stride) * 4);
    struct copy_args a = {.x = dx,
                          .ids = has_ids ? dids : NULL,
                          .y = dy,
                          .x_stride = x_stride,
                          .y_stride = y_stride,
                          .n_rows = 2,
                          .n_groups = n_groups,
                          .n = n,
                          .x_group = x_group,
                          .y_group = y_group};
    DEVICE_RUN(copy, &a);
    float *got = malloc((size_t)(2 * y_stride) * 4);
    emulator_download(got, dy, (size_t)(2 * y_stride) * 4);
    for (int r = 0; r < 2; r++) {
        for (int i = 0; i < n_groups * n; i++) {
            const float *from = x + (has_ids ? ids[r] : r) * x_stride + i / n * x_group;
            y[r * y_stride + i / n * y_group + i % n] = from[i % n];
        }
    }
    CHECK(memcmp(got, y, (size_t)(2 * y_stride) * 4) == 0);
    emulator_free(dx);
    emulator_free(dids);
    emulator_free(dy);
    free(x);
    free(y);
    free(got);
}

int main(void)
{
    test(7, 1, 64, 64, 64, false, false);
    test(4, 2, 48, 24, 32, true, false);
    test(0, 3, 16, 8, 0, false, false);
    test(2, 1, 72, 64, 8, false, true);
    static const enum type types[] = {TYPE_F32, TYPE_F16, TYPE_BF16, TYPE_Q8_0};
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        test_type(types[i], 1, 64, 64, false);
        test_type(types[i], 3, 40, 24, false);
        test_type(types[i], 1, 72, 64, true);
    }
    test_copy(true, 1, 257, 0, 0);
    test_copy(false, 3, 31, 40, 33);
    test_copy(false, 3, 1, 0, 2); /* the first for all */
    return 0;
}
