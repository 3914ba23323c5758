/* gemm on the emulator: products of every type against double precision, and the same bits as
 * gemv's; several matrices and experts in one launch. */
#include "tests/kernels/hip/matmul.h"

extern const struct gpu_host_kernel gemm_kernel, gemm_q4_0_kernel, gemm_q8_0_kernel,
    gemm_q4_k_kernel, gemm_q6_k_kernel, gemm_f32_kernel, gemm_f16_kernel, gemm_bf16_kernel,
    order_kernel;

static void run_gemm(const struct matmul_args *a)
{
    static const struct gpu_host_kernel *const all[] = {
        &gemm_kernel,      &gemm_q4_0_kernel, &gemm_q8_0_kernel, &gemm_q4_k_kernel,
        &gemm_q6_k_kernel, &gemm_f32_kernel,  &gemm_f16_kernel,  &gemm_bf16_kernel};
    const struct table_kernel *entry = &table_kernels[table_gemm((enum type)a->type)];
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        if (strcmp(all[i]->name, entry->name) == 0) {
            device_run(all[i], entry, a, sizeof *a);
            return;
        }
    }
    TEST_FAIL("no kernel %s", entry->name);
}

static void check_rows(const char *what, const struct matmul_matrix *m, int which,
                       const struct matmul_x *x, int x_row, const float *bias, const float *add,
                       const float *y)
{
    double *exact = malloc((size_t)m->n_rows * sizeof *exact);
    matmul_exact(m, which, x, x_row, exact);
    for (int r = 0; r < m->n_rows; r++) {
        exact[r] += (bias ? (double)bias[r] : 0) + (add ? (double)add[r] : 0);
    }
    device_check(what, y, exact, m->n_rows, 3e-6);
    free(exact);
}

static void test(enum type type, int n_rows, int n_cols, int n_tokens)
{
    uint64_t seed = (uint64_t)(n_rows * 1000 + n_cols + n_tokens);
    size_t n_y = (size_t)(n_tokens * n_rows);
    struct matmul_matrix m = matmul_matrix(type, 1, n_rows, n_cols, &seed);
    struct matmul_x x = matmul_x(type, n_tokens, n_cols, &seed);
    float *bias = device_random(n_rows, 1, &seed), *add = device_random((int64_t)n_y, 1, &seed);
    void *db = device_copy(bias, (size_t)n_rows * 4), *dy = device_copy(add, n_y * 4);
    void *dsame = device_copy(add, n_y * 4);
    struct matmul_args a = {.w = {m.w},
                            .y = {dy},
                            .bias = {db},
                            .add = dy,
                            .x = x.device,
                            .y_stride = {n_rows},
                            .add_stride = n_rows,
                            .x_bytes = x.bytes,
                            .type = (int32_t)type,
                            .n_cols = n_cols,
                            .n_w = 1,
                            .n_tokens = n_tokens,
                            .glu = MATMUL_NO_GLU};
    run_gemm(&a);
    float *y = malloc(n_y * 4), *same = malloc(n_y * 4);
    emulator_download(y, dy, n_y * 4);
    for (int t = 0; t < n_tokens; t++) {
        check_rows(type_info((uint32_t)type)->name, &m, 0, &x, t, bias, add + t * n_rows,
                   y + t * n_rows);
    }
    a.y[0] = dsame;
    a.add = dsame;
    matmul_gemv(&a);
    emulator_download(same, dsame, n_y * 4);
    CHECK(memcmp(y, same, n_y * 4) == 0);
    void *device[] = {db, dy, dsame};
    for (size_t i = 0; i < COUNT_OF(device); i++) {
        emulator_free(device[i]);
    }
    void *host[] = {bias, add, y, same};
    for (size_t i = 0; i < COUNT_OF(host); i++) {
        free(host[i]);
    }
    matmul_matrix_free(&m);
    matmul_x_free(&x);
}

static void test_several(void)
{
    enum { COLS = 64, TOKENS = 66 };
    static const int n_rows[2] = {130, 31};
    uint64_t seed = 12;
    struct matmul_x x = matmul_x(TYPE_Q8_0, TOKENS, COLS, &seed);
    struct matmul_matrix m[2];
    struct matmul_args a = {.x = x.device,
                            .x_bytes = x.bytes,
                            .type = TYPE_Q8_0,
                            .n_cols = COLS,
                            .n_w = 2,
                            .n_tokens = TOKENS,
                            .glu = MATMUL_NO_GLU};
    for (int i = 0; i < 2; i++) {
        m[i] = matmul_matrix(TYPE_Q8_0, 1, n_rows[i], COLS, &seed);
        a.w[i] = m[i].w;
        a.y[i] = emulator_alloc((size_t)(TOKENS * (n_rows[i] + 3)) * 4, 0);
        a.y_stride[i] = n_rows[i] + 3;
    }
    run_gemm(&a);
    for (int i = 0; i < 2; i++) {
        for (int t = 0; t < TOKENS; t++) {
            float y[130];
            emulator_download(y, a.y[i] + t * a.y_stride[i], (size_t)n_rows[i] * 4);
            check_rows("one of two", &m[i], 0, &x, t, NULL, NULL, y);
        }
        emulator_free(a.y[i]);
        matmul_matrix_free(&m[i]);
    }
    matmul_x_free(&x);
}

