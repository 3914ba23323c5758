/* RoPE against long double: tables up to position 4 million, both pairings, partial rotation,
 * groups. */
#include "tests/kernels/ops_rig.h"

static void check(int64_t pos, int64_t n_groups, int64_t n, int64_t n_rot, int64_t gap,
                  bool adjacent)
{
    uint64_t seed = (uint64_t)(pos + n);
    int64_t n_rows = 3, n_pairs = n_rot / 2;
    double inv_freq[128], exact[1024];
    struct rig g;
    struct rig_rows x = rig_random(n_rows, n_groups * (n + gap), 2, &seed);
    for (int64_t i = 0; i < n_pairs; i++) {
        inv_freq[i] = pow(500000.0, -2.0 * (double)i / (double)n_rot);
    }
    rig_init(&g, n_rows, pos);
    while (rig_next(&g)) {
        struct rig_rows t = rig_rows(n_rows, n_rot), y = rig_rows(n_rows, n_groups * n);
        struct op_rope_table table = {
            .y = t.r, .inv_freq = inv_freq, .n = (int32_t)n_pairs, .mscale = 1.25f};
        op_rope_table_run(&table, &g.step, n_rows);
        struct op_rope o = {.x = x.r,
                            .table = t.r,
                            .y = y.r,
                            .n_groups = (int32_t)n_groups,
                            .n = (int32_t)n,
                            .x_group = (int32_t)(n + gap),
                            .n_rot = (int32_t)n_rot,
                            .adjacent = adjacent};
        op_rope_run(&o, &g.step, n_rows);
        for (int64_t r = 0; r < n_rows; r++) {
            for (int64_t k = 0; k < n_groups; k++) {
                const float *in = rig_at(&x, r) + k * (n + gap);
                for (int64_t i = 0; i < n; i++) {
                    exact[k * n + i] = (double)in[i];
                }
                for (int64_t i = 0; i < n_pairs; i++) {
                    long double angle = (long double)(pos + r) * (long double)inv_freq[i];
                    double c = 1.25 * (double)cosl(angle), s = 1.25 * (double)sinl(angle);
                    int64_t p = adjacent ? 2 * i : i, q = adjacent ? p + 1 : i + n_pairs;
                    exact[k * n + p] = (double)in[p] * c - (double)in[q] * s;
                    exact[k * n + q] = (double)in[p] * s + (double)in[q] * c;
                    CHECK(fabs((double)rig_at(&t, r)[i] - c) <= 1e-7);
                    CHECK(fabs((double)rig_at(&t, r)[n_pairs + i] - s) <= 1e-7);
                }
            }
            rig_compare("rope", g.step.isa, rig_at(&y, r), exact, n_groups * n,
                        (double)ops_error_limit(OP_rope));
        }
        rig_free(&t);
        rig_free(&y);
    }
    rig_free(&x);
}

int main(void)
{
    static const int64_t positions[] = {0, 1, 2047, 2049, 131071, 4194300};
    for (size_t i = 0; i < COUNT_OF(positions); i++) {
        for (int adjacent = 0; adjacent < 2; adjacent++) {
            check(positions[i], 1, 2, 2, 0, adjacent);
            check(positions[i], 3, 40, 40, 0, adjacent);
            check(positions[i], 4, 128, 128, 128, adjacent);
            check(positions[i], 2, 80, 34, 7, adjacent);
        }
    }
    return 0;
}
