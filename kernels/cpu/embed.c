/* Token embedding: rows of a table, decoded from the file's form. */
#include "kernels/cpu/ops_job.h"
#include "kernels/cpu/vec.h"

struct job {
    const struct op_embed *o;
    const struct op_step *s;
};

static void rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct job *j = arg;
    const struct matmul_weight *w = j->o->table;
    for (int64_t i = lo; i < hi; i++) {
        float *y = op_row(&j->o->y, i);
        matmul_row(w->type, w->data, j->s->tokens[i], w->n_cols, y);
        if (j->o->scale != 1.0f) {
            vec_get(j->s->isa)->affine(y, y, 0, j->o->scale, NULL, NULL, w->n_cols);
        }
    }
    if (j->s->on_embedded) {
        j->s->on_embedded(j->s->on_embedded_arg, hi - lo);
    }
}

void op_embed_run(const struct op_embed *o, const struct op_step *s, int64_t n)
{
    struct job j = {o, s};
    ops_job(s, n, o->y.n, rows, &j);
}
