/* For tests of matrix products on the emulator: a packed matrix, rows in 8 bits, and the exact
 * product. */
#ifndef TESTS_KERNELS_HIP_MATMUL_H
#define TESTS_KERNELS_HIP_MATMUL_H

#include "kernels/hip/pack.h"
#include "kernels/quant.h"
#include "tests/kernels/blocks.h"
#include "tests/kernels/hip/device.h"

/* n matrices of one shape: random, in the file's form and packed in device memory. */
struct matmul_matrix {
    enum type type;
    int n, n_rows, n_cols;
    uint8_t *file;
    void *device;
    struct args_weight w;
};

/* From the file's form, again where that was changed. */
static inline void matmul_upload(struct matmul_matrix *m)
{
    struct pack_layout l;
    CHECK(pack_layout(m->type, m->n_rows, m->n_cols, &l) == 0);
    size_t row_bytes = type_row_bytes(m->type, (size_t)m->n_cols);
    uint8_t *packed = calloc((size_t)m->n, (size_t)l.n_bytes);
    for (int i = 0; i < m->n; i++) {
        pack_rows(m->type, &l, m->file + (size_t)(i * m->n_rows) * row_bytes, 0, m->n_rows,
                  m->n_cols, packed + i * l.n_bytes);
    }
    emulator_free(m->device);
    m->device = device_copy(packed, (size_t)(m->n * l.n_bytes));
    free(packed);
    m->w = (struct args_weight){.data = m->device,
                                .scale_at = l.scale_at,
                                .super_at = l.super_at,
                                .each_bytes = l.n_bytes,
                                .n_rows = m->n_rows};
}
static inline struct matmul_matrix matmul_matrix(enum type type, int n, int n_rows, int n_cols,
                                                 uint64_t *seed)
{
    struct matmul_matrix m = {.type = type, .n = n, .n_rows = n_rows, .n_cols = n_cols};
    size_t row_bytes = type_row_bytes(type, (size_t)n_cols);
    m.file = malloc(row_bytes * (size_t)(n * n_rows));
    blocks_fill(type, m.file, (int64_t)n * n_rows * n_cols, seed);
    matmul_upload(&m);
    return m;
}

static inline void matmul_matrix_free(struct matmul_matrix *m)
{
    emulator_free(m->device);
    free(m->file);
}

static inline bool matmul_is_float(enum type t)
{
    return t == TYPE_F32 || t == TYPE_F16 || t == TYPE_BF16;
}

/* Rows of x as the matrices want them, and what these stand for. */
struct matmul_x {
    int n, n_cols;
    int64_t bytes; /* stride */
    void *device;
    double *value;
};

static inline struct matmul_x matmul_x_of(enum type type, int n, int n_cols, const float *f)
{
    extern const struct gpu_host_kernel quantize_kernel;
    struct matmul_x x = {.n = n, .n_cols = n_cols};
    x.device = device_copy(f, (size_t)(n * n_cols) * 4);
    x.value = malloc((size_t)(n * n_cols) * sizeof *x.value);
    x.bytes = n_cols * 4;
    for (int i = 0; i < n * n_cols; i++) {
        x.value[i] = (double)f[i];
    }
    if (matmul_is_float(type)) {
        return x;
    }
    x.bytes = args_act_bytes(n_cols);
    void *act = emulator_alloc((size_t)(n * x.bytes), 0);
    struct quantize_args q = {.x = x.device,
                              .act = act,
                              .x_stride = n_cols,
                              .act_stride = x.bytes,
                              .n_rows = n,
                              .n = n_cols};
    DEVICE_RUN(quantize, &q);
    emulator_free(x.device);
    x.device = act;
    int8_t *row = aligned_alloc(16, (size_t)x.bytes);
    for (int t = 0; t < n; t++) {
        emulator_download(row, (int8_t *)act + t * x.bytes, (size_t)(n_cols + n_cols / 32 * 8));
        const struct args_act *groups = (const struct args_act *)(const void *)(row + n_cols);
        for (int i = 0; i < n_cols; i++) {
            x.value[t * n_cols + i] = (double)groups[i / 32].scale * row[i];
        }
    }
    free(row);
    return x;
}

static inline struct matmul_x matmul_x(enum type type, int n, int n_cols, uint64_t *seed)
{
    float *f = device_random((int64_t)n * n_cols, 3, seed);
    struct matmul_x x = matmul_x_of(type, n, n_cols, f);
    free(f);
    return x;
}
static inline void matmul_x_free(struct matmul_x *x)
{
    emulator_free(x->device);
    free(x->value);
}

