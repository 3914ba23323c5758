/* The pool: every index once, whatever the sizes; a million tiny jobs; sleepers wake; one thread;
 * idle members use no CPU. */
#include "kernels/cpu/pool.h"
#include "tests/test.h"

#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>

enum { MAX_N = 10000 };
static atomic_uchar hits[MAX_N];
static atomic_int bad;

struct shape {
    int64_t n, grain;
    int threads;
};

static void mark(void *arg, int64_t lo, int64_t hi, int thread)
{
    const struct shape *s = arg;
    bool is_aligned = lo % s->grain == 0 && (hi % s->grain == 0 || hi == s->n);
    if (lo >= hi || hi > s->n || !is_aligned || thread < 0 || thread >= s->threads) {
        atomic_fetch_add(&bad, 1);
    }
    for (int64_t i = lo; i < hi; i++) {
        atomic_fetch_add(&hits[i], 1);
    }
}

static void test_cover(struct pool *p)
{
    static const int64_t sizes[] = {0, 1, 2, 15, 16, 17, 31, 33, 257, 4096, MAX_N};
    static const int64_t grains[] = {1, 2, 3, 16, 100, MAX_N + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t j = 0; j < sizeof grains / sizeof *grains; j++) {
            struct shape s = {sizes[i], grains[j], pool_threads(p)};
            memset(hits, 0, sizeof hits);
            pool_run(p, s.n, s.grain, mark, &s);
            for (int64_t k = 0; k < MAX_N; k++) {
                CHECK_INT(hits[k], k < s.n);
            }
        }
    }
    CHECK_INT(bad, 0);
}

static void add(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    atomic_fetch_add_explicit((atomic_long *)arg, hi - lo, memory_order_relaxed);
}

static void test_many_jobs(struct pool *p, int n)
{
    atomic_long sum = 0;
    for (int i = 0; i < n; i++) {
        pool_run(p, 4, 1, add, &sum);
    }
    CHECK_INT(sum, 4L * n);
}

static void nap(void)
{
    nanosleep(&(struct timespec){0, 2 * 1000 * 1000}, NULL);
}

static void test_sleepers(struct pool *p)
{
    atomic_long sum = 0;
    for (int i = 0; i < 20; i++) {
        nap();
        pool_run(p, 64, 1, add, &sum);
    }
    CHECK_INT(sum, 20 * 64);
}

static void test_idle(void)
{
    struct rusage a, b;
    nap();
    getrusage(RUSAGE_SELF, &a);
    nanosleep(&(struct timespec){0, 100 * 1000 * 1000}, NULL);
    getrusage(RUSAGE_SELF, &b);
    long used_us =
        (b.ru_utime.tv_sec - a.ru_utime.tv_sec + b.ru_stime.tv_sec - a.ru_stime.tv_sec) * 1000000 +
        b.ru_utime.tv_usec - a.ru_utime.tv_usec + b.ru_stime.tv_usec - a.ru_stime.tv_usec;
    CHECK(used_us < 20 * 1000);
}

int main(void)
{
    struct pool *p = NULL;
    CHECK_INT(pool_create(0, &p), 0);
    CHECK(pool_threads(p) >= 1);
    pool_destroy(&p);
    CHECK(p == NULL);
    pool_destroy(&p);
    for (int threads = 1; threads <= 5; threads++) {
        CHECK_INT(pool_create(threads, &p), 0);
        CHECK_INT(pool_threads(p), threads);
        test_cover(p);
        test_sleepers(p);
        test_many_jobs(p, threads == 2 ? 1000000 : 1000);
        test_idle();
        pool_destroy(&p);
    }
    for (int i = 0; i < 200; i++) { /* ends while members are anywhere between start and sleep */
        CHECK_INT(pool_create(1 + i % 4, &p), 0);
        test_many_jobs(p, i % 3);
        pool_destroy(&p);
    }
    return 0;
}
