/* Token embedding: rows of a table, decoded from the file's form. */
#include "kernels/cpu/ops_job.h"
#include "kernels/cpu/vec.h"
#include "shared/num.h"

size_t op_embed_scratch(const struct op_embed *o, int n_threads)
{
    return num_pad(type_row_bytes(o->table->type, (size_t)o->table->n_cols), 64) * (size_t)n_threads;
}

struct job {
    const struct op_embed *o;
    const struct op_step *s;
};

static void rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    const struct job *j = arg;
    const struct matmul_weight *w = j->o->table;
    char *copy = j->s->read_row ? (char *)j->s->scratch + op_embed_scratch(j->o, thread) : NULL;
    for (int64_t i = lo; i < hi; i++) {
        float *y = op_row(&j->o->y, i);
        int64_t row = j->s->tokens[i];
        if (copy && j->s->read_row(j->s->read_row_arg, row, copy)) {
            matmul_row(w->type, copy, 0, w->n_cols, y);
        } else {
            matmul_row(w->type, w->data, row, w->n_cols, y);
        }
        if (j->o->scale != 1.0f) {
            vec_get(j->s->isa)->affine(y, y, 0, j->o->scale, NULL, NULL, w->n_cols);
        }
    }
}

void op_embed_run(const struct op_embed *o, const struct op_step *s, int64_t n)
{
    struct job j = {o, s};
    ops_job(s, n, o->y.n, rows, &j);
}