/* y[n_rows] of matrix `which` and row t of x. */
static inline void matmul_exact(const struct matmul_matrix *m, int which, const struct matmul_x *x,
                                int t, double *y)
{
    size_t row_bytes = type_row_bytes(m->type, (size_t)m->n_cols);
    float *w = malloc((size_t)m->n_cols * 4);
    for (int r = 0; r < m->n_rows; r++) {
        const uint8_t *row = m->file + (size_t)(which * m->n_rows + r) * row_bytes;
        quant_decoder(m->type)(row, w, m->n_cols);
        y[r] = 0;
        for (int i = 0; i < m->n_cols; i++) {
            y[r] += (double)w[i] * x->value[t * m->n_cols + i];
        }
    }
    free(w);
}

/* y[n][n_rows] = x m^T, a token each; the caller adds what else is wanted. */
static inline struct matmul_args matmul_args_of(const struct matmul_matrix *m,
                                                const struct matmul_x *x, void *y)
{
    return (struct matmul_args){.w = {m->w},
                                .y = {y},
                                .x = x->device,
                                .y_stride = {m->n_rows},
                                .x_bytes = x->bytes,
                                .type = (int32_t)m->type,
                                .n_cols = m->n_cols,
                                .n_w = 1,
                                .n_tokens = x->n,
                                .glu = MATMUL_NO_GLU};
}

/* Row x_row of x; bias and add may be NULL. */
static inline void matmul_check_row(const char *what, const struct matmul_matrix *m, int which,
                                    const struct matmul_x *x, int x_row, const float *bias,
                                    const float *add, const float *y)
{
    double *exact = malloc((size_t)m->n_rows * sizeof *exact);
    matmul_exact(m, which, x, x_row, exact);
    for (int r = 0; r < m->n_rows; r++) {
        exact[r] += (bias ? (double)bias[r] : 0) + (add ? (double)add[r] : 0);
    }
    device_check(what, y, exact, m->n_rows, 3e-6);
    free(exact);
}

/* A product with a bias, added to what stands in y, and what came of it. */
struct matmul_product {
    struct matmul_matrix m;
    struct matmul_x x;
    float *bias, *add, *y; /* the host's; add: what stood in y */
    void *device_bias, *device_y;
    struct matmul_args a;
};

/* Runs it and compares with the exact one. */
static inline struct matmul_product matmul_product(enum type type, int n_rows, int n_cols,
                                                   int n_tokens,
                                                   void (*run)(const struct matmul_args *a))
{
    uint64_t seed = (uint64_t)(n_rows * 1000 + n_cols + n_tokens);
    size_t n_y = (size_t)(n_tokens * n_rows);
    struct matmul_product p = {.m = matmul_matrix(type, 1, n_rows, n_cols, &seed)};
    p.x = matmul_x(type, n_tokens, n_cols, &seed);
    p.bias = device_random(n_rows, 1, &seed);
    p.add = device_random((int64_t)n_y, 1, &seed);
    p.y = malloc(n_y * 4);
    p.device_bias = device_copy(p.bias, (size_t)n_rows * 4);
    p.device_y = device_copy(p.add, n_y * 4);
    p.a = matmul_args_of(&p.m, &p.x, p.device_y);
    p.a.bias[0] = p.device_bias;
    p.a.add = p.device_y;
    p.a.add_stride = n_rows;
    run(&p.a);
    emulator_download(p.y, p.device_y, n_y * 4);
    for (int t = 0; t < n_tokens; t++) {
        matmul_check_row(type_info((uint32_t)type)->name, &p.m, 0, &p.x, t, p.bias,
                         p.add + t * n_rows, p.y + t * n_rows);
    }
    return p;
}

/* Tokens [first, first + n) once more, by another kernel or alone: the same bits. */
static inline void matmul_check_same(const struct matmul_product *p, int first, int n,
                                     void (*run)(const struct matmul_args *a))
{
    size_t from = (size_t)(first * p->m.n_rows), n_bytes = (size_t)(n * p->m.n_rows) * 4;
    float *same = malloc(n_bytes);
    void *device = device_copy(p->add + from, n_bytes);
    struct matmul_args a = p->a;
    a.x = (const int8_t *)p->x.device + first * p->x.bytes;
    a.n_tokens = n;
    a.y[0] = device;
    a.add = device;
    run(&a);
    emulator_download(same, device, n_bytes);
    CHECK(memcmp(same, p->y + from, n_bytes) == 0);
    emulator_free(device);
    free(same);
}

static inline void matmul_product_free(struct matmul_product *p)
{
    emulator_free(p->device_bias);
    emulator_free(p->device_y);
    free(p->bias);
    free(p->add);
    free(p->y);
    matmul_matrix_free(&p->m);
    matmul_x_free(&p->x);
}

