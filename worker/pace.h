/* How long steps take: what the next one may be expected to take, for the watchdog, and whether a
 * model has become slow against its own baseline. Pure; the token loop keeps one for each model.
 *
 * Many rows cost by the row; few rows (decode) cost what reading the weights costs. Before anything
 * was measured a slow processor is assumed (PACE_OPS_PER_NS). The watchdog sees progress op by op
 * where the engine marks them, so what is expected is the longest op: taken to be at most one
 * layer's share of many rows, and half of the step for few, where the output's matrix can be as
 * much. */
#ifndef WORKER_PACE_H
#define WORKER_PACE_H

#include "shared/base.h"

enum { PACE_FEW_ROWS = 16, PACE_BASELINES = 4, PACE_SLOW_FACTOR = 3, PACE_SLOW_STEPS = 64 };

struct pace {
    double n_params;
    uint64_t device; /* which it was measured on: a digest; 0: not begun */
    double share;    /* of a step of many rows that its longest op can be; 1: ops are not marked */
    double ns_per_row, few_ns;                               /* slowest of late; 0: not measured */
    double mean_ns[PACE_BASELINES], best_ns[PACE_BASELINES]; /* of few rows, by powers of two */
    unsigned n_steps[PACE_BASELINES];
    unsigned n_slow; /* steps in a row that took PACE_SLOW_FACTOR times the baseline */
};

/* device: in words, as struct engine_info has them. What was measured on one says nothing of another. */
bool pace_is_of(const struct pace *p, const char *device);
void pace_begin(struct pace *p, const char *device, double n_params, int64_t n_layers,
                bool marks_ops);
uint32_t pace_expect_ms(const struct pace *p, int64_t n_rows);
/* A step of n_rows took so long. True when the model has just become slow: ret_ns and ret_best_ns
 * say what a step takes and used to take. */
bool pace_learn(struct pace *p, int64_t n_rows, double ns, double *ret_ns, double *ret_best_ns);

#endif
