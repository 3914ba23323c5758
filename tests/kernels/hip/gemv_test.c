/* gemv on the emulator: products of every type against double precision; a token's result the same
 * bits with others beside it; several matrices, gates of every kind, experts and heads in one
 * launch; what is not finite stays where it is. */
#include "tests/kernels/hip/glu.h"
#include "tests/kernels/hip/matmul.h"

static void test(enum type type, int n_rows, int n_cols, int n_tokens)
{
    struct matmul_product p = matmul_product(type, n_rows, n_cols, n_tokens, matmul_gemv);
    matmul_check_same(&p, n_tokens - 1, 1, matmul_gemv); /* the last token alone */
    matmul_product_free(&p);
}

/* On matrix units: the bits of gemv. */
static void test_tile(enum type type, int n_rows, int n_cols, int n_tokens)
{
    struct matmul_product p = matmul_product(type, n_rows, n_cols, n_tokens, matmul_gemv_tile);
    matmul_check_same(&p, 0, n_tokens, matmul_gemv);
    matmul_product_free(&p);
}

/* Three matrices of different heights at once: each result as from a launch of its own. */
static void test_several(void (*run)(const struct matmul_args *a), int n_cols)
{
    enum { TOKENS = 9 };
    static const int n_rows[3] = {70, 31, 32};
    uint64_t seed = 11;
    struct matmul_x x = matmul_x(TYPE_Q8_0, TOKENS, n_cols, &seed);
    struct matmul_matrix m[3];
    struct matmul_args a = {0};
    void *bias[3];
    for (int i = 0; i < 3; i++) {
        m[i] = matmul_matrix(TYPE_Q8_0, 1, n_rows[i], n_cols, &seed);
        a = i == 0 ? matmul_args_of(&m[0], &x, NULL) : a;
        a.n_w = i + 1;
        float *b = device_random(n_rows[i], 1, &seed);
        bias[i] = device_copy(b, (size_t)n_rows[i] * 4);
        free(b);
        a.w[i] = m[i].w;
        a.bias[i] = i == 2 ? NULL : bias[i];
        a.y[i] = emulator_alloc((size_t)(TOKENS * (n_rows[i] + 3)) * 4, 0);
        a.y_stride[i] = n_rows[i] + 3;
    }
    run(&a);
    for (int i = 0; i < 3; i++) {
        void *dy = emulator_alloc((size_t)(TOKENS * n_rows[i]) * 4, 0);
        struct matmul_args one = a;
        one.n_w = 1;
        one.w[0] = a.w[i];
        one.bias[0] = a.bias[i];
        one.y[0] = dy;
        one.y_stride[0] = n_rows[i];
        matmul_gemv(&one);
        for (int t = 0; t < TOKENS; t++) {
            float together[70], alone[70];
            size_t n = (size_t)n_rows[i];
            emulator_download(together, a.y[i] + t * a.y_stride[i], n * 4);
            emulator_download(alone, (float *)dy + t * n_rows[i], n * 4);
            CHECK(memcmp(together, alone, n * 4) == 0);
        }
        emulator_free(dy);
    }
    for (int i = 0; i < 3; i++) {
        emulator_free(a.y[i]);
        emulator_free(bias[i]);
        matmul_matrix_free(&m[i]);
    }
    matmul_x_free(&x);
}

/* A matrix for each head, by the kernel for slots. */
static void test_heads(enum type type)
{
    enum { HEADS = 3, TOKENS = 2, SLOTS = HEADS * TOKENS, ROWS = 45, COLS = 256 };
    static const int32_t heads[HEADS] = {0, 1, 2};
    uint64_t seed = 3;
    struct matmul_matrix m = matmul_matrix(type, HEADS, ROWS, COLS, &seed);
    struct matmul_x x = matmul_x(type, SLOTS, COLS, &seed);
    void *dids = device_copy(heads, sizeof heads), *dy = emulator_alloc(SLOTS * ROWS * 4, 0);
    struct matmul_args a = matmul_args_of(&m, &x, dy);
    a.ids = dids;
    a.n_expert = HEADS;
    a.n_used = HEADS;
    a.x_per_slot = 1;
    matmul_by(&a, table_gemv(type));
    for (int s = 0; s < SLOTS; s++) {
        float y[ROWS];
        double exact[ROWS];
        matmul_exact(&m, s % HEADS, &x, s, exact);
        emulator_download(y, (float *)dy + s * ROWS, sizeof y);
        device_check("heads", y, exact, ROWS, 3e-6);
    }
    emulator_free(dids);
    emulator_free(dy);
    matmul_matrix_free(&m);
    matmul_x_free(&x);
}

