/* The pace of a model (see pace.h). */
#include "worker/pace.h"
#include "shared/hash.h"

#include <string.h>

enum { SETTLED_STEPS = 64 };

static const struct pace_rates slow = {.bytes = 1e9, .ops = 4e9}; /* of a slow processor */
static const double forget = 0.95; /* a slow step is remembered over some twenty */
static const double felt_ns = 5e6; /* by less nobody notices that a step has become slower */
static const double weight = 0.1;  /* of the newest step in the mean */

uint64_t pace_device(const char *device)
{
    return 1 + (uint64_t)hash_crc32c(0, device, strlen(device));
}

void pace_begin(struct pace *p, uint64_t device, const struct pace_work *work,
                const struct pace_rates *first)
{
    *p = (struct pace){.work = *work, .first = *first, .device = device};
    p->first.bytes = first->bytes > 0 ? first->bytes : slow.bytes;
    p->first.ops = first->ops > 0 ? first->ops : slow.ops;
}

static double ops_of(const struct pace *p, const struct pace_step *s)
{
    return p->work.row_ops * (double)s->n_rows + p->work.look_ops * (double)s->n_looks;
}

uint32_t pace_expect_ms(const struct pace *p, const struct pace_step *s)
{
    double measured = s->n_rows < PACE_FEW_ROWS ? p->few_ns : p->ns_per_op * ops_of(p, s);
    double by_ops = 1e9 * ops_of(p, s) / p->first.ops;
    double by_bytes = 1e9 * p->work.step_bytes / p->first.bytes;
    double ns = measured > 0 ? measured : MAX(by_ops, by_bytes);
    return (uint32_t)MIN(ns * p->work.longest / 1e6, 3600e3);
}

struct pace_rates pace_measured(const struct pace *p)
{
    return (struct pace_rates){
        .bytes = p->few_ns > 0 ? 1e9 * p->work.step_bytes / p->few_ns : 0,
        .ops = p->ns_per_op > 0 ? 1e9 / p->ns_per_op : 0,
    };
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

bool pace_learn(struct pace *p, const struct pace_step *s, double ns, double *ret_ns,
                double *ret_best_ns)
{
    if (s->n_rows >= PACE_FEW_ROWS) {
        p->ns_per_op = MAX(ns / MAX(ops_of(p, s), 1.0), p->ns_per_op * forget);
        return false;
    }
    p->few_ns = MAX(ns, p->few_ns * forget);
    int i = baseline_of(s->n_rows);
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