/* Slots sorted by expert: one expert has none, one more than a tile. */
static void test_experts(enum type type, bool x_per_slot, int n_tokens)
{
    enum { EXPERTS = 5, USED = 2, SLOTS = 50 * USED, ROWS = 40, COLS = 256 };
    uint64_t seed = 13;
    int n_slots = n_tokens * USED;
    struct matmul_matrix m = matmul_matrix(type, EXPERTS, ROWS, COLS, &seed);
    struct matmul_x x = matmul_x(type, x_per_slot ? n_slots : n_tokens, COLS, &seed);
    float *bias = device_random(EXPERTS * ROWS, 1, &seed);
    int32_t ids[SLOTS], order[EXPERTS + 1 + SLOTS];
    for (int i = 0; i < n_slots; i++) {
        ids[i] = i < n_slots * 7 / 10 ? 1 : i % 2 ? 4 : (int32_t)(test_random(&seed) % 3 * 2);
    }
    void *dids = device_copy(ids, sizeof ids), *db = device_copy(bias, EXPERTS * ROWS * 4);
    void *dorder = emulator_alloc(sizeof order, 0), *dy = emulator_alloc(SLOTS * ROWS * 4, 0);
    struct order_args o = {.ids = dids,
                           .y = dorder,
                           .ids_stride = USED,
                           .n_rows = n_tokens,
                           .n_expert = EXPERTS,
                           .n_used = USED};
    DEVICE_RUN(order, &o);
    emulator_download(order, dorder, (size_t)(EXPERTS + 1 + n_slots) * 4);
    CHECK_INT(order[0], 0);
    CHECK_INT(order[EXPERTS], n_slots);
    for (int e = 0; e < EXPERTS; e++) {
        for (int p = order[e]; p < order[e + 1]; p++) {
            int slot = order[EXPERTS + 1 + p];
            CHECK(slot >= 0 && slot < n_slots && ids[slot] == e);
            CHECK(p == order[e] || order[EXPERTS + p] < slot);
        }
    }
    struct matmul_args a = {.w = {m.w},
                            .y = {dy},
                            .bias = {db},
                            .x = x.device,
                            .ids = dids,
                            .order = dorder,
                            .y_stride = {ROWS},
                            .ids_stride = USED,
                            .x_bytes = x.bytes,
                            .type = (int32_t)type,
                            .n_cols = COLS,
                            .n_w = 1,
                            .n_tokens = n_slots,
                            .n_expert = EXPERTS,
                            .n_used = USED,
                            .x_per_slot = x_per_slot,
                            .glu = MATMUL_NO_GLU};
    run_gemm(&a);
    for (int i = 0; i < n_slots; i++) {
        float y[ROWS];
        emulator_download(y, (float *)dy + i * ROWS, sizeof y);
        check_rows("experts", &m, ids[i], &x, x_per_slot ? i : i / USED, bias + ids[i] * ROWS, NULL,
                   y);
    }
    void *device[] = {dids, db, dorder, dy};
    for (size_t i = 0; i < COUNT_OF(device); i++) {
        emulator_free(device[i]);
    }
    free(bias);
    matmul_matrix_free(&m);
    matmul_x_free(&x);
}

int main(void)
{
    for (int i = 0; i < BLOCKS_N_TYPES; i++) {
        enum type type = blocks_types[i];
        int block = (int)type_info((uint32_t)type)->block_elems;
        if (matmul_is_float(type)) {
            test(type, 33, 31, 5);
            test(type, 3, 545, 1);
            test(type, 130, 300, type == TYPE_F16 ? 66 : 2);
            continue;
        }
        test(type, 33, block == 256 ? 256 : 192 / block * block + block, 5);
        if (table_gemm(type) != TABLE_gemm) {
            test(type, 3, block == 256 ? 768 : 544, 1);
            test(type, 130, block == 256 ? 256 : 96, type == TYPE_Q4_0 ? 66 : 2);
        }
    }
    test_several();
    static const enum type own[] = {TYPE_Q4_0, TYPE_Q8_0, TYPE_Q4_K, TYPE_Q6_K,
                                    TYPE_F32,  TYPE_F16,  TYPE_BF16, TYPE_MXFP4};
    for (size_t i = 0; i < COUNT_OF(own); i++) {
        test_experts(own[i], i % 2 == 0, i == 2 || i == 5 ? 50 : 4);
        if (matmul_is_float(own[i]) || own[i] == TYPE_Q4_0) {
            matmul_check_not_finite(own[i], run_gemm);
        }
    }
    return 0;
}
