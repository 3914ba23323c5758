/* Activations against double precision: every kind, gated and plain, over the range where they bend
 * and far beyond it; a gate for a whole row; groups; NaN stays NaN. */
#include "tests/kernels/ops_rig.h"

static double exact_sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double exact_f(enum op_glu_kind kind, double x)
{
    switch (kind) {
    case OP_GLU_SILU:
        return x * exact_sigmoid(x);
    case OP_GLU_GELU:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case OP_GLU_GELU_ERF:
        return 0.5 * x * erfc(-x / sqrt(2));
    case OP_GLU_RELU:
        return fmax(x, 0);
    case OP_GLU_RELU2:
        return fmax(x, 0) * fmax(x, 0);
    case OP_GLU_SIGMOID:
        return exact_sigmoid(x);
    case OP_GLU_SILU_CLAMPED:
        return fmin(x, 7) * exact_sigmoid(1.702 * fmin(x, 7));
    case OP_GLU_NONE:
    case OP_GLU_COUNT:
        break;
    }
    return x;
}

static double limit_of(enum op_glu_kind kind, enum isa isa)
{
    /* The scalar GELU goes through half precision (see vec_scalar.c). */
    return kind == OP_GLU_GELU && isa == ISA_SCALAR ? 1e-3 : (double)ops_error_limit(OP_glu);
}

static void check(enum op_glu_kind kind, bool has_up, int64_t n, int64_t n_groups, double scale)
{
    uint64_t seed = (uint64_t)(n + 1000 * (int)kind);
    int64_t n_rows = 3, gap = n_groups > 1 ? 5 : 0;
    struct rig g;
    struct rig_rows gate = rig_random(n_rows, n_groups * (n + gap), scale, &seed);
    struct rig_rows up = rig_random(n_rows, n_groups * n, 9, &seed);
    double *exact = malloc((size_t)(n * n_groups) * sizeof *exact);
    rig_init(&g, n_rows, 0);
    while (rig_next(&g)) {
        struct rig_rows y = rig_rows(n_rows, n_groups * n);
        struct op_glu o = {.gate = gate.r,
                           .up = has_up ? up.r : (struct op_rows){.buf = -1},
                           .y = y.r,
                           .kind = (int32_t)kind,
                           .n_groups = (int32_t)n_groups,
                           .n = (int32_t)n,
                           .gate_group = (int32_t)(n + gap),
                           .alpha = 1.702f,
                           .limit = 7};
        op_glu_run(&o, &g.step, n_rows);
        for (int64_t r = 0; r < n_rows; r++) {
            for (int64_t i = 0; i < n_groups * n; i++) {
                double x = (double)rig_at(&gate, r)[i / n * (n + gap) + i % n];
                double u = (double)rig_at(&up, r)[i];
                u = kind == OP_GLU_SILU_CLAMPED ? fmin(fmax(u, -7), 7) + 1 : u;
                exact[i] = exact_f(kind, x) * (has_up ? u : 1);
            }
            rig_compare("glu", g.step.isa, rig_at(&y, r), exact, n_groups * n,
                        limit_of(kind, g.step.isa));
        }
        rig_free(&y);
    }
    rig_free(&gate);
    rig_free(&up);
    free(exact);
}

/* Values where functions are steep, flat, tiny or overflow: error relative to the value itself. */
static void check_points(void)
{
    static const float points[] = {0.0f,   -0.0f, 1e-30f, -1e-6f, 1e-3f, 0.3f,   -0.624f, 0.626f,
                                   -3.0f,  8.0f,  -20.0f, 30.0f,  -90.0f, 100.0f, -200.0f, 3e4f};
    int64_t n = COUNT_OF(points);
    struct rig g;
    rig_init(&g, 1, 0);
    while (rig_next(&g)) {
        struct rig_rows x = rig_rows(1, n), y = rig_rows(1, n);
        memcpy(x.r.data, points, sizeof points);
        for (int kind = OP_GLU_NONE; kind < OP_GLU_SILU_CLAMPED; kind++) {
            struct op_glu o = {.gate = x.r, .up = {.buf = -1}, .y = y.r, .kind = kind,
                               .n_groups = 1, .n = (int32_t)n};
            op_glu_run(&o, &g.step, 1);
            for (int64_t i = 0; i < n; i++) {
                double exact = exact_f((enum op_glu_kind)kind, (double)points[i]);
                double error = fabs((double)y.r.data[i] - exact);
                CHECK(error <= limit_of((enum op_glu_kind)kind, g.step.isa) *
                                   fmax(fabs(exact), fmax(fabs((double)points[i]), 1)));
            }
        }
        for (int kind = OP_GLU_NONE; kind < OP_GLU_COUNT; kind++) {
            x.r.data[3] = NAN;
            struct op_glu o = {.gate = x.r, .up = x.r, .y = y.r, .kind = kind, .n_groups = 1,
                               .n = (int32_t)n, .alpha = 1, .limit = 7};
            op_glu_run(&o, &g.step, 1);
            bool may_hide = kind == OP_GLU_SILU_CLAMPED; /* min and max drop it */
            CHECK(isnan(y.r.data[3]) || may_hide);
            CHECK(!isnan(y.r.data[4]));
        }
        rig_free(&x);
        rig_free(&y);
    }
}

/* One gate value for a whole row. */
static void check_row_gate(void)
{
    uint64_t seed = 5;
    struct rig g;
    struct rig_rows gate = rig_random(4, 1, 3, &seed), up = rig_random(4, 100, 1, &seed);
    rig_init(&g, 4, 0);
    while (rig_next(&g)) {
        struct rig_rows y = rig_rows(4, 100);
        struct op_glu o = {.gate = gate.r, .up = up.r, .y = y.r, .kind = OP_GLU_SIGMOID,
                           .n_groups = 1, .n = 100};
        op_glu_run(&o, &g.step, 4);
        for (int64_t r = 0; r < 4; r++) {
            double exact[100];
            for (int i = 0; i < 100; i++) {
                exact[i] = exact_sigmoid((double)*rig_at(&gate, r)) * (double)rig_at(&up, r)[i];
            }
            rig_compare("row gate", g.step.isa, rig_at(&y, r), exact, 100,
                        (double)ops_error_limit(OP_glu));
        }
        rig_free(&y);
    }
    rig_free(&gate);
    rig_free(&up);
}

int main(void)
{
    static const int64_t sizes[] = {2, 16, 31, 33, 257};
    for (int kind = OP_GLU_NONE; kind < OP_GLU_COUNT; kind++) {
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            bool must_up = kind == OP_GLU_SILU_CLAMPED;
            check((enum op_glu_kind)kind, i % 2 == 0 || must_up, sizes[i], 1, 6);
            check((enum op_glu_kind)kind, true, sizes[i], 3, i % 2 ? 0.5 : 40);
        }
    }
    check_points();
    check_row_gate();
    return 0;
}
