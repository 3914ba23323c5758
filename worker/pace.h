/* How long steps take: what the next one may be expected to take, for the watchdog, and whether a
 * model has become slow against its own baseline. Pure; the token loop keeps one for each model.
 *
 * Many rows cost by their operations, few rows (decode) cost what reading the weights costs. Before
 * the model's own steps were measured, its bytes and operations are divided by rates: those that an
 * earlier worker measured, or what the device can do at a first look, or those of a slow processor.
 * The watchdog sees progress op by op where the engine marks them, so what is expected is the
 * longest op. */
#ifndef WORKER_PACE_H
#define WORKER_PACE_H

#include "shared/base.h"

enum { PACE_FEW_ROWS = 16, PACE_BASELINES = 4, PACE_SLOW_FACTOR = 3, PACE_SLOW_STEPS = 64 };

struct pace_work {     /* of a model */
    double step_bytes; /* of weights that a step reads at most */
    double row_ops;    /* operations of weights for a row; multiplication and addition each count */
    double look_ops;   /* of attention, for each token that a row looks at */
    double longest;    /* share of a step that its longest op can be; 1: ops are not marked */
};

struct pace_rates { /* a second; 0: not known */
    double bytes, ops;
};

struct pace_step {
    int64_t n_rows;
    int64_t n_looks; /* tokens that they attend to, added up */
};

struct pace {
    struct pace_work work;
    struct pace_rates first;   /* before anything was measured */
    uint64_t device;           /* which it was measured on: pace_device; 0: not begun */
    double ns_per_op, few_ns;  /* slowest of late; 0: not measured */
    double mean_ns[PACE_BASELINES], best_ns[PACE_BASELINES]; /* of few rows, by powers of two */
    unsigned n_steps[PACE_BASELINES];
    unsigned n_slow; /* steps in a row that took PACE_SLOW_FACTOR times the baseline */
};

/* Of a device in words, as struct engine_info has them. What was measured on one says nothing of
 * another. Never 0. */
uint64_t pace_device(const char *device);
void pace_begin(struct pace *p, uint64_t device, const struct pace_work *work,
                const struct pace_rates *first);
uint32_t pace_expect_ms(const struct pace *p, const struct pace_step *s);
/* A step took so long. True when the model has just become slow: ret_ns and ret_best_ns say what a
 * step takes and used to take. */
bool pace_learn(struct pace *p, const struct pace_step *s, double ns, double *ret_ns,
                double *ret_best_ns);
/* As measured: what another model, or the next worker, may go by at first. */
struct pace_rates pace_measured(const struct pace *p);

#endif
