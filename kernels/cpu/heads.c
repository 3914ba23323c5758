/* Conversion of activations, and a matrix for each head. (Plain products: products.c.) */
#include "kernels/cpu/ops_job.h"
#include "shared/num.h"

#include <string.h>

void op_convert_run(const struct op_convert *o, const struct op_step *s, int64_t n)
{
    struct pool *pool = n * o->n <= OPS_JOB_VALUES ? NULL : s->pool;
    matmul_act(s->isa, (enum matmul_act)o->act, o->x.data, o->y.data, n, o->n, pool);
}

/* --- heads: each thread gathers the rows of its head, converts and multiplies them -----------------*/

enum { HEADS_ROWS = 16 }; /* rows gathered at a time: they stay in the cache */

struct heads {
    const struct op_heads *o;
    const struct op_step *s;
    int64_t n_rows;
    int64_t n_slices; /* of HEADS_ROWS rows */
};

static size_t heads_gather_bytes(const struct op_heads *o)
{
    return num_pad((size_t)(HEADS_ROWS * o->w->n_cols) * sizeof(float), 64);
}

static size_t heads_thread_bytes(const struct op_heads *o)
{
    return heads_gather_bytes(o) + HEADS_ROWS * matmul_act_bytes(o->w->act, o->w->n_cols);
}

size_t op_heads_scratch(const struct op_heads *o, int64_t max_rows, int n_threads)
{
    (void)max_rows;
    return heads_thread_bytes(o) * (size_t)n_threads;
}

static void heads_slices(void *arg, int64_t lo, int64_t hi, int thread)
{
    const struct heads *j = arg;
    const struct op_heads *o = j->o;
    char *scratch = (char *)j->s->scratch + (size_t)thread * heads_thread_bytes(o);
    float *rows = (float *)scratch;
    void *act = scratch + heads_gather_bytes(o);
    for (int64_t i = lo; i < hi; i++) {
        int64_t group = i / j->n_slices, first = i % j->n_slices * HEADS_ROWS;
        int64_t n = MIN((int64_t)HEADS_ROWS, j->n_rows - first);
        const struct matmul_weight *w = &o->w[group];
        for (int64_t r = 0; r < n; r++) {
            memcpy(rows + r * w->n_cols, op_row(&o->x, first + r) + group * o->x_group,
                   (size_t)w->n_cols * sizeof(float));
        }
        if (w->act != MATMUL_ACT_F32) {
            matmul_act(j->s->isa, w->act, rows, act, n, w->n_cols, NULL);
        }
        struct matmul m = {
            .w = w,
            .x = w->act == MATMUL_ACT_F32 ? (void *)rows : act,
            .y = op_row(&o->y, first) + group * w->n_rows,
            .y_stride = o->y.stride,
            .n_tokens = n,
        };
        matmul_slice(&m, 0, w->n_rows);
    }
}

void op_heads_run(const struct op_heads *o, const struct op_step *s, int64_t n)
{
    struct heads j = {o, s, n, (n + HEADS_ROWS - 1) / HEADS_ROWS};
    pool_run(s->pool, o->n_groups * j.n_slices, 1, heads_slices, &j);
}
