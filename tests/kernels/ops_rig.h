/* What the tests of the ops share: rows with guards around them, steps without an engine,
 * comparison with double precision. Every check runs on every instruction set of the machine and
 * with one and three threads. */
#ifndef TESTS_KERNELS_OPS_RIG_H
#define TESTS_KERNELS_OPS_RIG_H

#include "kernels/ops.h"
#include "tests/test.h"

enum { RIG_GUARD = 64 }; /* floats before and after, which nobody may touch */

struct rig_rows {
    struct op_rows r;
    float *memory;
    size_t n;
};

static inline struct rig_rows rig_rows(int64_t n_rows, int64_t n_cols)
{
    struct rig_rows b = {.n = (size_t)(n_rows * n_cols)};
    b.memory = malloc((b.n + 2 * RIG_GUARD) * sizeof *b.memory);
    CHECK(b.memory);
    for (size_t i = 0; i < b.n + 2 * RIG_GUARD; i++) {
        b.memory[i] = 12345.0f;
    }
    b.r = (struct op_rows){.n = (int32_t)n_cols, .stride = n_cols, .data = b.memory + RIG_GUARD};
    return b;
}

static inline struct rig_rows rig_random(int64_t n_rows, int64_t n_cols, double scale,
                                         uint64_t *seed)
{
    struct rig_rows b = rig_rows(n_rows, n_cols);
    for (size_t i = 0; i < b.n; i++) {
        b.r.data[i] = (float)(scale * test_uniform(seed));
    }
    return b;
}

static inline void rig_free(struct rig_rows *b)
{
    for (size_t i = 0; i < RIG_GUARD; i++) {
        CHECK(b->memory[i] == 12345.0f && b->memory[RIG_GUARD + b->n + i] == 12345.0f);
    }
    free(b->memory);
}

static inline float *rig_at(const struct rig_rows *b, int64_t row)
{
    return b->r.data + row * b->r.stride;
}

static inline float *rig_vec(int64_t n, double center, double scale, uint64_t *seed)
{
    float *v = malloc((size_t)n * sizeof *v);
    CHECK(v);
    for (int64_t i = 0; i < n; i++) {
        v[i] = (float)(center + scale * test_uniform(seed));
    }
    return v;
}

/* Each value within limit of the exact one, relative to the largest exact value of the row. */
static inline void rig_compare(const char *what, enum isa isa, const float *got,
                               const double *exact, int64_t n, double limit)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs(exact[i]));
    }
    for (int64_t i = 0; i < n; i++) {
        double error = fabs((double)got[i] - exact[i]);
        if (!(error <= limit * largest + 1e-30)) {
            TEST_FAIL(
                "%s, %s: value %lld is %.9g, exactly %.9g, largest %.3g: error %.2e over %.2e",
                what, isa_name(isa), (long long)i, (double)got[i], exact[i], largest,
                error / largest, limit);
        }
    }
}

struct rig {
    struct op_step step;
    struct pool *pool;
    int32_t *tokens, *positions;
    struct op_run run;
    int n_threads;
};

/* A step of n rows of one sequence at pos. Iterate with rig_next. */
static inline void rig_init(struct rig *g, int64_t n_rows, int64_t pos)
{
    *g = (struct rig){.n_threads = 0};
    CHECK(n_rows > 0 && n_rows < 1 << 20);
    g->tokens = calloc((size_t)n_rows, sizeof *g->tokens);
    g->positions = calloc((size_t)n_rows, sizeof *g->positions);
    CHECK(g->tokens && g->positions);
    for (int64_t i = 0; i < n_rows; i++) {
        g->positions[i] = (int32_t)(pos + i);
    }
    g->run = (struct op_run){.first = 0, .n = n_rows, .pos = pos};
    g->step = (struct op_step){.isa = isa_detect(),
                               .n_rows = n_rows,
                               .tokens = g->tokens,
                               .positions = g->positions,
                               .runs = &g->run,
                               .n_runs = 1};
}

/* True for each instruction set, first with one thread and then with three; step.isa and step.pool
 * are set. Frees everything when it returns false. */
static inline bool rig_next(struct rig *g)
{
    bool is_last_isa = g->n_threads != 0 && g->step.isa == isa_detect();
    if (g->n_threads == 0 || is_last_isa) { /* 1 thread, then 3, then the end */
        g->n_threads = g->n_threads == 0 ? 1 : g->n_threads + 2;
        g->step.isa = ISA_SCALAR;
        pool_destroy(&g->pool);
        if (g->n_threads > 3) {
            free(g->tokens);
            free(g->positions);
            return false;
        }
        CHECK(pool_create(g->n_threads, &g->pool) == 0);
        g->step.pool = g->pool;
    } else {
        g->step.isa++;
    }
    return true;
}

#endif
