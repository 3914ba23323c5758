/* Mixture of experts: choosing the experts of each row. Ties go to the lower id. */
#include "kernels/cpu/ops_job.h"

#include <math.h>
#include <string.h>

enum { MAX_EXPERTS = 1024 };

struct job {
    const struct op_route *o;
};

/* The probabilities that the choice weighs: of all experts. */
static void gate(const struct op_route *o, const float *x, float *p)
{
    if (o->gating == OP_ROUTE_SOFTMAX_CHOSEN) {
        memcpy(p, x, (size_t)o->n_expert * sizeof *p);
        return;
    }
    if (o->gating == OP_ROUTE_SIGMOID) {
        for (int32_t i = 0; i < o->n_expert; i++) {
            p[i] = 1.0f / (1.0f + expf(-x[i]));
        }
        return;
    }
    float max = x[0], sum = 0;
    for (int32_t i = 1; i < o->n_expert; i++) {
        max = fmaxf(max, x[i]);
    }
    for (int32_t i = 0; i < o->n_expert; i++) {
        p[i] = expf(x[i] - max);
        sum += p[i];
    }
    for (int32_t i = 0; i < o->n_expert; i++) {
        p[i] /= sum;
    }
}

/* The index of the best value, which is then struck out; a row of NaN gives any valid index. */
static int32_t take_best(float *score, int32_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) {
        if (score[i] > score[best]) {
            best = i;
        }
    }
    score[best] = -INFINITY;
    return best;
}

/* Strikes out the experts of all groups but the best ones. */
static void keep_groups(const struct op_route *o, float *score)
{
    int32_t size = o->n_expert / o->n_group;
    float group_score[MAX_EXPERTS];
    bool keep[MAX_EXPERTS] = {false};
    for (int32_t g = 0; g < o->n_group; g++) {
        float first = -INFINITY, second = -INFINITY;
        for (int32_t i = g * size; i < (g + 1) * size; i++) {
            if (score[i] > first) {
                second = first;
                first = score[i];
            } else if (score[i] > second) {
                second = score[i];
            }
        }
        group_score[g] = size > 1 ? first + second : first;
    }
    for (int32_t i = 0; i < o->n_group_used; i++) {
        keep[take_best(group_score, o->n_group)] = true;
    }
    for (int32_t i = 0; i < size * o->n_group; i++) {
        if (!keep[i / size]) {
            score[i] = -INFINITY;
        }
    }
}

static void choose(const struct op_route *o, const float *x, int32_t *id, float *weight)
{
    float p[MAX_EXPERTS], score[MAX_EXPERTS];
    gate(o, x, p);
    for (int32_t i = 0; i < o->n_expert; i++) {
        score[i] = o->bias ? p[i] + o->bias[i] : p[i];
    }
    if (o->n_group > 1) {
        keep_groups(o, score);
    }
    float sum = 0;
    for (int32_t i = 0; i < o->n_used; i++) {
        id[i] = take_best(score, o->n_expert);
        weight[i] = p[id[i]];
    }
    if (o->gating == OP_ROUTE_SOFTMAX_CHOSEN) {
        float max = weight[0];
        for (int32_t i = 1; i < o->n_used; i++) {
            max = fmaxf(max, weight[i]);
        }
        for (int32_t i = 0; i < o->n_used; i++) {
            weight[i] = expf(weight[i] - max);
        }
    }
    for (int32_t i = 0; i < o->n_used; i++) {
        sum += weight[i];
    }
    /* Below the smallest normal F16 a sum is as good as zero; models are trained with such a guard. */
    float divisor = o->normalize || o->gating == OP_ROUTE_SOFTMAX_CHOSEN
                        ? fmaxf(sum, 6.103515625e-5f) : 1.0f;
    for (int32_t i = 0; i < o->n_used; i++) {
        weight[i] = weight[i] / divisor * o->scale;
    }
}

static void rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct op_route *o = ((const struct job *)arg)->o;
    for (int64_t i = lo; i < hi; i++) {
        float *y = op_row(&o->y, i);
        choose(o, op_row(&o->x, i), (int32_t *)(void *)y, y + o->n_used);
    }
}

void op_route_run(const struct op_route *o, const struct op_step *s, int64_t n)
{
    struct job j = {o};
    ASSERT(o->n_expert <= MAX_EXPERTS);
    ops_job(s, n, (int64_t)o->n_expert * (4 + o->n_used), rows, &j);
}
