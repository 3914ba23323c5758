/* Ceilings of the machine (see peak.h). Drives the pool; blocks for the time it measures. */
#include "kernels/cpu/peak.h"
#include "shared/clock.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    READ_BYTES = 256 << 20,
    READ_ROUNDS = 7,
    DOT_STEPS = 1 << 22,
    GLANCE_STEPS = 1 << 14,
    DOT_ROUNDS = 5,
    CHAINS = 12,
};

static void read_slice(void *arg, int64_t lo, int64_t hi, int thread)
{
    const struct peak_read *r = arg;
    uint64_t sum[8] = {0};
    for (int64_t i = lo; i < hi; i += 8) {
        for (int k = 0; k < 8; k++) {
            sum[k] += r->data[i + k];
        }
    }
    for (int k = 0; k < 8; k++) {
        r->sums[thread * 8] += sum[k];
    }
}

int peak_read_open(struct peak_read *r, struct pool *pool)
{
    *r = (struct peak_read){.pool = pool,
                            .data = aligned_alloc(2 << 20, READ_BYTES),
                            .sums = calloc((size_t)pool_threads(pool) * 8, sizeof(uint64_t))};
    if (!r->data || !r->sums) {
        peak_read_close(r);
        return -ENOMEM;
    }
    madvise(r->data, READ_BYTES, MADV_HUGEPAGE); /* as packed weights have */
    memset(r->data, 1, READ_BYTES);
    return 0;
}

void peak_read_close(struct peak_read *r)
{
    free(r->data);
    free(r->sums);
    *r = (struct peak_read){0};
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double peak_read_now(const struct peak_read *r)
{
    double rate[READ_ROUNDS];
    for (int i = 0; i < READ_ROUNDS; i++) {
        uint64_t start = clock_ns();
        pool_run(r->pool, READ_BYTES / 8, 1 << 15, read_slice, (void *)(uintptr_t)r);
        rate[i] = READ_BYTES / ((double)(clock_ns() - start) * 1e-9);
    }
    qsort(rate, READ_ROUNDS, sizeof(rate[0]), by_value);
    return rate[READ_ROUNDS / 2];
}

double peak_read_rate(struct pool *pool)
{
    struct peak_read r;
    if (peak_read_open(&r, pool) < 0) {
        return NAN;
    }
    double rate = peak_read_now(&r);
    peak_read_close(&r);
    return rate;
}

/* Independent chains of dot products, so that their latency hides; they begin differently, since a
 * compiler computes equal ones once. Each function returns the operations done; the sums go to *sink,
 * so that nothing is optimised away. */
typedef double dot_fn(int64_t n_steps, uint32_t *sink);

static double dot_scalar(int64_t n_steps, uint32_t *sink)
{
    volatile int32_t seed = 3;
    int32_t sums[CHAINS] = {0}, x = seed;
    for (int64_t i = 0; i < n_steps; i++) {
        for (int c = 0; c < CHAINS; c++) {
            sums[c] += (int8_t)(x + c) * (int8_t)i;
        }
    }
    for (int c = 0; c < CHAINS; c++) {
        *sink += (uint32_t)sums[c];
    }
    return (double)n_steps * CHAINS * 2;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static double dot_avx2(int64_t n_steps, uint32_t *sink)
{
    volatile char seed = 3;
    __m256i sums[CHAINS], x = _mm256_set1_epi8(seed), ones = _mm256_set1_epi16(1);
    for (int c = 0; c < CHAINS; c++) {
        sums[c] = _mm256_set1_epi32(c);
    }
    for (int64_t i = 0; i < n_steps; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) {
            __m256i pairs = _mm256_maddubs_epi16(x, _mm256_xor_si256(x, sums[c]));
            sums[c] = _mm256_add_epi32(sums[c], _mm256_madd_epi16(pairs, ones));
        }
    }
    for (int c = 1; c < CHAINS; c++) {
        sums[0] = _mm256_add_epi32(sums[0], sums[c]);
    }
    *sink += (uint32_t)_mm256_extract_epi32(sums[0], 0);
    return (double)n_steps * CHAINS * 32 * 2;
}

__attribute__((target("avx2,avxvnni"))) static double dot_avx_vnni(int64_t n_steps, uint32_t *sink)
{
    volatile char seed = 3;
    __m256i sums[CHAINS], x = _mm256_set1_epi8(seed);
    for (int c = 0; c < CHAINS; c++) {
        sums[c] = _mm256_set1_epi32(c);
    }
    for (int64_t i = 0; i < n_steps; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) {
            sums[c] = _mm256_dpbusd_avx_epi32(sums[c], x, x);
        }
    }
    for (int c = 1; c < CHAINS; c++) {
        sums[0] = _mm256_add_epi32(sums[0], sums[c]);
    }
    *sink += (uint32_t)_mm256_extract_epi32(sums[0], 0);
    return (double)n_steps * CHAINS * 32 * 2;
}

__attribute__((target("avx512f,avx512vnni"))) static double dot_avx512(int64_t n_steps,
                                                                       uint32_t *sink)
{
    volatile char seed = 3;
    __m512i sums[CHAINS], x = _mm512_set1_epi8(seed);
    for (int c = 0; c < CHAINS; c++) {
        sums[c] = _mm512_set1_epi32(c);
    }
    for (int64_t i = 0; i < n_steps; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) {
            sums[c] = _mm512_dpbusd_epi32(sums[c], x, x);
        }
    }
    for (int c = 1; c < CHAINS; c++) {
        sums[0] = _mm512_add_epi32(sums[0], sums[c]);
    }
    *sink += (uint32_t)_mm_cvtsi128_si32(_mm512_castsi512_si128(sums[0]));
    return (double)n_steps * CHAINS * 64 * 2;
}
#endif

static dot_fn *dot_of(enum isa isa)
{
#if defined(__x86_64__)
    if (isa == ISA_AVX512) {
        return dot_avx512;
    }
    if (isa == ISA_AVX2) {
        return isa_has_avx_vnni() ? dot_avx_vnni : dot_avx2;
    }
#endif
    (void)isa;
    return dot_scalar;
}

struct dot_job {
    dot_fn *fn;
    uint32_t *sinks; /* per thread, 64 bytes apart */
};

static void dot_slice(void *arg, int64_t lo, int64_t hi, int thread)
{
    struct dot_job *j = arg;
    j->fn(hi - lo, &j->sinks[thread * 16]);
}

static double dot_rate(struct pool *pool, enum isa isa, int64_t n_steps, int n_rounds)
{
    struct dot_job j = {.fn = dot_of(isa),
                        .sinks = calloc((size_t)pool_threads(pool) * 16, sizeof(uint32_t))};
    double best = NAN;
    if (j.sinks) {
        double ops_per_step = j.fn(1, j.sinks);
        for (int i = 0; i < n_rounds; i++) {
            uint64_t start = clock_ns();
            pool_run(pool, n_steps, n_steps / 256, dot_slice, &j);
            double s = (double)(clock_ns() - start) * 1e-9;
            best = fmax(best, (double)n_steps * ops_per_step / s);
        }
    }
    free(j.sinks);
    return best;
}

double peak_dot_rate(struct pool *pool, enum isa isa)
{
    return dot_rate(pool, isa, DOT_STEPS, DOT_ROUNDS);
}

double peak_dot_glance(struct pool *pool, enum isa isa)
{
    return dot_rate(pool, isa, GLANCE_STEPS, DOT_ROUNDS);
}
