/* Matrix multiplication: packing weights, converting activations, and choosing the kernel.
 * Runs on the token loop's thread and its pool; prepare allocates, the rest does not. */
#include "kernels/matmul.h"

#include "kernels/cpu/grid_words.h"
#include "kernels/cpu/matmul_kernel.h"
#include "kernels/cpu/panel.h"
#include "kernels/quant.h"
#include "shared/num.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE_BYTES ((size_t)2 << 20)
/* Weights, times tokens, that are worth a slice. A thread's slices are neighbours (pool.c), and a tile asks
 * for what comes behind its end; so small ones cost little, and the threads end together. */
#define SLICE_BYTES ((size_t)256 << 10)
#define FEW_SLICES 8 /* for each thread, at least */
#define MANY_ROWS ((int64_t)256) /* with many tokens: what is fetched of x serves all of them */
#define MANY_SLICES 2            /* for each thread, at least */

static const struct matmul_kernel *kernel_of(enum isa isa)
{
#if defined(__x86_64__)
    if (isa == ISA_AVX512) {
        return &matmul_avx512;
    }
    return isa_has_avx_vnni() ? &matmul_avx2_vnni : &matmul_avx2;
#else
    (void)isa;
    return NULL;
#endif
}

struct packing {
    const struct matmul_weight *w;
    int64_t first; /* panel */
    void *to;
};

static void pack_panels(void *arg, int64_t lo, int64_t hi, int thread)
{
    const struct packing *p = arg;
    const struct matmul_weight *w = p->w;
    (void)thread;
    for (int64_t i = lo; i < hi; i++) {
        panel_pack(w->type, w->data, w->n_rows, w->n_cols, p->first + i, p->to);
    }
}

static enum matmul_act act_of(enum type type, int64_t n_cols)
{
    if (panel_is_words(type, n_cols)) {
        return MATMUL_ACT_Q16;
    }
    switch (type) {
    case TYPE_F32:
    case TYPE_F16:
    case TYPE_BF16:
        return MATMUL_ACT_F32;
    case TYPE_Q4_1:
    case TYPE_Q5_0:
    case TYPE_Q5_1:
    case TYPE_Q1_0:
    case TYPE_Q2_0:
    case TYPE_NVFP4:
        return MATMUL_ACT_Q8_16;
    default:
        return MATMUL_ACT_Q8;
    }
}

int matmul_describe(struct matmul_weight *w, enum type type, enum isa isa, int64_t n_rows,
                    int64_t n_cols, const void *data)
{
    if (!quant_decoder(type)) {
        return -ENOTSUP;
    }
    *w = (struct matmul_weight){
        .type = type,
        .isa = isa,
        .n_rows = n_rows,
        .n_cols = n_cols,
        .data = data,
        .row_bytes = type_row_bytes(type, (size_t)n_cols),
        .act = MATMUL_ACT_F32,
    };
    if (isa != ISA_SCALAR) {
        grid_words_make();
        w->act = act_of(type, n_cols);
        w->packed_bytes = panel_bytes(type, n_rows, n_cols);
    }
    return 0;
}

void matmul_pack(const struct matmul_weight *w, int64_t lo, int64_t hi, void *to, struct pool *pool)
{
    ASSERT(lo % PANEL_ROWS == 0);
    struct packing p = {w, lo / PANEL_ROWS, to};
    pool_run(pool, (hi - lo + PANEL_ROWS - 1) / PANEL_ROWS, 1, pack_panels, &p);
}

int matmul_prepare(struct matmul_weight *w, enum type type, enum isa isa, int64_t n_rows,
                   int64_t n_cols, const void *data, struct pool *pool)
{
    struct matmul_weight ready;
    int err = matmul_describe(&ready, type, isa, n_rows, n_cols, data);
    if (err < 0) {
        return err;
    }
    if (ready.packed_bytes > 0) {
        bool is_large = ready.packed_bytes >= HUGE_PAGE_BYTES;
        if (posix_memalign(&ready.owned, is_large ? HUGE_PAGE_BYTES : 64, ready.packed_bytes)) {
            return -ENOMEM;
        }
        if (is_large) { /* advice only: with huge pages a stream of weights misses the TLB less */
            madvise(ready.owned, ready.packed_bytes, MADV_HUGEPAGE);
        }
        ready.packed = ready.owned;
        matmul_pack(&ready, 0, n_rows, ready.owned, pool);
    }
    *w = ready;
    return 0;
}

