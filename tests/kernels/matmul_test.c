/* Matrix products of every type, instruction set and odd size against sums in double precision of
 * the decoded weights. Activations are chosen so that their 8-bit form is exact, which makes the
 * comparison one of arithmetic alone; a second pass with ordinary activations bounds what the 8-bit
 * form costs. */
#include "kernels/matmul.h"

#include "kernels/cpu/matmul_kernel.h"
#include "tests/kernels/blocks.h"

enum { MAX_ROWS = 33, MAX_COLS = 768, MAX_TOKENS = 33 };

static struct pool *pool;

/* 32 integers times a power of two, one of each 16 being -127: exactly the 8-bit grid. */
static void fill_exact(float *x, int64_t n, uint64_t *seed)
{
    for (int64_t i = 0; i < n; i += 32) {
        float d = ldexpf(1.0f, (int)(test_random(seed) % 5) - 6);
        for (int64_t j = i; j < MIN(i + 32, n); j++) {
            x[j] = d * (float)((int)(test_random(seed) % 255) - 127);
        }
        for (int64_t j = i; j < MIN(i + 32, n); j += 16) {
            x[j + (int64_t)(test_random(seed) % (uint64_t)MIN(n - j, 16))] = d * -127.0f;
        }
    }
}

static void fill_plain(float *x, int64_t n, uint64_t *seed)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)(test_uniform(seed) + test_uniform(seed) + test_uniform(seed));
    }
}

struct product {
    enum type type;
    int64_t n_rows, n_cols, n_tokens;
    uint8_t *data; /* misaligned by one byte */
    float *x, *y, *bias, *add;
    void *act;
};

static void product_init(struct product *p, enum type t, int64_t rows, int64_t cols, int64_t tokens,
                         uint64_t *seed)
{
    size_t bytes = type_row_bytes(t, (size_t)cols) * (size_t)rows;
    *p = (struct product){t, rows, cols, tokens, NULL, NULL, NULL, NULL, NULL, NULL};
    p->data = (uint8_t *)malloc(bytes + 1) + 1;
    blocks_fill(t, p->data, rows * cols, seed);
    size_t n_x = (size_t)MAX(tokens * cols, 1), n_y = (size_t)MAX(tokens * rows, 1);
    p->x = malloc(n_x * sizeof(float));
    p->y = malloc(n_y * sizeof(float));
    p->add = malloc(n_y * sizeof(float));
    p->bias = malloc((size_t)rows * sizeof(float));
    p->act = aligned_alloc(64, matmul_act_bytes(MATMUL_ACT_Q16, cols) * (size_t)MAX(tokens, 1));
    fill_plain(p->add, tokens * rows, seed);
    fill_plain(p->bias, rows, seed);
}

static void product_finish(struct product *p)
{
    free(p->data - 1);
    free(p->x);
    free(p->y);
    free(p->add);
    free(p->bias);
    free(p->act);
}

static struct matmul product_job(struct product *p, const struct matmul_weight *w)
{
    const void *x = p->x;
    if (w->act != MATMUL_ACT_F32) {
        matmul_act(w->isa, w->act, p->x, p->act, p->n_tokens, p->n_cols, pool);
        x = p->act;
    }
    return (struct matmul){
        .w = w, .x = x, .y = p->y, .y_stride = p->n_rows, .n_tokens = p->n_tokens};
}

/* Sum over outputs of squared error and of squared truth; fails where one output is off by more
 * than `tolerance` times the sum of magnitudes. */
static double compare(const struct product *p, const struct matmul *m, double tolerance)
{
    double error = 0, truth = 1e-30;
    float *w = malloc((size_t)p->n_cols * sizeof(float));
    for (int64_t r = 0; r < p->n_rows; r++) {
        matmul_row(p->type, p->data, r, p->n_cols, w);
        double peak = 0;
        for (int64_t k = 0; k < p->n_cols; k++) {
            peak = fmax(peak, fabs((double)w[k]));
        }
        for (int64_t t = 0; t < p->n_tokens; t++) {
            const float *x = p->x + t * p->n_cols;
            double sum = 0, magnitude = 0;
            for (int64_t k = 0; k < p->n_cols; k++) {
                sum += (double)w[k] * (double)x[k];
                magnitude += peak * fabs((double)x[k]);
            }
            sum += m->bias ? (double)m->bias[r] : 0;
            sum += m->add ? (double)m->add[t * p->n_rows + r] : 0;
            double e = (double)p->y[t * p->n_rows + r] - sum;
            if (!(fabs(e) <= tolerance * (magnitude + 4))) {
                TEST_FAIL("%s %s rows %" PRId64 " cols %" PRId64 " tokens %" PRId64 ": y[%" PRId64
                          "][%" PRId64 "] off by %g of %g (magnitude %g)",
                          type_info(p->type)->name, isa_name(m->w->isa), p->n_rows, p->n_cols,
                          p->n_tokens, t, r, e, sum, magnitude);
            }
            error += e * e;
            truth += sum * sum;
        }
    }
    free(w);
    return error / truth;
}

