/* Speed of matrix products, for each kernel and type: decode (1, 2, 4, 8 tokens) in GB/s of weights
 * and prefill (16, 512 tokens) in GOP/s (2 for a multiply-add), beside the walls measured in the
 * same run: a plain streaming read, and the integer dot product on registers.
 *
 *     kernels_matmul_bench [threads [rows cols [type...]]]
 *
 * The decode matrices together exceed the last-level cache, so weights come from memory. */
#include "kernels/matmul.h"

#include "kernels/cpu/matmul_kernel.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/peak.h"
#include "tests/kernels/blocks.h"

#include <time.h>

enum { TOKENS = 512, ROUNDS = 7, DECODE_BYTES = 192 << 20 };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --- one type and kernel --------------------------------------------------------------------- */

struct run {
    const struct matmul_kernel *kernel;
    struct matmul m;
};

static void run_panels(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct run *r = arg;
    r->kernel->run(&r->m, lo, hi);
}

static void bench(struct pool *pool, const char *name, const struct matmul_kernel *kernel,
                  enum type type, int64_t rows, int64_t cols)
{
    static const int64_t tokens[] = {1, 2, 4, 8, 16, TOKENS};
    double best[COUNT_OF(tokens)];
    size_t bytes = type_row_bytes(type, (size_t)cols) * (size_t)rows;
    int n = (int)MAX(MIN(DECODE_BYTES / bytes, 256), 1);
    uint64_t seed = 1;
    uint8_t *data = malloc(bytes);
    blocks_fill(type, data, rows * cols, &seed);
    struct matmul_weight *w = calloc((size_t)n, sizeof *w);
    double pack = 1e9;
    for (int i = 0; i < n; i++) {
        double t = now_s();
        if (matmul_prepare(&w[i], type, ISA_AVX2, rows, cols, data, pool) != 0) {
            exit(1);
        }
        pack = fmin(pack, now_s() - t);
    }
    float *x = malloc((size_t)(cols * TOKENS) * sizeof *x);
    float *y = malloc((size_t)(rows * TOKENS) * sizeof *y);
    void *act = aligned_alloc(64, matmul_act_bytes(w->act, cols) * TOKENS);
    for (int64_t i = 0; i < cols * TOKENS; i++) {
        x[i] = (float)test_uniform(&seed);
    }
    matmul_act(ISA_AVX2, w->act, x, act, TOKENS, cols, pool);
    for (size_t k = 0; k < COUNT_OF(tokens); k++) {
        struct run r = {kernel, {.x = act, .y = y, .y_stride = rows, .n_tokens = tokens[k]}};
        best[k] = 1e9;
        for (int round = 0; round < ROUNDS; round++) {
            int count = tokens[k] >= 16 ? 1 : n;
            double t = now_s();
            for (int i = 0; i < count; i++) {
                r.m.w = &w[i];
                pool_run(pool, (rows + PANEL_ROWS - 1) / PANEL_ROWS, 4, run_panels, &r);
            }
            best[k] = fmin(best[k], (now_s() - t) / count);
        }
    }
    double ops = 2.0 * (double)rows * (double)cols;
    printf("%-8s %-9s pack %5.2f ns/w   GB/s", type_info(type)->name, name,
           pack / (double)(rows * cols) * 1e9);
    for (size_t k = 0; k < 4; k++) {
        printf(" %6.1f", (double)bytes / best[k] * 1e-9);
    }
    printf("   GOP/s x16 %6.0f  x512 %6.0f\n", ops * 16 / best[4] * 1e-9,
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
    const struct {
        const char *name;
        const struct matmul_kernel *kernel;
        bool is_there;
    } kernels[] = {
        {"avx512", &matmul_avx512, isa_detect() == ISA_AVX512},
        {"avx2+vnni", &matmul_avx2_vnni, isa_has_avx_vnni()},
        {"avx2", &matmul_avx2, isa_detect() >= ISA_AVX2},
    };
    struct pool *pool;
    int threads = argc > 1 ? atoi(argv[1]) : 0;
    int64_t rows = argc > 3 ? atoll(argv[2]) : 4864, cols = argc > 3 ? atoll(argv[3]) : 1024;
    if (pool_create(threads, &pool) != 0 || cols % 256 != 0 || rows < 1) {
        fprintf(stderr, "usage: matmul_bench [threads [rows cols(a multiple of 256) [type...]]]\n");
        return 1;
    }
    printf("%d threads, %" PRId64 " x %" PRId64 "; GB/s for 1, 2, 4, 8 tokens\n",
           pool_threads(pool), rows, cols);
    for (size_t v = 0; v < COUNT_OF(kernels); v++) {
        for (int i = 0; i < BLOCKS_N_TYPES && kernels[v].is_there; i++) {
            bool is_wanted = argc <= 4;
            for (int k = 4; k < argc; k++) {
                is_wanted |= type_by_name(argv[k]) == (int)blocks_types[i];
            }
            if (is_wanted) {
                bench(pool, kernels[v].name, kernels[v].kernel, blocks_types[i], rows, cols);
            }
        }
        printf("plain read %.1f GB/s, 8-bit dot product %.0f GOP/s\n", peak_read_rate(pool) * 1e-9,
               peak_dot_rate(pool, v == 0 && kernels[0].is_there ? ISA_AVX512 : ISA_AVX2) * 1e-9);
    }
    pool_destroy(&pool);
    return 0;
}
