/* Speed of matrix products: for each type and instruction set, decode (1 token) in GB/s of weights
 * and prefill (512 tokens) in GOP/s (2 per multiply-add), beside a plain streaming read of the same
 * buffer size and the peak of the integer dot product, measured in the same run.
 *
 *     kernels_matmul_bench [threads [rows cols [type...]]]
 *
 * The decode matrices together exceed the last-level cache, so weights come from memory. */
#include "kernels/matmul.h"

#include "tests/kernels/blocks.h"

#include <time.h>

enum { TOKENS = 512, ROUNDS = 5, STREAM_BYTES = 192 << 20 };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --- the two walls --------------------------------------------------------------------------- */

typedef long long word8 __attribute__((vector_size(64)));

static void read_slice(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const word8 *p = (const word8 *)arg;
    word8 a = {0}, b = {0}, c = {0}, d = {0};
    for (int64_t i = lo; i < hi; i += 4) {
        a |= p[i];
        b |= p[i + 1];
        c |= p[i + 2];
        d |= p[i + 3];
    }
    __asm__ volatile("" ::"m"(a), "m"(b), "m"(c), "m"(d));
}

static double stream_gbs(struct pool *pool, void *buffer, size_t bytes)
{
    double best = 1e9;
    for (int i = 0; i < ROUNDS; i++) {
        double t = now_s();
        pool_run(pool, (int64_t)(bytes / sizeof(word8)), 4096, read_slice, buffer);
        best = fmin(best, now_s() - t);
    }
    return (double)bytes / best * 1e-9;
}

/* --- one type -------------------------------------------------------------------------------- */

static void bench(struct pool *pool, enum type type, enum isa isa, int64_t rows, int64_t cols)
{
    size_t bytes = type_row_bytes(type, (size_t)cols) * (size_t)rows;
    int n = (int)MAX(MIN(STREAM_BYTES / bytes, 256), 1);
    uint64_t seed = 1;
    uint8_t *data = malloc(bytes);
    blocks_fill(type, data, rows * cols, &seed);
    struct matmul_weight *w = calloc((size_t)n, sizeof *w);
    double pack = now_s();
    for (int i = 0; i < n; i++) {
        if (matmul_prepare(&w[i], type, isa, rows, cols, data, pool) != 0) {
            exit(1);
        }
    }
    pack = (now_s() - pack) / n;
    size_t act_bytes = matmul_act_bytes(w->act, cols) * TOKENS;
    float *x = malloc((size_t)(cols * TOKENS) * sizeof *x);
    float *y = malloc((size_t)(rows * TOKENS) * sizeof *y);
    void *act = aligned_alloc(64, act_bytes);
    for (int64_t i = 0; i < cols * TOKENS; i++) {
        x[i] = (float)test_uniform(&seed);
    }
    matmul_act(isa, w->act, x, act, TOKENS, cols, pool);
    struct matmul m = {.w = w, .x = act, .y = y, .y_stride = rows, .n_tokens = 1};
    static const int64_t tokens[] = {1, 2, 4, 8, 16, TOKENS};
    double best[COUNT_OF(tokens)];
    for (size_t k = 0; k < COUNT_OF(tokens); k++) {
        bool is_prefill = tokens[k] >= 16;
        m.n_tokens = tokens[k];
        best[k] = 1e9;
        for (int r = 0; r < ROUNDS; r++) {
            double t = now_s();
            int count = is_prefill ? 1 : n;
            for (int i = 0; i < count; i++) {
                m.w = &w[i];
                matmul_run(&m, pool);
            }
            best[k] = fmin(best[k], (now_s() - t) / count);
        }
    }
    double ops = 2.0 * (double)rows * (double)cols;
    printf("%-8s %-7s pack %6.2f ns/w   GB/s:", type_info(type)->name, isa_name(isa),
           pack / (double)(rows * cols) * 1e9);
    for (size_t k = 0; k < 4; k++) {
        printf(" %6.2f", (double)bytes / best[k] * 1e-9);
    }
    printf("   GOP/s: x16 %7.1f  x512 %7.1f\n", ops * 16 / best[4] * 1e-9,
           ops * TOKENS / best[5] * 1e-9);
    fflush(stdout);
    for (int i = 0; i < n; i++) {
        matmul_finish(&w[i]);
    }
    free(w);
    free(data);
    free(x);
    free(y);
    free(act);
}

int main(int argc, char **argv)
{
    struct pool *pool;
    int threads = argc > 1 ? atoi(argv[1]) : 0;
    int64_t rows = argc > 3 ? atoll(argv[2]) : 4864, cols = argc > 3 ? atoll(argv[3]) : 896;
    cols -= cols % 256;
    if (pool_create(threads, &pool) != 0) {
        return 1;
    }
    void *buffer = aligned_alloc(64, STREAM_BYTES);
    memset(buffer, 1, STREAM_BYTES);
    printf("%d threads, %" PRId64 " x %" PRId64 "; GB/s for 1, 2, 4, 8 tokens\n",
           pool_threads(pool), rows, cols);
    for (int isa = isa_detect(); isa >= ISA_AVX2; isa--) {
        for (int i = 0; i < BLOCKS_N_TYPES; i++) {
            bool is_wanted = argc <= 4;
            for (int k = 4; k < argc; k++) {
                is_wanted |= type_by_name(argv[k]) == (int)blocks_types[i];
            }
            if (is_wanted) {
                bench(pool, blocks_types[i], (enum isa)isa, rows, cols);
            }
        }
        printf("plain read %.1f GB/s\n", stream_gbs(pool, buffer, STREAM_BYTES));
    }
    free(buffer);
    pool_destroy(&pool);
    return 0;
}
