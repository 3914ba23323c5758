/* Mixture of experts: rows sorted by expert, and the way back. (Their products: products.c.) Every
 * sum is a row's own and in slot order, so who shares an expert changes nothing. */
#include "kernels/cpu/ops_job.h"
#include "kernels/cpu/vec.h"

#include <string.h>

static const int32_t *route_ids(const struct op_rows *route, int64_t row)
{
    return (const int32_t *)(const void *)op_row(route, row);
}

/* A counting sort, stable: rows of an expert keep their order. */
void op_order_run(const struct op_order *o, const struct op_step *s, int64_t n)
{
    (void)s;
    int64_t n_slots = n * o->n_used;
    struct ops_order to = ops_order_at(&o->y, o->n_expert, n_slots);
    memset(to.offsets, 0, (size_t)(o->n_expert + 1) * sizeof *to.offsets);
    for (int64_t i = 0; i < n_slots; i++) {
        to.offsets[route_ids(&o->route, i / o->n_used)[i % o->n_used] + 1]++;
    }
    for (int32_t e = 0; e < o->n_expert; e++) {
        to.offsets[e + 1] += to.offsets[e];
    }
    for (int64_t i = 0; i < n_slots; i++) {
        int32_t place = to.offsets[route_ids(&o->route, i / o->n_used)[i % o->n_used]]++;
        to.place_of[i] = place;
        to.slot_at[place] = (int32_t)i;
    }
    memmove(to.offsets + 1, to.offsets, (size_t)o->n_expert * sizeof *to.offsets);
    to.offsets[0] = 0;
}

/* --- dispatch --------------------------------------------------------------------------------------*/

struct dispatch {
    const struct op_dispatch *o;
    struct ops_order order;
};

static void dispatch_rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct dispatch *j = arg;
    for (int64_t i = lo; i < hi; i++) {
        memcpy(op_row(&j->o->y, i), op_row(&j->o->x, j->order.slot_at[i] / j->o->n_used),
               (size_t)j->o->n * sizeof(float));
    }
}

void op_dispatch_run(const struct op_dispatch *o, const struct op_step *s, int64_t n)
{
    struct dispatch j = {o, ops_order_at(&o->order, o->n_expert, n)};
    ops_job(s, n, o->n / 4, dispatch_rows, &j);
}

/* --- combine ---------------------------------------------------------------------------------------*/

struct combine {
    const struct op_combine *o;
    const struct vec *vec;
    struct ops_order order;
};

static void combine_rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct combine *j = arg;
    const struct op_combine *o = j->o;
    for (int64_t i = lo; i < hi; i++) {
        float *y = op_row(&o->y, i);
        const float *weight = op_row(&o->route, i) + o->n_used;
        for (int64_t k = 0; k < o->n_used; k++) {
            const float *x = op_row(&o->x, j->order.place_of[i * o->n_used + k]);
            if (k == 0) {
                j->vec->affine(y, x, 0, weight[k], NULL, NULL, o->n);
            } else {
                j->vec->add(y, y, 1.0f, x, weight[k], o->n);
            }
        }
        if (o->add.data) {
            j->vec->add(y, y, 1.0f, op_row(&o->add, i), 1.0f, o->n);
        }
    }
}

void op_combine_run(const struct op_combine *o, const struct op_step *s, int64_t n)
{
    struct combine j = {o, vec_get(s->isa), ops_order_at(&o->order, o->n_expert, n * o->n_used)};
    ops_job(s, n, (int64_t)o->n * o->n_used, combine_rows, &j);
}