static void test_sizes(enum type t, enum isa isa, uint64_t *seed)
{
    static const int64_t rows[] = {1, 3, 17, 33}, tokens[] = {0, 1, 2, 5, 33};
    int64_t block = type_info(t)->block_elems;
    const int64_t cols[] = {block == 1 ? 1 : block, block == 1 ? 37 : 3 * block,
                            block == 1 ? 352 : 2 * block};
    for (size_t i = 0; i < COUNT_OF(rows) * COUNT_OF(tokens) * COUNT_OF(cols); i++) {
        struct product p;
        struct matmul_weight w;
        product_init(&p, t, rows[i % 4], cols[i / 4 % 3], tokens[i / 12], seed);
        fill_exact(p.x, p.n_tokens * p.n_cols, seed);
        CHECK_INT(matmul_prepare(&w, t, isa, p.n_rows, p.n_cols, p.data, pool), 0);
        struct matmul m = product_job(&p, &w);
        m.bias = i % 3 ? p.bias : NULL;
        m.add = i % 5 ? p.add : NULL;
        matmul_run(&m, pool);
        compare(&p, &m, w.act == MATMUL_ACT_Q16 ? 5e-5 : 1e-6); /* whose weights are rounded too */
        fill_plain(p.x, p.n_tokens * p.n_cols, seed);
        m = product_job(&p, &w);
        matmul_run(&m, pool);
        double nmse = compare(&p, &m, 1e-2);
        CHECK(p.n_tokens * p.n_rows < 30 || nmse < (w.act == MATMUL_ACT_F32   ? 1e-12
                                                    : w.act == MATMUL_ACT_Q16 ? 2e-8
                                                                              : 4e-4));
        matmul_finish(&w);
        product_finish(&p);
    }
}

/* The same bits for any number of tokens, any slice, any number of threads, and on every vector
 * instruction set. */
static void test_invariance(enum type t, enum isa isa, int64_t cols, uint64_t *seed)
{
    static float *whole;
    const int64_t rows = 67, tokens = 64;
    struct product p;
    struct matmul_weight w;
    product_init(&p, t, rows, cols, tokens, seed);
    fill_plain(p.x, tokens * cols, seed);
    CHECK_INT(matmul_prepare(&w, t, isa, rows, cols, p.data, pool), 0);
    struct matmul m = product_job(&p, &w);
    matmul_run(&m, pool);
    size_t bytes = (size_t)(tokens * rows) * sizeof(float);
    whole = memcpy(realloc(whole, bytes), p.y, bytes);

    size_t x_stride =
        w.act == MATMUL_ACT_F32 ? (size_t)cols * sizeof(float) : matmul_act_bytes(w.act, cols);
    for (int64_t n = 1; n <= 17; n++) {
        int threads = 1 + (int)(n % 4);
        struct pool *team;
        CHECK_INT(pool_create(threads, &team), 0);
        int64_t first = (int64_t)(test_random(seed) % (uint64_t)(tokens - n));
        struct matmul part = m;
        part.x = (const char *)m.x + (size_t)first * x_stride;
        part.n_tokens = n;
        memset(p.y, 0xff, bytes);
        matmul_run(&part, team);
        CHECK(memcmp(p.y, whole + first * rows, (size_t)(n * rows) * sizeof(float)) == 0);
        memset(p.y, 0xff, bytes);
        for (int64_t r = 0; r < rows; r += MATMUL_GRAIN * (1 + n % 2)) {
            matmul_slice(&part, r, MIN(r + MATMUL_GRAIN * (1 + n % 2), rows));
        }
        CHECK(memcmp(p.y, whole + first * rows, (size_t)(n * rows) * sizeof(float)) == 0);
        pool_destroy(&team);
    }
#if defined(__x86_64__)
    if (isa != ISA_SCALAR) {
        const struct matmul_kernel *kernels[] = {&matmul_avx2, &matmul_avx2_vnni, &matmul_avx512};
        bool is_there[] = {true, isa_has_avx_vnni(), isa_detect() == ISA_AVX512};
        for (int i = 0; i < 3; i++) {
            if (!is_there[i]) {
                continue;
            }
            for (int64_t r = 0; w.act != MATMUL_ACT_F32 && r < tokens; r++) {
                kernels[i]->act(w.act, p.x + r * cols,
                                (char *)p.act + (size_t)r * x_stride, cols / 32);
            }
            memset(p.y, 0xff, bytes);
            kernels[i]->run(&m, 0, (rows + 15) / 16);
            CHECK(memcmp(p.y, whole, bytes) == 0);
        }
    }
#endif
    matmul_finish(&w);
    product_finish(&p);
}

