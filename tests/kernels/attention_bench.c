/* Speed of attention alone: prefill in GFLOP/s (4 for a query, a position and a dimension), decode
 * in GB/s of the cache, beside a plain read and the multiply-add's own peak in the same run.
 *
 *     kernels_attention_bench [threads [heads kv_heads dim [depth [kv_type]]]]
 *
 * Layers enough that the caches of all together exceed the last-level cache. */
#include "kernels/cpu/ops_job.h"
#include "kernels/cpu/peak.h"
#include "shared/num.h"
#include "tests/test.h"

#include <sys/mman.h>
#include <time.h>

enum { ROUNDS = 15, TOKENS = 512, CACHE_BYTES = 96 << 20, HUGE_PAGE = 2 << 20 };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    int64_t n_head = argc > 2 ? atoi(argv[2]) : 14, n_kv = argc > 3 ? atoi(argv[3]) : 2;
    int64_t dim = argc > 4 ? atoi(argv[4]) : 64, depth = argc > 5 ? atoi(argv[5]) : 4096;
    const char *type = argc > 6 ? argv[6] : "F16";
    struct pool *pool = NULL;
    CHECK(pool_create(argc > 1 ? atoi(argv[1]) : 0, &pool) == 0);
    struct kv_layer layer = {.type = TYPE_F16,
                             .n_head = (int32_t)n_kv,
                             .dim_k = (int32_t)dim,
                             .dim_v = (int32_t)dim};
    static const enum type types[] = {TYPE_F32, TYPE_BF16, TYPE_Q8_0};
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        layer.type = strcmp(type_info(types[i])->name, type) == 0 ? types[i] : layer.type;
    }
    int64_t n_blocks = (depth + TOKENS) / KV_BLOCK + 1;
    size_t bytes = kv_block_bytes(&layer) * (size_t)n_blocks;
    int n_layers = (int)(CACHE_BYTES / bytes) + 1;
    struct kv_layer *layers = calloc((size_t)n_layers, sizeof *layers);
    int32_t *table = calloc((size_t)n_blocks, sizeof *table);
    float *x = calloc((size_t)(TOKENS * n_head * dim), sizeof *x);
    float *y = calloc((size_t)(TOKENS * n_head * dim), sizeof *y);
    CHECK(layers && table && x && y);
    uint64_t seed = 1;
    for (int64_t i = 0; i < TOKENS * n_head * dim; i++) {
        x[i] = (float)test_uniform(&seed);
    }
    for (int64_t i = 0; i < n_blocks; i++) {
        table[i] = (int32_t)i;
    }
    struct op_run run = {.n = TOKENS, .blocks = table};
    struct op_step s = {.isa = isa_detect(), .pool = pool, .runs = &run, .n_runs = 1, .kv = layers};
    struct op_rows kv = {.n = (int32_t)(n_kv * dim), .stride = n_kv * dim, .data = x};
    for (int i = 0; i < n_layers; i++) {
        layers[i] = layer;
        layers[i].data = aligned_alloc(HUGE_PAGE, num_pad(bytes, HUGE_PAGE));
        CHECK(layers[i].data);
        madvise(layers[i].data, bytes, MADV_HUGEPAGE); /* as the engine's cache has */
        memset(layers[i].data, 0, bytes);
        struct op_kv_write w = {.k = kv, .v = kv, .layer = i};
        for (run.pos = 0; run.pos + TOKENS <= depth + TOKENS; run.pos += TOKENS) {
            op_kv_write_run(&w, &s, TOKENS);
        }
    }
    struct op_rows rows = {.n = (int32_t)(n_head * dim), .stride = n_head * dim, .data = x};
    struct op_attention o = {.q = rows, .y = rows, .n_head = (int32_t)n_head, .scale = 0.125f};
    o.y.data = y;
    s.scratch = aligned_alloc(64, (op_attention_scratch(&o, &layer, depth + TOKENS,
                                                        pool_threads(pool)) + 63) / 64 * 64);
    CHECK(s.scratch);
    printf("plain read %.1f GB/s, multiply-add peak (of the 8-bit products': a quarter) %.0f "
           "GFLOP/s\n",
           1e-9 * peak_read_rate(pool), 0.25e-9 * peak_dot_rate(pool, s.isa));
    run.pos = depth;
    for (run.n = 1; run.n <= TOKENS; run.n *= 8) {
        double best = 1e9;
        for (int r = 0; r < ROUNDS; r++) {
            double t = now_s();
            for (int i = 0; i < (run.n == 1 ? n_layers : 1); i++) {
                o.layer = i;
                op_attention_run(&o, &s, run.n);
            }
            best = MIN(best, (now_s() - t) / (double)(run.n == 1 ? n_layers : 1));
        }
        double read = (double)(bytes / (size_t)n_blocks) * (double)depth / KV_BLOCK;
        double ops = 4.0 * (double)(run.n * n_head * dim) * ((double)depth + 0.5 * (double)run.n);
        printf("%4d tokens at %d: %8.1f us, %6.1f GB/s, %7.1f GFLOP/s\n", (int)run.n, (int)depth,
               1e6 * best, 1e-9 * read / best, 1e-9 * ops / best);
    }
    return 0;
}
