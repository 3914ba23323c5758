/* Sums, scales with and without cap, gathered and joined columns. */
#include "tests/kernels/ops_rig.h"

static void check_add(int64_t n)
{
    uint64_t seed = (uint64_t)n;
    struct rig g;
    struct rig_rows a = rig_random(3, n, 2, &seed), b = rig_random(3, n, 2, &seed);
    double *exact = malloc((size_t)n * sizeof *exact);
    rig_init(&g, 3, 0);
    while (rig_next(&g)) {
        struct rig_rows y = rig_rows(3, n);
        struct op_add o = {.a = a.r, .b = b.r, .y = y.r, .n = (int32_t)n, .a_scale = 1,
                           .b_scale = 0.25f};
        op_add_run(&o, &g.step, 3);
        for (int64_t r = 0; r < 3; r++) {
            for (int64_t i = 0; i < n; i++) {
                exact[i] = (double)rig_at(&a, r)[i] + 0.25 * (double)rig_at(&b, r)[i];
            }
            rig_compare("add", g.step.isa, rig_at(&y, r), exact, n,
                        (double)ops_error_limit(OP_add));
        }
        for (int capped = 0; capped < 2; capped++) {
            struct op_scale s = {.x = a.r, .y = y.r, .n = (int32_t)n, .scale = 20,
                                 .cap = capped ? 30.0f : 0};
            op_scale_run(&s, &g.step, 3);
            for (int64_t i = 0; i < n; i++) {
                double x = 20 * (double)a.r.data[i];
                exact[i] = capped ? 30 * tanh(x / 30) : x;
            }
            rig_compare("scale", g.step.isa, y.r.data, exact, n,
                        (double)ops_error_limit(OP_scale));
        }
        rig_free(&y);
    }
    rig_free(&a);
    rig_free(&b);
    free(exact);
}

static void check_columns(void)
{
    uint64_t seed = 3;
    struct rig g;
    struct rig_rows a = rig_random(5, 4 * 9, 2, &seed), b = rig_random(5, 3, 2, &seed);
    rig_init(&g, 5, 0);
    while (rig_next(&g)) {
        struct rig_rows y = rig_rows(5, 4 * 7), z = rig_rows(5, 4 * 10);
        struct op_copy c = {.x = a.r, .y = y.r, .n_groups = 4, .n = 7, .x_group = 9};
        op_copy_run(&c, &g.step, 5);
        struct op_concat o = {.a = y.r, .b = b.r, .y = z.r, .n_groups = 4, .a_n = 7, .a_group = 7,
                              .b_n = 3, .b_group = 0};
        op_concat_run(&o, &g.step, 5);
        for (int64_t r = 0; r < 5; r++) {
            for (int k = 0; k < 4; k++) {
                CHECK(memcmp(rig_at(&z, r) + k * 10, rig_at(&a, r) + k * 9, 7 * sizeof(float)) ==
                      0);
                CHECK(memcmp(rig_at(&z, r) + k * 10 + 7, rig_at(&b, r), 3 * sizeof(float)) == 0);
            }
        }
        rig_free(&y);
        rig_free(&z);
    }
    rig_free(&a);
    rig_free(&b);
}

int main(void)
{
    static const int64_t sizes[] = {1, 31, 33, 257, 9000};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        check_add(sizes[i]);
    }
    check_columns();
    return 0;
}
