/* norm and quantize on the emulator, against double precision. */
#include "kernels/op_kinds.h"
#include "tests/kernels/hip/device.h"

extern const struct gpu_host_kernel norm_kernel, quantize_kernel;

static void test_norm(int kind, int n, int n_groups, bool per_group, bool has_act)
{
    enum { ROWS = 2 };
    uint64_t seed = (uint64_t)(n * 100 + n_groups * 10 + kind);
    int x_group = n + 3, stride = n_groups * x_group + 1, width = n * n_groups;
    float *x = device_random((int64_t)ROWS * stride, 2, &seed);
    float *w = device_random(width, 1, &seed), *b = device_random(width, 1, &seed);
    struct norm_args a = {.x_stride = stride,
                          .y_stride = width + 2,
                          .n_rows = ROWS,
                          .n = n,
                          .n_groups = n_groups,
                          .x_group = x_group,
                          .kind = kind,
                          .per_group = per_group,
                          .eps = 1e-5f};
    size_t y_floats = (size_t)(ROWS - 1) * (size_t)a.y_stride + (size_t)width;
    void *dx = device_copy(x, (size_t)ROWS * (size_t)stride * 4);
    void *dw = device_copy(w, (size_t)(per_group ? width : n) * 4);
    void *db = device_copy(b, (size_t)(per_group ? width : n) * 4);
    void *dy = emulator_alloc(y_floats * 4, 0);
    a.act_stride = args_act_bytes(width);
    void *dact = emulator_alloc((size_t)(ROWS * a.act_stride), 0);
    a.x = dx;
    a.y = dy;
    a.weight = dw;
    a.bias = kind == OP_NORM_LAYER ? db : NULL;
    a.act = has_act ? dact : NULL;
    DEVICE_RUN(norm, &a);
    double *exact = malloc((size_t)width * sizeof *exact);
    for (int r = 0; r < ROWS; r++) {
        for (int g = 0; g < n_groups; g++) {
            const float *v = x + r * stride + g * x_group;
            double mean = 0, squares = 0;
            for (int i = 0; i < n && kind == OP_NORM_LAYER; i++) {
                mean += (double)v[i] / n;
            }
            for (int i = 0; i < n; i++) {
                squares += ((double)v[i] - mean) * ((double)v[i] - mean);
            }
            double scale = kind == OP_NORM_L2 ? 1 / fmax(sqrt(squares), (double)a.eps)
                                              : 1 / sqrt(squares / n + (double)a.eps);
            for (int i = 0; i < n; i++) {
                int p = per_group ? g * n + i : i;
                exact[g * n + i] =
                    ((double)v[i] - mean) * scale * (double)w[p] + (a.bias ? (double)b[p] : 0);
            }
        }
        float *y = malloc((size_t)width * 4);
        emulator_download(y, (float *)dy + r * a.y_stride, (size_t)width * 4);
        device_check("norm", y, exact, width, 3e-6);
        if (has_act) {
            int8_t *row = malloc((size_t)a.act_stride);
            emulator_download(row, (int8_t *)dact + r * a.act_stride,
                              (size_t)(width + width / 32 * 8));
            device_check_act(row, width, exact);
            free(row);
        }
        free(y);
    }
    void *all[] = {dx, dw, db, dy, dact};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        emulator_free(all[i]);
    }
    free(x);
    free(w);
    free(b);
    free(exact);
}

/* Without weights, and in 8 bits only. */
static void test_norm_act_only(int kind, int n)
{
    uint64_t seed = (uint64_t)n;
    float *x = device_random(n, 2, &seed);
    void *dx = device_copy(x, (size_t)n * 4), *dact = emulator_alloc((size_t)args_act_bytes(n), 0);
    struct norm_args a = {.x = dx,
                          .act = dact,
                          .x_stride = n,
                          .act_stride = args_act_bytes(n),
                          .n_rows = 1,
                          .n = n,
                          .n_groups = 1,
                          .x_group = n,
                          .kind = kind,
                          .eps = 1e-5f};
    DEVICE_RUN(norm, &a);
    double mean = 0, squares = 0, *exact = malloc((size_t)n * sizeof *exact);
    for (int i = 0; i < n && kind == OP_NORM_LAYER; i++) {
        mean += (double)x[i] / n;
    }
    for (int i = 0; i < n; i++) {
        squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    }
    for (int i = 0; i < n; i++) {
        exact[i] =
            ((double)x[i] - mean) / (kind == OP_NORM_L2 ? sqrt(squares) : sqrt(squares / n + 1e-5));
    }
    int8_t *row = aligned_alloc(16, (size_t)args_act_bytes(n));
    emulator_download(row, dact, (size_t)(n + n / 32 * 8));
    device_check_act(row, n, exact);
    emulator_free(dx);
    emulator_free(dact);
    free(x);
    free(exact);
    free(row);
}

/* Zeros, tiny values and what is not a number: no exception to the formula, and NaN is not lost in
 * 8 bits. */
static void test_quantize(void)
{
    enum { N = 288 };
    float x[N];
    double exact[N];
    uint64_t seed = 5;
    for (int i = 0; i < N; i++) {
        x[i] = (float)test_uniform(&seed) * (i < 64 ? 1e-30f : i < 96 ? 0 : 3e4f);
    }
    x[200] = NAN;
    x[230] = INFINITY;
    struct quantize_args a = {.act_stride = args_act_bytes(N), .x_stride = N, .n_rows = 1, .n = N};
    void *dx = device_copy(x, sizeof x), *dact = emulator_alloc((size_t)a.act_stride, 0);
    a.x = dx;
    a.act = dact;
    DEVICE_RUN(quantize, &a);
    int8_t row[N + N / 32 * 8] __attribute__((aligned(16)));
    emulator_download(row, dact, sizeof row);
    for (int i = 0; i < N; i++) {
        exact[i] = (double)x[i];
    }
    const struct args_act *groups = (const struct args_act *)(const void *)(row + N);
    CHECK(isnan(groups[6].scale) && isnan(groups[7].scale)); /* of values 192 .. 255 */
    CHECK(groups[2].scale == 0 && row[64] == 0);
    /* The ordinary ones. */
    int8_t part[N + N / 32 * 8] __attribute__((aligned(16)));
    memcpy(part, row, 192);
    memcpy(part + 192, row + N, 192 / 32 * 8);
    device_check_act(part, 192, exact);
    emulator_free(dx);
    emulator_free(dact);
}

int main(void)
{
    static const int sizes[] = {1, 31, 33, 257, 896, 2052, 4099, 4100};
    for (int kind = OP_NORM_RMS; kind <= OP_NORM_L2; kind++) {
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            test_norm(kind, sizes[i], 1, false, false);
        }
        test_norm(kind, 64, 3, false, true);
        test_norm(kind, 96, 2, true, true);
        test_norm(kind, 416, 1, false, true);
        test_norm(kind, 3584, 1, false, true);
        test_norm(kind, 5152, 1, false, true); /* more than registers hold */
        test_norm_act_only(kind, 32);
        test_norm_act_only(kind, 1056);
    }
    test_quantize();
    return 0;
}