/* f(w0 x) * (w1 x) of some experts' matrices, in floats and in 8 bits. */
static void test_gate(enum type type, int kind, int n_expert, int n_used, int n_tokens,
                      void (*run)(const struct matmul_args *a))
{
    enum { ROWS = 64, COLS = 512 };
    uint64_t seed = (uint64_t)(n_expert + n_used);
    bool is_moe = n_expert > 1;
    int n_slots = n_tokens * n_used;
    struct matmul_matrix gate = matmul_matrix(type, n_expert, ROWS, COLS, &seed);
    struct matmul_matrix up = matmul_matrix(type, n_expert, ROWS, COLS, &seed);
    struct matmul_x x = matmul_x(type, n_tokens, COLS, &seed);
    float *bias = device_random((int64_t)n_expert * ROWS, 1, &seed);
    int32_t *ids = calloc((size_t)n_slots, sizeof *ids);
    for (int i = 0; i < n_slots; i++) {
        ids[i] = (int32_t)(test_random(&seed) % (uint64_t)n_expert);
    }
    int64_t act_bytes = args_act_bytes(ROWS);
    void *dids = device_copy(ids, (size_t)n_slots * 4),
         *db = device_copy(bias, (size_t)(n_expert * ROWS) * 4);
    void *dy = emulator_alloc((size_t)(n_slots * ROWS) * 4, 0);
    void *dact = emulator_alloc((size_t)(n_slots * act_bytes), 0);
    struct matmul_args a = matmul_args_of(&gate, &x, dy);
    a.w[1] = up.w;
    a.bias[1] = db;
    a.act = dact;
    a.act_stride = act_bytes;
    a.ids = is_moe ? dids : NULL;
    a.ids_stride = n_used;
    a.n_w = 2;
    a.n_tokens = n_slots;
    a.n_expert = n_expert;
    a.n_used = n_used;
    a.glu = kind;
    a.alpha = 1.702f;
    a.limit = 7;
    run(&a);
    for (int s = 0; s < n_slots; s++) {
        double g[ROWS], u[ROWS];
        float y[ROWS];
        int8_t act[ROWS + ROWS / 32 * 8] __attribute__((aligned(16)));
        matmul_exact(&gate, ids[s], &x, s / n_used, g);
        matmul_exact(&up, ids[s], &x, s / n_used, u);
        for (int r = 0; r < ROWS; r++) {
            g[r] = glu_exact(kind, g[r], u[r] + (double)bias[ids[s] * ROWS + r], true,
                             (double)a.alpha, (double)a.limit);
        }
        emulator_download(y, (float *)dy + s * ROWS, sizeof y);
        emulator_download(act, (int8_t *)dact + s * act_bytes, sizeof act);
        device_check("gate", y, g, ROWS, 1e-5);
        for (int r = 0; r < ROWS; r++) {
            g[r] = (double)y[r];
        }
        device_check_act(act, ROWS, g);
    }
    void *device[] = {dids, db, dy, dact};
    for (size_t i = 0; i < COUNT_OF(device); i++) {
        emulator_free(device[i]);
    }
    free(bias);
    free(ids);
    matmul_matrix_free(&gate);
    matmul_matrix_free(&up);
    matmul_x_free(&x);
}

/* x made by the kernel itself of floats that it normalises: the bits of norm and product. */
static void test_norm(enum type type, int n_cols, bool is_gated)
{
    enum { ROWS = 64 };
    extern const struct gpu_host_kernel norm_kernel;
    uint64_t seed = (uint64_t)n_cols;
    struct matmul_matrix m[2] = {matmul_matrix(type, 1, ROWS, n_cols, &seed),
                                 matmul_matrix(type, 1, ROWS, n_cols, &seed)};
    float *x = device_random(n_cols, 3, &seed), *weight = device_random(n_cols, 1, &seed);
    void *dx = device_copy(x, (size_t)n_cols * 4), *dw = device_copy(weight, (size_t)n_cols * 4);
    size_t x_bytes = (size_t)args_act_bytes(n_cols);
    void *act = emulator_alloc(x_bytes, 0), *dy = emulator_alloc((size_t)2 * ROWS * 4, 0);
    struct norm_args norm = {.x = dx, .act = act, .weight = dw, .x_stride = n_cols,
                             .act_stride = (int64_t)x_bytes, .n_rows = 1, .n = n_cols,
                             .n_groups = 1, .x_group = n_cols, .kind = OP_NORM_RMS, .eps = 1e-5f};
    struct matmul_args a = {.w = {m[0].w, m[1].w}, .y = {dy, (float *)dy + ROWS}, .x = act,
                            .y_stride = {ROWS, ROWS}, .x_bytes = (int64_t)x_bytes,
                            .type = (int32_t)type, .n_cols = n_cols, .n_w = 2, .n_tokens = 1,
                            .glu = is_gated ? (int32_t)OP_GLU_SILU : (int32_t)MATMUL_NO_GLU};
    float y[2][2 * ROWS] = {{0}};
    size_t n_y = (size_t)(is_gated ? 1 : 2) * ROWS * 4;
    for (int is_joined = 0; is_joined < 2; is_joined++) {
        if (is_joined) {
            a.x = NULL;
            a.norm = norm;
        } else {
            DEVICE_RUN(norm, &norm);
        }
        matmul_gemv(&a);
        emulator_download(y[is_joined], dy, n_y);
    }
    CHECK(y[0][2] != 0 && memcmp(y[0], y[1], n_y) == 0);
    void *device[] = {dx, dw, act, dy};
    for (size_t i = 0; i < COUNT_OF(device); i++) {
        emulator_free(device[i]);
    }
    free(x);
    free(weight);
    matmul_matrix_free(&m[0]);
    matmul_matrix_free(&m[1]);
}

