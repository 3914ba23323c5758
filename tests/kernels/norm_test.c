/* Norms against double precision: kinds, sizes, groups with strides, weights of each form. */
#include "tests/kernels/ops_rig.h"

static void exact_norm(enum op_norm_kind kind, const float *x, const float *w, const float *b,
                       int64_t n, double eps, double *y)
{
    double mean = 0, square = 0, scale;
    for (int64_t i = 0; i < n; i++) {
        mean += (double)x[i] / (double)n;
    }
    mean = kind == OP_NORM_LAYER ? mean : 0;
    for (int64_t i = 0; i < n; i++) {
        square += ((double)x[i] - mean) * ((double)x[i] - mean);
    }
    scale = kind == OP_NORM_L2 ? 1 / fmax(sqrt(square), eps) : 1 / sqrt(square / (double)n + eps);
    for (int64_t i = 0; i < n; i++) {
        y[i] = ((double)x[i] - mean) * scale * (w ? (double)w[i] : 1) + (b ? (double)b[i] : 0);
    }
}

static void check(enum op_norm_kind kind, int64_t n_rows, int64_t n_groups, int64_t n, int64_t gap,
                  bool has_params, bool per_group)
{
    uint64_t seed = (uint64_t)(n * 31 + n_groups);
    struct rig g;
    struct rig_rows x = rig_random(n_rows, n_groups * (n + gap), 3, &seed);
    int64_t n_params = per_group ? n * n_groups : n;
    float *w = rig_vec(n_params, 1, 0.5, &seed), *b = rig_vec(n_params, 0, 0.5, &seed);
    double *exact = malloc((size_t)(n_groups * n) * sizeof *exact);
    rig_init(&g, n_rows, 0);
    while (rig_next(&g)) {
        struct rig_rows y = rig_rows(n_rows, n_groups * n);
        struct op_norm o = {.x = x.r,
                            .y = y.r,
                            .weight = has_params ? w : NULL,
                            .bias = has_params ? b : NULL,
                            .kind = (int32_t)kind,
                            .n_groups = (int32_t)n_groups,
                            .n = (int32_t)n,
                            .x_group = (int32_t)(n + gap),
                            .per_group = per_group,
                            .eps = 1e-5f};
        op_norm_run(&o, &g.step, n_rows);
        for (int64_t r = 0; r < n_rows; r++) {
            for (int64_t k = 0; k < n_groups; k++) {
                int64_t at = per_group ? k * n : 0;
                exact_norm(kind, rig_at(&x, r) + k * (n + gap), has_params ? w + at : NULL,
                           has_params ? b + at : NULL, n, 1e-5, exact + k * n);
            }
            rig_compare("norm", g.step.isa, rig_at(&y, r), exact, n_groups * n,
                        (double)ops_error_limit(OP_norm));
        }
        rig_free(&y);
    }
    rig_free(&x);
    free(w);
    free(b);
    free(exact);
}

int main(void)
{
    static const int64_t sizes[] = {1, 7, 16, 31, 33, 257, 4096};
    for (int kind = OP_NORM_RMS; kind <= OP_NORM_L2; kind++) {
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            check((enum op_norm_kind)kind, 3, 1, sizes[i], 0, sizes[i] != 33, false);
            check((enum op_norm_kind)kind, 2, 5, sizes[i], 3, true, i % 2 == 0);
        }
    }
    return 0;
}
