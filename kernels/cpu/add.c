/* Plain arithmetic on rows: sums, scales, gathered columns. */
#include "kernels/cpu/ops_job.h"
#include "kernels/cpu/vec.h"

#include <string.h>

struct add {
    const struct op_add *o;
    const struct vec *vec;
};

static void add_rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct add *j = arg;
    const struct op_add *o = j->o;
    for (int64_t i = lo; i < hi; i++) {
        j->vec->add(op_row(&o->y, i), op_row(&o->a, i), o->a_scale, op_row(&o->b, i), o->b_scale,
                    o->n);
    }
}

void op_add_run(const struct op_add *o, const struct op_step *s, int64_t n)
{
    struct add j = {o, vec_get(s->isa)};
    ops_job(s, n, o->n, add_rows, &j);
}

struct scale {
    const struct op_scale *o;
    const struct vec *vec;
};

static void scale_rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct scale *j = arg;
    const struct op_scale *o = j->o;
    for (int64_t i = lo; i < hi; i++) {
        if (o->cap > 0) {
            j->vec->softcap(op_row(&o->y, i), op_row(&o->x, i), o->scale, o->cap, o->n);
        } else {
            j->vec->affine(op_row(&o->y, i), op_row(&o->x, i), 0, o->scale, NULL, NULL, o->n);
        }
    }
}

void op_scale_run(const struct op_scale *o, const struct op_step *s, int64_t n)
{
    struct scale j = {o, vec_get(s->isa)};
    ops_job(s, n, o->n * (o->cap > 0 ? 8 : 1), scale_rows, &j);
}

static void copy_rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct op_copy *o = arg;
    for (int64_t i = lo; i < hi; i++) {
        for (int64_t g = 0; g < o->n_groups; g++) {
            memcpy(op_row(&o->y, i) + g * o->n, op_row(&o->x, i) + g * o->x_group,
                   (size_t)o->n * sizeof(float));
        }
    }
}

static void concat_rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct op_concat *o = arg;
    int64_t n = o->a_n + o->b_n;
    for (int64_t i = lo; i < hi; i++) {
        for (int64_t g = 0; g < o->n_groups; g++) {
            float *y = op_row(&o->y, i) + g * n;
            memcpy(y, op_row(&o->a, i) + g * o->a_group, (size_t)o->a_n * sizeof *y);
            memcpy(y + o->a_n, op_row(&o->b, i) + g * o->b_group, (size_t)o->b_n * sizeof *y);
        }
    }
}

void op_concat_run(const struct op_concat *o, const struct op_step *s, int64_t n)
{
    struct op_concat copy = *o;
    ops_job(s, n, (int64_t)o->n_groups * (o->a_n + o->b_n), concat_rows, &copy);
}

void op_copy_run(const struct op_copy *o, const struct op_step *s, int64_t n)
{
    struct op_copy copy = *o;
    ops_job(s, n, (int64_t)o->n_groups * o->n, copy_rows, &copy);
}