int main(void)
{
    for (int i = 0; i < BLOCKS_N_TYPES; i++) {
        enum type type = blocks_types[i];
        int block = (int)type_info((uint32_t)type)->block_elems;
        bool is_quantized = block > 1, has_own = table_gemv(type) != TABLE_gemv;
        test(type, 1, is_quantized ? block : 1, 1);
        test(type, 33, is_quantized ? 3 * block : 257, 3);
        if (has_own) {
            test(type, 5, 33 * 32 / block * block + block, 9);
            test(type, 2, 2304 + block, 8);
        }
    }
    /* More segments than the sums of one pass have room for, and a pass of its own for the last. */
    test(TYPE_Q4_0, 2, 32768 + 288, 1);
    test(TYPE_Q8_0, 2, 32768 + 32, 1);
    test(TYPE_Q6_K, 2, 4096 + 256, 8);
    test_several(matmul_gemv, 320);
    test_several(matmul_gemv_tile, 384);
    for (int i = 0; i < 4; i++) {
        static const enum type tiles[] = {TYPE_Q4_0, TYPE_Q8_0, TYPE_Q4_K, TYPE_Q6_K};
        bool is_super = type_info((uint32_t)tiles[i])->block_elems > 32;
        test_tile(tiles[i], 70, is_super ? 256 : 128, 2);
        test_tile(tiles[i], 33, is_super ? 512 : 384, 8);
        test_tile(tiles[i], 31, 17 * 256, 9); /* a wave's second unit */
        test_tile(tiles[i], 1, 33 * 256, 3);
        test_tile(tiles[i], 32, 512, 17);
        for (int n = 2; n <= 16; n += 7) {
            test_gate(tiles[i], OP_GLU_SILU, 1, 1, n, matmul_gemv_tile);
        }
        matmul_check_not_finite(tiles[i], matmul_gemv_tile);
    }
    test_tile(TYPE_Q4_0, 3, 33 * 256 + 128, 8); /* a second round */
    static const enum type own[] = {TYPE_Q4_0, TYPE_Q8_0, TYPE_Q4_K, TYPE_Q6_K,
                                    TYPE_F32,  TYPE_F16,  TYPE_BF16, TYPE_MXFP4};
    for (size_t i = 0; i < COUNT_OF(own); i++) {
        test_heads(own[i]);
        test_gate(own[i], OP_GLU_SILU, 1, 1, 1, matmul_gemv);
        test_gate(own[i], OP_GLU_SILU, 1, 1, 3, matmul_gemv);
        test_gate(own[i], OP_GLU_SILU, 5, 2, 3, matmul_gemv);
    }
    for (int kind = 0; kind < OP_GLU_COUNT; kind++) {
        test_gate(TYPE_Q4_0, kind, 1, 1, 1, matmul_gemv);
        test_gate(TYPE_Q4_K, kind, 1, 1, 2, matmul_gemv);
        test_gate(TYPE_F16, kind, 1, 1, 2, matmul_gemv);
    }
    for (int i = 0; i < BLOCKS_N_TYPES; i++) {
        matmul_check_not_finite(blocks_types[i], matmul_gemv);
    }
    test_norm(TYPE_Q4_0, 352, false);
    test_norm(TYPE_Q8_0, GEMV_ONE_NORM, true);
    test_norm(TYPE_Q6_K, 256, true);
    return 0;
}
