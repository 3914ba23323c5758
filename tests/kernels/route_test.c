/* Routing and experts against double precision: gatings, bias, groups, ties, and the whole way of
 * rows through sorted experts and back. */
#include "tests/kernels/ops_rig.h"

enum { N_EXPERT = 8, N_USED = 3 };

struct chosen {
    int id[N_USED];
    double weight[N_USED];
};

static double gate(int gating, const float *x, int i)
{
    double sum = 0;
    if (gating == OP_ROUTE_SIGMOID) {
        return 1 / (1 + exp(-(double)x[i]));
    }
    if (gating == OP_ROUTE_SOFTMAX_CHOSEN) {
        return (double)x[i];
    }
    for (int k = 0; k < N_EXPERT; k++) {
        sum += exp((double)x[k]);
    }
    return exp((double)x[i]) / sum;
}

/* Brute force: for every expert, how many beat it. */
static struct chosen choose(int gating, const float *x, const float *bias, int n_group,
                            int n_group_used, bool normalize, double scale)
{
    struct chosen c = {{0}, {0}};
    double score[N_EXPERT], sum = 0;
    for (int i = 0; i < N_EXPERT; i++) {
        score[i] = gate(gating, x, i) + (bias ? (double)bias[i] : 0);
    }
    if (n_group > 1) {
        int size = N_EXPERT / n_group;
        double group[N_EXPERT];
        for (int a = 0; a < n_group; a++) {
            double best = -INFINITY;
            for (int i = 0; i < size; i++) {
                for (int k = i + 1; k < size; k++) {
                    best = fmax(best, score[a * size + i] + score[a * size + k]);
                }
            }
            group[a] = best;
        }
        for (int a = 0; a < n_group; a++) {
            int n_better = 0;
            for (int b = 0; b < n_group; b++) {
                n_better += group[b] > group[a] || (group[b] == group[a] && b < a);
            }
            for (int i = 0; n_better >= n_group_used && i < size; i++) {
                score[a * size + i] = -INFINITY;
            }
        }
    }
    for (int i = 0; i < N_EXPERT; i++) {
        int n_better = 0;
        for (int k = 0; k < N_EXPERT; k++) {
            n_better += score[k] > score[i] || (score[k] == score[i] && k < i);
        }
        if (n_better < N_USED) {
            c.id[n_better] = i;
        }
    }
    for (int i = 0; i < N_USED; i++) {
        double p = gate(gating, x, c.id[i]);
        c.weight[i] = gating == OP_ROUTE_SOFTMAX_CHOSEN ? exp(p) : p;
        sum += c.weight[i];
    }
    for (int i = 0; i < N_USED; i++) {
        c.weight[i] *= scale / (normalize || gating == OP_ROUTE_SOFTMAX_CHOSEN ? sum : 1);
    }
    return c;
}

static void check_route(int gating, bool has_bias, int n_group, bool normalize)
{
    uint64_t seed = (uint64_t)(gating * 10 + n_group);
    int64_t n_rows = 40;
    struct rig g;
    struct rig_rows x = rig_random(n_rows, N_EXPERT, 3, &seed);
    float *bias = rig_vec(N_EXPERT, 0, 0.3, &seed);
    for (int i = 0; i < N_EXPERT; i++) {
        x.r.data[i] = i % 2 ? 1.5f : -1.5f; /* a row of ties */
    }
    rig_init(&g, n_rows, 0);
    while (rig_next(&g)) {
        struct rig_rows y = rig_rows(n_rows, 2 * N_USED);
        struct op_route o = {.x = x.r, .y = y.r, .bias = has_bias ? bias : NULL,
                             .n_expert = N_EXPERT, .n_used = N_USED, .gating = gating,
                             .n_group = n_group, .n_group_used = 2, .normalize = normalize,
                             .scale = 1.5f};
        op_route_run(&o, &g.step, n_rows);
        for (int64_t r = 0; r < n_rows; r++) {
            struct chosen c = choose(gating, rig_at(&x, r), o.bias, n_group, 2, normalize, 1.5);
            int32_t id[N_USED];
            memcpy(id, rig_at(&y, r), sizeof id);
            for (int i = 0; i < N_USED; i++) {
                CHECK_INT(id[i], c.id[i]);
            }
            rig_compare("route", g.step.isa, rig_at(&y, r) + N_USED, c.weight, N_USED,
                        (double)ops_error_limit(OP_route));
        }
        rig_free(&y);
    }
    rig_free(&x);
    free(bias);
}

