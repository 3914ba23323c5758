/* Normalisation: root mean square, layer norm, L2; whole rows or groups of them (heads). */
#include "kernels/cpu/ops_job.h"
#include "kernels/cpu/vec.h"

#include <math.h>

struct job {
    const struct op_norm *o;
    const struct op_step *s;
};

static void norm_group(const struct op_norm *o, const struct vec *vec, const float *x, float *y,
                       int64_t group)
{
    const float *w = o->weight, *b = o->bias;
    if (o->per_group) {
        w = w ? w + group * o->n : NULL;
        b = b ? b + group * o->n : NULL;
    }
    float n = (float)o->n, mean = 0, scale;
    switch ((enum op_norm_kind)o->kind) {
    case OP_NORM_RMS:
        scale = 1.0f / sqrtf(vec->sum_squares(x, 0, o->n) / n + o->eps);
        break;
    case OP_NORM_LAYER:
        mean = vec->sum(x, o->n) / n;
        scale = 1.0f / sqrtf(vec->sum_squares(x, mean, o->n) / n + o->eps);
        break;
    case OP_NORM_L2:
    default:
        scale = 1.0f / fmaxf(sqrtf(vec->sum_squares(x, 0, o->n)), o->eps);
        break;
    }
    vec->affine(y, x, mean, scale, w, b, o->n);
}

static void groups(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct job *j = arg;
    const struct op_norm *o = j->o;
    const struct vec *vec = vec_get(j->s->isa);
    for (int64_t i = lo; i < hi; i++) {
        int64_t row = i / o->n_groups, group = i % o->n_groups;
        norm_group(o, vec, op_row(&o->x, row) + group * o->x_group,
                   op_row(&o->y, row) + group * o->n, group);
    }
}

void op_norm_run(const struct op_norm *o, const struct op_step *s, int64_t n)
{
    struct job j = {o, s};
    ops_job(s, n * o->n_groups, o->n, groups, &j);
}
