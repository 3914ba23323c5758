/* The pace of a model (see pace.h). */
#include "worker/pace.h"
#include "shared/hash.h"

#include <string.h>

enum { SETTLED_STEPS = 64 };

static const double ops_per_ns = 4; /* of a slow processor: 4 GFLOP/s */
static const double forget = 0.95;  /* a slow step is remembered over some twenty */
static const double felt_ns = 5e6;  /* by less nobody notices that a step has become slower */
static const double weight = 0.1;   /* of the newest step in the mean */

static uint64_t digest_of(const char *device)
{
    return 1 + (uint64_t)hash_crc32c(0, device, strlen(device));
}

bool pace_is_of(const struct pace *p, const char *device)
{
    return p->device == digest_of(device);
}

void pace_begin(struct pace *p, const char *device, double n_params, int64_t n_layers,
                bool marks_ops)
{
    *p = (struct pace){.device = digest_of(device),
                       .n_params = n_params,
                       .share = marks_ops ? 1.0 / (double)MAX(n_layers, (int64_t)1) : 1};
}

uint32_t pace_expect_ms(const struct pace *p, int64_t n_rows)
{
    double assumed = 2 * p->n_params / ops_per_ns, ns;
    if (n_rows < PACE_FEW_ROWS) {
        ns = (p->few_ns > 0 ? p->few_ns : assumed * (double)n_rows) * MAX(p->share, 0.5);
    } else {
        ns = (p->ns_per_row > 0 ? p->ns_per_row : assumed) * (double)n_rows * p->share;
    }
    return (uint32_t)MIN(ns / 1e6, 3600e3);
}

static int baseline_of(int64_t n_rows)
{
    int i = 0;
    while (n_rows > 1 && i + 1 < PACE_BASELINES) {
        n_rows /= 2;
        i++;
    }
    return i;
}

bool pace_learn(struct pace *p, int64_t n_rows, double ns, double *ret_ns, double *ret_best_ns)
{
    if (n_rows >= PACE_FEW_ROWS) {
        p->ns_per_row = MAX(ns / (double)n_rows, p->ns_per_row * forget);
        return false;
    }
    p->few_ns = MAX(ns, p->few_ns * forget);
    int i = baseline_of(n_rows);
    double *mean = &p->mean_ns[i];
    *mean = p->n_steps[i] == 0 ? ns : *mean + weight * (ns - *mean);
    if (p->n_steps[i] < SETTLED_STEPS) {
        p->best_ns[i] = ++p->n_steps[i] == SETTLED_STEPS ? *mean : 0;
        return false;
    }
    p->best_ns[i] = MIN(p->best_ns[i], *mean);
    bool is_slow =
        *mean > p->best_ns[i] * PACE_SLOW_FACTOR && *mean > p->best_ns[i] + felt_ns;
    p->n_slow = is_slow ? p->n_slow + 1 : 0;
    *ret_ns = *mean;
    *ret_best_ns = p->best_ns[i];
    return p->n_slow == PACE_SLOW_STEPS;
}
