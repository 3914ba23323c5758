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

static void test(enum type type, int n_rows, int n_cols, int n_tokens)
{
    struct matmul_product p = matmul_product(type, n_rows, n_cols, n_tokens, run_gemm);
    matmul_check_same(&p, 0, n_tokens, matmul_gemv);
    matmul_product_free(&p);
}

static void test_several(void)
{
    enum { COLS = 64, TOKENS = 66 };
    static const int n_rows[2] = {130, 31};
    uint64_t seed = 12;
    struct matmul_x x = matmul_x(TYPE_Q8_0, TOKENS, COLS, &seed);
    struct matmul_matrix m[2];
    struct matmul_args a = {0};
    for (int i = 0; i < 2; i++) {
        m[i] = matmul_matrix(TYPE_Q8_0, 1, n_rows[i], COLS, &seed);
        a = i == 0 ? matmul_args_of(&m[0], &x, NULL) : a;
        a.n_w = i + 1;
        a.w[i] = m[i].w;
        a.y[i] = emulator_alloc((size_t)(TOKENS * (n_rows[i] + 3)) * 4, 0);
        a.y_stride[i] = n_rows[i] + 3;
    }
    run_gemm(&a);
    for (int i = 0; i < 2; i++) {
        for (int t = 0; t < TOKENS; t++) {
            float y[130];
            emulator_download(y, a.y[i] + t * a.y_stride[i], (size_t)n_rows[i] * 4);
            matmul_check_row("one of two", &m[i], 0, &x, t, NULL, NULL, y);
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
    struct matmul_args a = matmul_args_of(&m, &x, dy);
    a.bias[0] = db;
    a.ids = dids;
    a.order = dorder;
    a.ids_stride = USED;
    a.n_tokens = n_slots;
    a.n_expert = EXPERTS;
    a.n_used = USED;
    a.x_per_slot = x_per_slot;
    run_gemm(&a);
    for (int i = 0; i < n_slots; i++) {
        float y[ROWS];
        emulator_download(y, (float *)dy + i * ROWS, sizeof y);
        matmul_check_row("experts", &m, ids[i], &x, x_per_slot ? i : i / USED,
                         bias + ids[i] * ROWS, NULL, y);
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
