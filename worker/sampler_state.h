/* A sampler's state, shared by its parts: sampler.c (filters, draws over all logits), sampler_top.c
 * (draws from the largest). */
#ifndef WORKER_SAMPLER_STATE_H
#define WORKER_SAMPLER_STATE_H

#include "worker/penalty.h"
#include "worker/sampler.h"

enum { SAMPLER_BINS = 2048 };

struct candidate {
    int32_t id;
    float logit;
    float weight; /* e^(logit - max) */
    float key;    /* what the filter at work orders by, best first */
};

struct sampler {
    struct msg_generate params;
    int64_t n_vocab;
    uint32_t choice;
    struct penalty penalty;
    struct candidate *pool; /* owned; by rising id; NULL when no filter needs it */
    int64_t n_pool, pool_max;
    double *block_mass; /* owned */
    double bins[SAMPLER_BINS];
};

/* Of the pool's weights. */
double sampler_pool_mass(const struct sampler *s);
/* Filters the pool, whose weights are set, and draws from it. max: the largest logit; total: the
 * mass of all. */
int32_t sampler_draw_pool(struct sampler *s, float max, double total, uint32_t position);

#endif
