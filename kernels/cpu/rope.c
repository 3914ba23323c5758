/* Rotary position embedding: the tables of a step, in double precision, and the rotation. */
#include "kernels/cpu/ops_job.h"
#include "kernels/cpu/vec.h"

#include <math.h>
#include <string.h>

struct table {
    const struct op_rope_table *o;
    const struct op_step *s;
};

static void table_rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct table *j = arg;
    const struct op_rope_table *o = j->o;
    for (int64_t r = lo; r < hi; r++) {
        float *y = op_row(&o->y, r);
        for (int64_t i = 0; i < o->n; i++) {
            double angle = (double)j->s->positions[r] * o->inv_freq[i], sine, cosine;
            sincos(angle, &sine, &cosine);
            y[i] = (float)(cosine * (double)o->mscale);
            y[o->n + i] = (float)(sine * (double)o->mscale);
        }
    }
}

void op_rope_table_run(const struct op_rope_table *o, const struct op_step *s, int64_t n)
{
    struct table j = {o, s};
    ops_job(s, n, o->n * 32, table_rows, &j); /* a sine costs as much as many values */
}

struct rope {
    const struct op_rope *o;
    const struct op_step *s;
};

static void rope_rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct rope *j = arg;
    const struct op_rope *o = j->o;
    const struct vec *vec = vec_get(j->s->isa);
    int64_t n_pairs = o->n_rot / 2;
    for (int64_t r = lo; r < hi; r++) {
        const float *cos = op_row(&o->table, r), *sin = cos + n_pairs;
        for (int64_t g = 0; g < o->n_groups; g++) {
            const float *x = op_row(&o->x, r) + g * o->x_group;
            float *y = op_row(&o->y, r) + g * o->n;
            if (o->adjacent) {
                vec->rotate_adjacent(y, x, cos, sin, n_pairs);
            } else {
                vec->rotate(y, x, cos, sin, n_pairs);
            }
            memcpy(y + o->n_rot, x + o->n_rot, (size_t)(o->n - o->n_rot) * sizeof *y);
        }
    }
}

void op_rope_run(const struct op_rope *o, const struct op_step *s, int64_t n)
{
    struct rope j = {o, s};
    ops_job(s, n, o->n_groups * o->n, rope_rows, &j);
}
