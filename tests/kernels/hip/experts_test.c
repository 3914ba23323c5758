/* route, order and combine on the emulator. The choice is checked by its definition: the best by
 * score, best first, ties to the lower id; the weights against double precision. */
#include "kernels/op_kinds.h"
#include "tests/kernels/hip/device.h"

extern const struct gpu_host_kernel route_kernel, order_kernel, combine_kernel;

enum { ROWS = 2, MAX = ROUTE_MAX };

static void exact_row(const struct route_args *a, const float *x, const float *bias, int32_t *ids,
                      double *weights)
{
    double p[MAX], score[MAX], sum = 0, largest = -INFINITY;
    bool is_struck[MAX] = {false};
    int n = a->n_expert, size = n / a->n_group;
    for (int i = 0; i < n; i++) {
        largest = fmax(largest, (double)x[i]);
    }
    for (int i = 0; i < n; i++) {
        p[i] = a->gating == OP_ROUTE_SIGMOID   ? 1 / (1 + exp(-(double)x[i]))
               : a->gating == OP_ROUTE_SOFTMAX ? exp((double)x[i] - largest)
                                               : (double)x[i];
        sum += p[i];
    }
    for (int i = 0; i < n; i++) {
        p[i] /= a->gating == OP_ROUTE_SOFTMAX ? sum : 1;
        score[i] = p[i] + (bias ? (double)bias[i] : 0);
    }
    if (a->n_group > 1) {
        double of_group[MAX];
        for (int g = 0; g < a->n_group; g++) {
            double best[2] = {-INFINITY, -INFINITY};
            for (int i = g * size; i < (g + 1) * size; i++) {
                best[1] = score[i] > best[0] ? best[0] : fmax(best[1], score[i]);
                best[0] = fmax(best[0], score[i]);
            }
            of_group[g] = best[0] + best[1];
        }
        for (int i = 0; i < n; i++) {
            int better = 0;
            for (int g = 0; g < a->n_group; g++) {
                better += of_group[g] > of_group[i / size];
            }
            is_struck[i] = better >= a->n_group_used;
        }
    }
    double total = 0;
    for (int k = 0; k < a->n_used; k++) {
        int best = -1;
        for (int i = 0; i < n; i++) {
            if (!is_struck[i] && (best < 0 || score[i] > score[best])) {
                best = i;
            }
        }
        is_struck[best] = true;
        ids[k] = best;
        weights[k] = a->gating == OP_ROUTE_SOFTMAX_CHOSEN ? exp(p[best] - largest) : p[best];
        total += weights[k];
    }
    bool is_divided = a->normalize || a->gating == OP_ROUTE_SOFTMAX_CHOSEN;
    for (int k = 0; k < a->n_used; k++) {
        weights[k] *= (double)a->scale / (is_divided ? total : 1);
    }
}

static void test_route(int n_expert, int n_used, int gating, bool has_bias, int n_group,
                       int n_group_used, bool normalize)
{
    uint64_t seed = (uint64_t)(n_expert * 10 + gating);
    float *x = device_random(ROWS * n_expert, 4, &seed), *bias = device_random(n_expert, 1, &seed);
    void *dx = device_copy(x, (size_t)(ROWS * n_expert) * 4);
    void *db = device_copy(bias, (size_t)n_expert * 4);
    void *dy = emulator_alloc((size_t)(ROWS * 2 * n_used) * 4, 0);
    struct route_args a = {.x = dx,
                           .bias = has_bias ? db : NULL,
                           .y = dy,
                           .x_stride = n_expert,
                           .y_stride = 2 * n_used,
                           .n_rows = ROWS,
                           .n_expert = n_expert,
                           .n_used = n_used,
                           .gating = gating,
                           .n_group = n_group,
                           .n_group_used = n_group_used,
                           .normalize = normalize,
                           .scale = 2.5f};
    DEVICE_RUN(route, &a);
    for (int r = 0; r < ROWS; r++) {
        int32_t ids[MAX], got[MAX];
        double weights[MAX];
        float y[MAX];
        exact_row(&a, x + r * n_expert, has_bias ? bias : NULL, ids, weights);
        emulator_download(got, (float *)dy + r * 2 * n_used, (size_t)n_used * 4);
        emulator_download(y, (float *)dy + (r * 2 + 1) * n_used, (size_t)n_used * 4);
        CHECK(memcmp(ids, got, (size_t)n_used * 4) == 0);
        device_check("route", y, weights, n_used, 3e-6);
    }
    emulator_free(dx);
    emulator_free(db);
    emulator_free(dy);
    free(x);
    free(bias);
}