static inline void matmul_by(const struct matmul_args *a, enum table_id id)
{
    extern const struct gpu_host_kernel gemv_kernel, gemv_q4_0_kernel, gemv_q8_0_kernel,
        gemv_q4_k_kernel, gemv_q6_k_kernel, gemv_f32_kernel, gemv_f16_kernel, gemv_bf16_kernel,
        gemv_one_q4_0_kernel, gemv_one_q8_0_kernel, gemv_one_q4_k_kernel, gemv_one_q6_k_kernel,
        gemv_tile_q4_0_kernel, gemv_tile_q8_0_kernel, gemv_tile_q4_k_kernel, gemv_tile_q6_k_kernel;
    static const struct gpu_host_kernel *const all[] = {
        &gemv_kernel,          &gemv_q4_0_kernel,     &gemv_q8_0_kernel,     &gemv_q4_k_kernel,
        &gemv_q6_k_kernel,     &gemv_f32_kernel,      &gemv_f16_kernel,      &gemv_bf16_kernel,
        &gemv_one_q4_0_kernel, &gemv_one_q8_0_kernel, &gemv_one_q4_k_kernel, &gemv_one_q6_k_kernel,
        &gemv_tile_q4_0_kernel, &gemv_tile_q8_0_kernel, &gemv_tile_q4_k_kernel,
        &gemv_tile_q6_k_kernel};
    const struct table_kernel *entry = &table_kernels[id];
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        if (strcmp(all[i]->name, entry->name) == 0) {
            device_run(all[i], entry, a, sizeof *a);
            return;
        }
    }
    TEST_FAIL("no kernel %s", entry->name);
}
/* One token, or slots, by the kernel for these where there is one. */
static inline void matmul_gemv(const struct matmul_args *a)
{
    enum type type = (enum type)a->type;
    matmul_by(a, a->ids || a->n_tokens == 1 ? table_gemv_one(type) : table_gemv(type));
}
/* The same with several tokens on matrix units. */
static inline void matmul_gemv_tile(const struct matmul_args *a)
{
    if (a->ids) {
        matmul_gemv(a);
    } else {
        matmul_by(a, table_gemv_tile((enum type)a->type, a->n_cols));
    }
}

/* What is not finite in one token, or in one row of weights, shows there and nowhere else. */
static inline void matmul_check_not_finite(enum type type, void (*run)(const struct matmul_args *a))
{
    enum { TOKENS = 3, ROWS = 33, BAD_ROW = 20 };
    int n_cols = matmul_is_float(type) ? 301 : 256; /* with and without a rest */
    uint64_t seed = (uint64_t)type;
    static float y[TOKENS * ROWS];
    void *dy = emulator_alloc(sizeof y, 0);
    struct matmul_matrix m = matmul_matrix(type, 1, ROWS, n_cols, &seed);
    float *f = device_random(TOKENS * n_cols, 3, &seed);
    float was = f[n_cols + 7];
    uint8_t *row = m.file + (size_t)BAD_ROW * type_row_bytes(type, (size_t)n_cols);
    int half_at[3];
    blocks_half_offsets(type, half_at);
    for (int in_weights = 0; in_weights < 2; in_weights++) {
        float bad = in_weights ? INFINITY : NAN;
        f[n_cols + 7] = in_weights ? was : bad;
        if (in_weights && type == TYPE_F32) {
            memcpy(row + 300 * sizeof bad, &bad, sizeof bad);
        } else if (in_weights && matmul_is_float(type)) {
            uint16_t half = type == TYPE_F16 ? half_from_f32(bad) : half_bf16_from_f32(bad);
            memcpy(row + 300 * sizeof half, &half, sizeof half);
        } else if (in_weights && half_at[0] >= 0) {
            blocks_set_scale(type, row, bad);
        } else if (in_weights) {
            continue;
        }
        matmul_upload(&m);
        struct matmul_x x = matmul_x_of(type, TOKENS, n_cols, f);
        struct matmul_args a = matmul_args_of(&m, &x, dy);
        run(&a);
        emulator_download(y, dy, sizeof y);
        for (int k = 0; k < TOKENS * ROWS; k++) {
            bool is_bad = in_weights ? k % ROWS == BAD_ROW : k / ROWS == 1;
            if (isfinite(y[k]) == is_bad || (is_bad && isnan(bad) && !isnan(y[k]))) {
                TEST_FAIL("%s: %g of token %d, row %d, with %g in the %s",
                          type_info((uint32_t)type)->name, (double)y[k], k / ROWS, k % ROWS,
                          (double)bad, in_weights ? "weights" : "token");
            }
        }
        matmul_x_free(&x);
    }
    emulator_free(dy);
    matmul_matrix_free(&m);
    free(f);
}

#endif
