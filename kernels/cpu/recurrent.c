/* Recurrent ops: short convolution, Mamba-2 scan, gated delta rule. Each advances its state token by
 * token, so a prompt may be cut anywhere. Work is cut by channel or head, never by token. */
#include "kernels/cpu/ops_job.h"
#include "kernels/cpu/vec.h"

#include <math.h>

static float *state_at(const struct op_step *s, int32_t index, const struct op_run *run)
{
    return s->states[index].data + run->state * s->states[index].slot_floats;
}

static float softplus(float x)
{
    return x > 20.0f ? x : log1pf(expf(x));
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

/* --- conv ------------------------------------------------------------------------------------------*/

enum { CONV_CHANNELS = 256 }; /* of one piece of the job */

struct conv {
    const struct op_conv *o;
    const struct op_step *s;
    int64_t n_pieces; /* of a run */
};

static void conv_pieces(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct conv *j = arg;
    const struct op_conv *o = j->o;
    for (int64_t i = lo; i < hi; i++) {
        const struct op_run *run = &j->s->runs[i / j->n_pieces];
        int64_t c = i % j->n_pieces * CONV_CHANNELS, n = MIN((int64_t)CONV_CHANNELS, o->n - c);
        float *past = state_at(j->s, o->state, run) + c;
        for (int64_t r = run->first; r < run->first + run->n; r++) {
            vec_get(j->s->isa)->conv(op_row(&o->y, r) + c, op_row(&o->x, r) + c, past,
                                     o->weight + c, o->bias ? o->bias + c : NULL, n, o->width, o->n,
                                     o->silu);
        }
    }
}

void op_conv_run(const struct op_conv *o, const struct op_step *s, int64_t n)
{
    struct conv j = {o, s, (o->n + CONV_CHANNELS - 1) / CONV_CHANNELS};
    ops_job(s, s->n_runs * j.n_pieces, n * o->width * CONV_CHANNELS, conv_pieces, &j);
}

/* --- ssm -------------------------------------------------------------------------------------------*/

struct ssm {
    const struct op_ssm *o;
    const struct op_step *s;
};

static void ssm_heads(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct ssm *j = arg;
    const struct op_ssm *o = j->o;
    for (int64_t i = lo; i < hi; i++) {
        const struct op_run *run = &j->s->runs[i / o->n_head];
        int64_t h = i % o->n_head, group = h / (o->n_head / o->n_group);
        float *state = state_at(j->s, o->state, run) + h * o->dim * o->n_state;
        for (int64_t r = run->first; r < run->first + run->n; r++) {
            float dt = softplus(op_row(&o->dt, r)[h] + o->dt_bias[h]);
            vec_get(j->s->isa)->ssm(op_row(&o->y, r) + h * o->dim, state,
                                    op_row(&o->x, r) + h * o->dim,
                                    op_row(&o->b, r) + group * o->n_state,
                                    op_row(&o->c, r) + group * o->n_state, expf(dt * o->a[h]), dt,
                                    o->d[h], o->dim, o->n_state);
        }
    }
}

void op_ssm_run(const struct op_ssm *o, const struct op_step *s, int64_t n)
{
    struct ssm j = {o, s};
    ops_job(s, s->n_runs * o->n_head, n * o->dim * o->n_state, ssm_heads, &j);
}

/* --- delta -----------------------------------------------------------------------------------------*/

enum { DELTA_COLUMNS = 64 }; /* value columns of a head that are one piece of the job */

struct delta {
    const struct op_delta *o;
    const struct op_step *s;
    int64_t n_pieces; /* of a head */
};

static void delta_pieces(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct delta *j = arg;
    const struct op_delta *o = j->o;
    int64_t per_run = o->n_head_v * j->n_pieces;
    for (int64_t i = lo; i < hi; i++) {
        const struct op_run *run = &j->s->runs[i / per_run];
        int64_t h = i % per_run / j->n_pieces, c = i % j->n_pieces * DELTA_COLUMNS;
        int64_t n = MIN((int64_t)DELTA_COLUMNS, o->dim_v - c);
        int64_t key = o->tiled ? h % o->n_head_k : h / (o->n_head_v / o->n_head_k);
        float *state = state_at(j->s, o->state, run) + h * o->dim_k * o->dim_v + c;
        for (int64_t r = run->first; r < run->first + run->n; r++) {
            float decay = expf(o->a[h] * softplus(op_row(&o->gate, r)[h] + o->dt_bias[h]));
            vec_get(j->s->isa)->delta(op_row(&o->y, r) + h * o->dim_v + c, state, o->dim_v,
                                      op_row(&o->q, r) + key * o->dim_k,
                                      op_row(&o->k, r) + key * o->dim_k,
                                      op_row(&o->v, r) + h * o->dim_v + c, decay,
                                      sigmoid(op_row(&o->beta, r)[h]), o->scale, o->dim_k, n);
        }
    }
}

void op_delta_run(const struct op_delta *o, const struct op_step *s, int64_t n)
{
    struct delta j = {o, s, (o->dim_v + DELTA_COLUMNS - 1) / DELTA_COLUMNS};
    ops_job(s, s->n_runs * o->n_head_v * j.n_pieces, n * o->dim_k * DELTA_COLUMNS, delta_pieces,
            &j);
}