/* What is not finite in one token or one row shows there and nowhere else. */
static void test_not_finite(enum type t, enum isa isa, int64_t cols, uint64_t *seed)
{
    const int64_t rows = 20, tokens = 3;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        struct product p;
        struct matmul_weight w;
        product_init(&p, t, rows, cols, tokens, seed);
        fill_plain(p.x, tokens * cols, seed);
        p.x[cols + 7] = bad[i];
        CHECK_INT(matmul_prepare(&w, t, isa, rows, cols, p.data, pool), 0);
        struct matmul m = product_job(&p, &w);
        matmul_run(&m, pool);
        for (int64_t r = 0; r < rows; r++) {
            CHECK(isfinite(p.y[r]) && isfinite(p.y[2 * rows + r]));
            CHECK(isa == ISA_SCALAR || !isfinite(p.y[rows + r]));
            CHECK(i != 0 || isnan(p.y[rows + r]));
        }
        matmul_finish(&w);
        int at[3];
        blocks_half_offsets(t, at);
        uint8_t *row = p.data + 5 * type_row_bytes(t, (size_t)cols);
        uint16_t half = t == TYPE_F16 ? half_from_f32(bad[i]) : half_bf16_from_f32(bad[i]);
        bool is_half = t == TYPE_F16 || t == TYPE_BF16;
        if (at[0] >= 0 || is_half) {
            fill_plain(p.x, tokens * cols, seed);
            if (is_half) {
                memcpy(row + 7 * sizeof half, &half, sizeof half);
            } else {
                blocks_set_scale(t, row + type_info(t)->block_bytes, bad[i]);
            }
            CHECK_INT(matmul_prepare(&w, t, isa, rows, cols, p.data, pool), 0);
            m = product_job(&p, &w);
            matmul_run(&m, pool);
            for (int64_t r = 0; r < rows * tokens; r++) {
                CHECK(!isfinite(p.y[r]) == (r % rows == 5));
            }
            matmul_finish(&w);
        }
        product_finish(&p);
    }
}

static void test_tiny_and_huge(enum isa isa, uint64_t *seed)
{
    static const float sizes[] = {0, 1e-45f, 1e-38f, 1e-30f, 1e30f};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct product p;
        struct matmul_weight w;
        product_init(&p, TYPE_Q8_0, 1, 64, 1, seed);
        for (int k = 0; k < 64; k++) {
            p.x[k] = sizes[i] * (float)(k % 3 - 1);
        }
        CHECK_INT(matmul_prepare(&w, TYPE_Q8_0, isa, 1, 64, p.data, pool), 0);
        struct matmul m = product_job(&p, &w);
        matmul_run(&m, pool);
        CHECK(isfinite(p.y[0]) && fabsf(p.y[0]) <= 1000 * sizes[i]);
        matmul_finish(&w);
        product_finish(&p);
    }
}

int main(void)
{
    uint64_t seed = 1;
    struct matmul_weight w;
    CHECK_INT(pool_create(2, &pool), 0);
    CHECK(matmul_prepare(&w, TYPE_I32, ISA_SCALAR, 1, 32, &w, pool) != 0);
    CHECK(matmul_prepare(&w, TYPE_Q8_1, ISA_SCALAR, 1, 32, &w, pool) != 0);
    for (int isa = ISA_SCALAR; isa <= (int)isa_detect(); isa++) {
        for (int i = 0; i < BLOCKS_N_TYPES; i++) {
            test_sizes(blocks_types[i], (enum isa)isa, &seed);
            bool is_float = type_info(blocks_types[i])->block_elems == 1;
            test_invariance(blocks_types[i], (enum isa)isa, is_float ? 352 : 768, &seed);
            if (is_float) {
                test_invariance(blocks_types[i], (enum isa)isa, 333, &seed);
            }
            test_not_finite(blocks_types[i], (enum isa)isa, 512, &seed);
            if (is_float) {
                test_not_finite(blocks_types[i], (enum isa)isa, 333, &seed);
            }
        }
        test_tiny_and_huge((enum isa)isa, &seed);
    }
    pool_destroy(&pool);
    return 0;
}