/* Equal scores: the lower id. NaN: some valid id, no fault. */
static void test_route_odd(void)
{
    float x[2][40];
    for (int i = 0; i < 40; i++) {
        x[0][i] = i == 7 ? -1 : 3;
        x[1][i] = NAN;
    }
    void *dx = device_copy(x, sizeof x), *dy = emulator_alloc(2 * 6 * 4, 0);
    struct route_args a = {.x = dx,
                           .y = dy,
                           .x_stride = 40,
                           .y_stride = 6,
                           .n_rows = 2,
                           .n_expert = 40,
                           .n_used = 3,
                           .gating = OP_ROUTE_SIGMOID,
                           .n_group = 1,
                           .scale = 1};
    DEVICE_RUN(route, &a);
    int32_t y[2][6];
    emulator_download(y, dy, sizeof y);
    for (int k = 0; k < 3; k++) {
        CHECK_INT(y[0][k], k);
        CHECK(y[1][k] >= 0 && y[1][k] < 40);
    }
    emulator_free(dx);
    emulator_free(dy);
}

/* More experts and more slots than threads: each expert's slots together, in ascending order. */
static void test_order(int n_expert, int n_used, int n_rows, int stride)
{
    uint64_t seed = (uint64_t)(n_expert + n_rows);
    int n_slots = n_rows * n_used;
    int32_t *ids = malloc((size_t)(n_rows * stride + n_used) * 4);
    for (int i = 0; i < n_rows * stride + n_used; i++) {
        ids[i] = stride ? (int32_t)(test_random(&seed) % (uint64_t)n_expert) : i;
    }
    size_t n_y = (size_t)(n_expert + 1 + n_slots);
    int32_t *y = malloc(n_y * 4);
    void *dids = device_copy(ids, (size_t)(n_rows * stride + n_used) * 4),
         *dy = emulator_alloc(n_y * 4, 0);
    struct order_args a = {.ids = dids,
                           .y = dy,
                           .ids_stride = stride,
                           .n_rows = n_rows,
                           .n_expert = n_expert,
                           .n_used = n_used};
    DEVICE_RUN(order, &a);
    emulator_download(y, dy, n_y * 4);
    int place = 0;
    for (int e = 0; e < n_expert; e++) {
        CHECK_INT(y[e], place);
        for (int s = 0; s < n_slots; s++) {
            if (ids[s / n_used * stride + s % n_used] == e) {
                CHECK_INT(y[n_expert + 1 + place], s);
                place++;
            }
        }
    }
    CHECK_INT(y[n_expert], n_slots);
    emulator_free(dids);
    emulator_free(dy);
    free(ids);
    free(y);
}

static void test_combine(int n, int n_used, bool has_add)
{
    uint64_t seed = (uint64_t)(n + n_used);
    float *x = device_random(ROWS * n_used * n, 2, &seed),
          *w = device_random(ROWS * 2 * n_used, 1, &seed);
    float *add = device_random(ROWS * n, 1, &seed), *y = malloc((size_t)n * 4);
    double *exact = malloc((size_t)n * sizeof *exact);
    void *dx = device_copy(x, (size_t)(ROWS * n_used * n) * 4);
    void *dw = device_copy(w, (size_t)(ROWS * 2 * n_used) * 4),
         *dy = device_copy(add, (size_t)(ROWS * n) * 4);
    struct combine_args a = {.x = dx,
                             .weights = (float *)dw + n_used,
                             .add = has_add ? dy : NULL,
                             .y = dy,
                             .x_stride = n,
                             .weights_stride = 2 * n_used,
                             .add_stride = n,
                             .y_stride = n,
                             .n_rows = ROWS,
                             .n = n,
                             .n_used = n_used};
    DEVICE_RUN(combine, &a);
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < n; i++) {
            exact[i] = has_add ? (double)add[r * n + i] : 0;
            for (int k = 0; k < n_used; k++) {
                exact[i] +=
                    (double)w[(2 * r + 1) * n_used + k] * (double)x[(r * n_used + k) * n + i];
            }
        }
        emulator_download(y, (float *)dy + r * n, (size_t)n * 4);
        device_check("combine", y, exact, n, 2e-6);
    }
    void *device[] = {dx, dw, dy};
    for (size_t i = 0; i < COUNT_OF(device); i++) {
        emulator_free(device[i]);
    }
    void *host[] = {x, w, add, y, exact};
    for (size_t i = 0; i < COUNT_OF(host); i++) {
        free(host[i]);
    }
}

int main(void)
{
    for (int gating = OP_ROUTE_SOFTMAX; gating <= OP_ROUTE_SOFTMAX_CHOSEN; gating++) {
        test_route(1, 1, gating, false, 1, 0, false);
        test_route(33, 4, gating, false, 1, 0, true);
        test_route(128, 8, gating, true, 1, 0, false);
        test_route(256, 8, gating, gating == OP_ROUTE_SIGMOID, 8, 4, true);
    }
    test_route(ROUTE_MAX, 33, OP_ROUTE_SOFTMAX, true, 1, 0, true);
    test_route_odd();
    test_order(1, 1, 1, 1);
    test_order(300, 3, 190, 5);
    test_order(7, 7, 50, 0); /* heads: every row has them all */
    test_combine(1, 1, false);
    test_combine(257, 3, true);
    return 0;
}
