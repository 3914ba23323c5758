/* Activations, gated or not, over groups of columns. */
#include "kernels/cpu/ops_job.h"
#include "kernels/cpu/vec.h"

struct job {
    const struct op_glu *o;
    const struct op_step *s;
};

static void rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct job *j = arg;
    const struct op_glu *o = j->o;
    const struct vec *vec = vec_get(j->s->isa);
    for (int64_t i = lo; i < hi; i++) {
        int64_t row = i / o->n_groups, group = i % o->n_groups;
        const float *gate = op_row(&o->gate, row) + group * o->gate_group;
        const float *up = o->up.data ? op_row(&o->up, row) + group * o->n : NULL;
        float *y = op_row(&o->y, row) + group * o->n;
        if (o->gate.n == 1 && o->n > 1) {
            float f;
            vec->glu((enum op_glu_kind)o->kind, &f, gate, NULL, 1, o->alpha, o->limit);
            vec->affine(y, up, 0, f, NULL, NULL, o->n);
        } else {
            vec->glu((enum op_glu_kind)o->kind, y, gate, up, o->n, o->alpha, o->limit);
        }
    }
}

void op_glu_run(const struct op_glu *o, const struct op_step *s, int64_t n)
{
    struct job j = {o, s};
    ops_job(s, n * o->n_groups, o->n * 4, rows, &j);
}