/* Rows through sorted experts and back: the sum over choices, computed directly. */
static void check_experts(int64_t n_rows)
{
    enum { COLS = 64, ROWS = 48 };
    uint64_t seed = (uint64_t)n_rows;
    struct rig g;
    struct rig_rows logits = rig_random(n_rows, N_EXPERT, 3, &seed);
    struct rig_rows x = rig_random(n_rows, COLS, 1, &seed),
                    add = rig_random(n_rows, ROWS, 1, &seed);
    float *data = rig_vec(N_EXPERT * COLS * ROWS, 0, 0.2, &seed);
    float *bias = rig_vec(N_EXPERT * ROWS, 0, 1, &seed);
    rig_init(&g, n_rows, 0);
    while (rig_next(&g)) {
        struct matmul_weight w[N_EXPERT];
        for (int e = 0; e < N_EXPERT; e++) {
            CHECK(matmul_prepare(&w[e], TYPE_F32, g.step.isa, ROWS, COLS, data + e * COLS * ROWS,
                                 g.pool) == 0);
        }
        CHECK_INT(w[0].act, MATMUL_ACT_F32);
        int64_t n_slots = n_rows * N_USED;
        struct rig_rows route = rig_rows(n_rows, 2 * N_USED), y = rig_rows(n_rows, ROWS);
        struct rig_rows order = rig_rows(n_rows, N_EXPERT + 1 + 2 * N_USED);
        struct rig_rows each = rig_rows(n_slots, COLS), out = rig_rows(n_slots, ROWS);
        struct op_route r = {.x = logits.r, .y = route.r, .n_expert = N_EXPERT, .n_used = N_USED,
                             .scale = 1};
        op_route_run(&r, &g.step, n_rows);
        struct op_order o = {.route = route.r, .y = order.r, .n_expert = N_EXPERT,
                             .n_used = N_USED};
        op_order_run(&o, &g.step, n_rows);
        struct op_dispatch d = {.x = x.r, .order = order.r, .y = each.r, .n_expert = N_EXPERT,
                                .n_used = N_USED, .n = COLS};
        op_dispatch_run(&d, &g.step, n_slots);
        struct op_experts ex = {.x = each.r, .order = order.r, .y = out.r, .w = w, .bias = bias,
                                .n_expert = N_EXPERT};
        op_experts_run(&ex, &g.step, n_slots);
        struct op_combine c = {.x = out.r, .route = route.r, .order = order.r, .add = add.r,
                               .y = y.r, .n_expert = N_EXPERT, .n_used = N_USED, .n = ROWS};
        op_combine_run(&c, &g.step, n_rows);
        for (int64_t row = 0; row < n_rows; row++) {
            double exact[ROWS];
            struct chosen ch = choose(OP_ROUTE_SOFTMAX, rig_at(&logits, row), NULL, 0, 0, false, 1);
            for (int i = 0; i < ROWS; i++) {
                exact[i] = (double)rig_at(&add, row)[i];
                for (int k = 0; k < N_USED; k++) {
                    double sum = (double)bias[ch.id[k] * ROWS + i];
                    for (int j = 0; j < COLS; j++) {
                        sum += (double)data[(ch.id[k] * ROWS + i) * COLS + j] *
                               (double)rig_at(&x, row)[j];
                    }
                    exact[i] += ch.weight[k] * sum;
                }
            }
            rig_compare("experts", g.step.isa, rig_at(&y, row), exact, ROWS,
                        (double)(ops_error_limit(OP_experts) + ops_error_limit(OP_combine)));
        }
        for (int e = 0; e < N_EXPERT; e++) {
            matmul_finish(&w[e]);
        }
        rig_free(&route);
        rig_free(&y);
        rig_free(&order);
        rig_free(&each);
        rig_free(&out);
    }
    rig_free(&logits);
    rig_free(&x);
    rig_free(&add);
    free(data);
    free(bias);
}

int main(void)
{
    for (int gating = OP_ROUTE_SOFTMAX; gating <= OP_ROUTE_SOFTMAX_CHOSEN; gating++) {
        check_route(gating, false, 0, false);
        check_route(gating, true, 0, true);
        check_route(gating, true, 4, gating == OP_ROUTE_SIGMOID);
    }
    check_experts(1);
    check_experts(33);
    return 0;
}
