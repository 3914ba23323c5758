/* top on the emulator: the k largest of long rows in order, ties to the lower index, what is not
 * finite counted. */
#include "tests/kernels/hip/device.h"

extern const struct gpu_host_kernel top_part_kernel, top_fold_kernel;

static void test(int n, int k, bool has_ties, bool has_bad)
{
    enum { ROWS = 2 };
    uint64_t seed = (uint64_t)(n + k);
    float *x = device_random((int64_t)ROWS * n, 9, &seed);
    int n_bad[ROWS] = {0, 0};
    for (int i = 0; i < ROWS * n; i++) {
        x[i] = has_ties ? (float)(int)x[i] : x[i];
        if (has_bad && i >= n && i % 3 == 0) {
            x[i] = i % 2 ? NAN : INFINITY;
            n_bad[1]++;
        }
    }
    int n_parts = TABLE_CEIL(n, TOP_PART);
    size_t n_part = (size_t)(ROWS * n_parts * k) * 4, n_out = (size_t)(ROWS * k) * 4;
    struct top_args a = {.x_stride = n, .n_rows = ROWS, .n = n, .k = k, .n_parts = n_parts};
    void *dx = device_copy(x, (size_t)(ROWS * n) * 4);
    a.x = dx;
    a.part_values = emulator_alloc(n_part, 0);
    a.part_ids = emulator_alloc(n_part, 0);
    a.part_bad = emulator_alloc((size_t)(ROWS * n_parts) * 4, 0);
    a.values = emulator_alloc(n_out, 0);
    a.ids = emulator_alloc(n_out, 0);
    a.bad = emulator_alloc(ROWS * 4, 0);
    DEVICE_RUN(top_part, &a);
    DEVICE_RUN(top_fold, &a);
    float *values = malloc(n_out);
    int32_t *ids = malloc(n_out), bad[ROWS];
    emulator_download(values, a.values, n_out);
    emulator_download(ids, a.ids, n_out);
    emulator_download(bad, a.bad, sizeof bad);
    for (int r = 0; r < ROWS; r++) {
        CHECK_INT(bad[r], n_bad[r]);
        for (int i = 0; i < k; i++) {
            int best = -1;
            for (int j = 0; j < n; j++) {
                float v = x[r * n + j];
                if (isfinite(v) && (best < 0 || v > x[r * n + best])) {
                    best = j;
                }
            }
            CHECK_INT(ids[r * k + i], best);
            if (best >= 0) {
                CHECK(values[r * k + i] == x[r * n + best]);
                x[r * n + best] = -INFINITY;
            }
        }
    }
    void *device[] = {dx, a.part_values, a.part_ids, a.part_bad, a.values, a.ids, a.bad};
    for (size_t i = 0; i < COUNT_OF(device); i++) {
        emulator_free(device[i]);
    }
    free(x);
    free(values);
    free(ids);
}

int main(void)
{
    test(1, 1, false, false);
    test(31, 5, true, false);
    test(257, 1, false, true);
    test(4097, 3, true, true);
    test(9000, 2, false, false);
    test(9000, TOP_MAX, true, false);
    test(40, TOP_MAX, false, true);
    test(4, 6, false, false); /* fewer than asked for */
    return 0;
}
