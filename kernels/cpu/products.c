/* Matrix products as jobs: one matrix, several side by side, an expert's matrix for each group of rows,
 * and the gate that follows a pair of them. A job is cut by output columns (and experts); a thread
 * computes its columns for all rows, so that weights are read once. */
#include "kernels/cpu/ops_job.h"
#include "kernels/cpu/vec.h"

enum { MAX_PRODUCTS = OPS_MAX_JOINED + 1 };

/* One op's product; for experts, of all experts. */
struct product {
    const struct matmul_weight *w; /* n_group of them */
    const struct op_rows *x, *y, *add;
    const float *bias; /* n_group x n_rows, or NULL */
    int64_t slice;     /* columns of one piece of the job */
    int64_t n_slices;
    int64_t first;     /* piece of the job, within a group */
};

struct job {
    struct product p[MAX_PRODUCTS];
    int n_products;
    const struct op_glu *glu;  /* over the last two products, NULL without */
    const struct op_step *s;
    int64_t n_rows;
    int64_t n_group;           /* experts, or 1 */
    const int32_t *offsets;    /* of the experts' rows; NULL: all rows */
    int64_t n_slices;          /* of one group */
};

static void run_piece(const struct product *p, int64_t group, int64_t row, int64_t n, int64_t lo,
                      int64_t hi)
{
    const struct matmul_weight *w = &p->w[group];
    struct matmul m = {
        .w = w,
        .x = op_row(p->x, row),
        .y = op_row(p->y, row),
        .y_stride = p->y->stride,
        .n_tokens = n,
        .bias = p->bias ? p->bias + group * w->n_rows : NULL,
        .add = p->add && p->add->data ? op_row(p->add, row) : NULL,
    };
    matmul_slice(&m, lo, hi);
}

static void run_gate(const struct job *j, int64_t row, int64_t n, int64_t lo, int64_t hi)
{
    const struct op_glu *o = j->glu;
    for (int64_t i = row; i < row + n; i++) {
        vec_get(j->s->isa)->glu((enum op_glu_kind)o->kind, op_row(&o->y, i) + lo,
                                op_row(&o->gate, i) + lo, op_row(&o->up, i) + lo, hi - lo, o->alpha,
                                o->limit);
    }
}

static void pieces(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct job *j = arg;
    for (int64_t i = lo; i < hi; i++) {
        int64_t group = i / j->n_slices, at = i % j->n_slices;
        int64_t row = j->offsets ? j->offsets[group] : 0;
        int64_t n = j->offsets ? j->offsets[group + 1] - row : j->n_rows;
        if (n == 0) {
            continue;
        }
        const struct product *p = j->p;
        while (at >= p->first + p->n_slices) {
            p++;
        }
        int64_t from = (at - p->first) * p->slice, end = MIN(from + p->slice, p->w->n_rows);
        run_piece(p, group, row, n, from, end);
        if (j->glu && p == &j->p[j->n_products - 2]) { /* gate and up in the same piece */
            run_piece(p + 1, group, row, n, from, end);
            run_gate(j, row, n, from, end);
        }
    }
}

/* Columns that are worth a piece: enough weights to stream, and pieces enough for the threads. */
static void cut(struct job *j)
{
    int64_t rows = MAX(j->n_rows / j->n_group, (int64_t)1), job_rows = 0;
    for (int i = 0; i < j->n_products; i++) {
        job_rows += j->p[i].w->n_rows;
    }
    for (int i = 0; i < j->n_products; i++) {
        struct product *p = &j->p[i];
        p->slice = matmul_slice_rows(p->w, job_rows, rows, pool_threads(j->s->pool));
        p->first = i > 0 ? j->p[i - 1].first + j->p[i - 1].n_slices : 0;
        p->n_slices = (p->w->n_rows + p->slice - 1) / p->slice;
        if (j->glu && i == j->n_products - 1) { /* computed with the one before it */
            p->first = INT64_MAX / 2;
            p->n_slices = 0;
        } else {
            j->n_slices = p->first + p->n_slices;
        }
    }
}

static void add_matmul(struct job *j, const struct op_matmul *o)
{
    j->p[j->n_products++] =
        (struct product){.w = o->w, .x = &o->x, .y = &o->y, .add = &o->add, .bias = o->bias};
}

static void add_experts(struct job *j, const struct op_experts *o)
{
    j->n_group = o->n_expert;
    j->offsets = ops_order_at(&o->order, o->n_expert, j->n_rows).offsets;
    j->p[j->n_products++] = (struct product){.w = o->w, .x = &o->x, .y = &o->y, .bias = o->bias};
}

static void run(struct job *j)
{
    cut(j);
    pool_run(j->s->pool, j->n_group * j->n_slices, 1, pieces, j);
}

void op_products_run(const struct op *op, const struct op_step *s, int64_t n)
{
    struct job j = {.s = s, .n_rows = n, .n_group = 1};
    ASSERT(op->n_joined <= OPS_MAX_JOINED);
    for (int i = 0; i <= op->n_joined; i++) {
        if (op[i].code == OP_matmul) {
            add_matmul(&j, &op[i].u.matmul);
        } else if (op[i].code == OP_experts) {
            add_experts(&j, &op[i].u.experts);
        } else {
            j.glu = &op[i].u.glu;
        }
    }
    run(&j);
}

void op_matmul_run(const struct op_matmul *o, const struct op_step *s, int64_t n)
{
    struct job j = {.s = s, .n_rows = n, .n_group = 1};
    add_matmul(&j, o);
    run(&j);
}

void op_experts_run(const struct op_experts *o, const struct op_step *s, int64_t n)
{
    struct job j = {.s = s, .n_rows = n, .n_group = 1};
    add_experts(&j, o);
    run(&j);
}