void matmul_finish(struct matmul_weight *w)
{
    free(w->owned);
    *w = (struct matmul_weight){0};
}

size_t matmul_act_bytes(enum matmul_act act, int64_t n_cols)
{
    if (act == MATMUL_ACT_F32) {
        return num_pad((size_t)n_cols * sizeof(float), 64);
    }
    /* An odd number of cache lines: rows a power of two apart would share a few sets of the cache.
     */
    if (act == MATMUL_ACT_Q16) {
        size_t blocks = (size_t)panel_words_blocks(panel_words_units(n_cols));
        return (blocks * sizeof(struct matmul_words) / 64 | 1) * 64;
    }
    size_t units = (size_t)n_cols / PANEL_UNIT;
    return (units | 1) * sizeof(struct matmul_unit);
}

struct conversion {
    const struct matmul_kernel *kernel;
    enum matmul_act act;
    const float *x;
    char *y;
    int64_t n_cols;
    size_t stride;
};

static void convert_rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    const struct conversion *c = arg;
    (void)thread;
    for (int64_t i = lo; i < hi; i++) {
        c->kernel->act(c->act, c->x + i * c->n_cols, (void *)(c->y + (size_t)i * c->stride),
                       c->n_cols / PANEL_UNIT);
    }
}

void matmul_act(enum isa isa, enum matmul_act act, const float *x, void *y, int64_t n_rows,
                int64_t n_cols, struct pool *pool)
{
    if (act == MATMUL_ACT_F32) {
        memcpy(y, x, (size_t)n_rows * (size_t)n_cols * sizeof *x);
        return;
    }
    struct conversion c = {kernel_of(isa), act, x, y, n_cols, matmul_act_bytes(act, n_cols)};
    if (pool) {
        pool_run(pool, n_rows, 1, convert_rows, &c);
    } else {
        convert_rows(&c, 0, n_rows, 0);
    }
}

void matmul_slice(const struct matmul *m, int64_t lo, int64_t hi)
{
    if (m->w->isa == ISA_SCALAR) {
        matmul_scalar_rows(m, lo, hi);
    } else {
        ASSERT(lo % PANEL_ROWS == 0);
        kernel_of(m->w->isa)->run(m, lo / PANEL_ROWS, (hi + PANEL_ROWS - 1) / PANEL_ROWS);
    }
}

static void run_slice(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    matmul_slice(arg, lo, hi);
}

int64_t matmul_slice_rows(const struct matmul_weight *w, int64_t job_rows, int64_t n_tokens,
                          int n_threads)
{
    int64_t rows = (int64_t)(SLICE_BYTES / MAX(w->row_bytes * (size_t)n_tokens, (size_t)1));
    rows = MIN(rows, job_rows / (FEW_SLICES * n_threads));
    int64_t grain = MATMUL_GRAIN;
    if (n_tokens >= MATMUL_MANY_TOKENS) {
        rows = MIN(w->n_rows / (MANY_SLICES * n_threads), MANY_ROWS);
        grain = (int64_t)2 * MATMUL_GRAIN; /* two panels share a tile */
    }
    return MAX(rows - rows % grain, grain);
}

void matmul_run(const struct matmul *m, struct pool *pool)
{
    const struct matmul_weight *w = m->w;
    int64_t n_tokens = MAX(m->n_tokens, (int64_t)1);
    int64_t grain = matmul_slice_rows(w, w->n_rows, n_tokens, pool_threads(pool));
    pool_run(pool, w->n_rows, grain, run_slice, (void *)(uintptr_t)m);
}

void matmul_row(enum type type, const void *data, int64_t row, int64_t n_cols, float *y)
{
    size_t row_bytes = type_row_bytes(type, (size_t)n_cols);
    quant_decoder(type)((const char *)data + (size_t)row * row_bytes, y, n_cols);
}
