/* rope, glu, add and scale on the emulator, against double precision; the probe by its definition.
 */
#include "tests/kernels/hip/device.h"
#include "tests/kernels/hip/glu.h"

extern const struct gpu_host_kernel rope_kernel, glu_kernel, add_kernel, scale_kernel, probe_kernel;

static void test_rope(int n, int n_rot, int n_groups, bool adjacent, bool in_place)
{
    enum { ROWS = 3 };
    uint64_t seed = (uint64_t)(n + n_rot * 7 + n_groups);
    int x_group = in_place ? n : n + 5, stride = n_groups * x_group, width = n * n_groups;
    int n_pairs = n_rot / 2;
    float *x = device_random((int64_t)ROWS * stride, 2, &seed);
    float *table = device_random((int64_t)ROWS * 2 * n_pairs, 1, &seed);
    void *dx = device_copy(x, (size_t)(ROWS * stride) * 4);
    void *dt = device_copy(table, (size_t)(ROWS * 2 * n_pairs) * 4);
    void *dy = in_place ? dx : emulator_alloc((size_t)(ROWS * width) * 4, 0);
    struct rope_args a = {.x = dx,
                          .table = dt,
                          .y = dy,
                          .x_stride = stride,
                          .table_stride = 2 * n_pairs,
                          .y_stride = width,
                          .n_rows = ROWS,
                          .n_groups = n_groups,
                          .n = n,
                          .x_group = x_group,
                          .n_rot = n_rot,
                          .adjacent = adjacent};
    DEVICE_RUN(rope, &a);
    float *y = malloc((size_t)(ROWS * width) * 4);
    double *exact = malloc((size_t)width * sizeof *exact);
    emulator_download(y, dy, (size_t)(ROWS * width) * 4);
    for (int r = 0; r < ROWS; r++) {
        const float *cosine = table + r * 2 * n_pairs, *sine = cosine + n_pairs;
        for (int g = 0; g < n_groups; g++) {
            const float *v = x + r * stride + g * x_group;
            double *e = exact + g * n;
            for (int i = 0; i < n; i++) {
                e[i] = (double)v[i];
            }
            for (int i = 0; i < n_pairs; i++) {
                int p = adjacent ? 2 * i : i, q = adjacent ? p + 1 : p + n_pairs;
                double c = (double)cosine[i], s = (double)sine[i];
                e[p] = (double)v[p] * c - (double)v[q] * s;
                e[q] = (double)v[p] * s + (double)v[q] * c;
            }
        }
        device_check("rope", y + r * width, exact, width, 1e-6);
    }
    emulator_free(dt);
    emulator_free(dx);
    emulator_free(in_place ? NULL : dy);
    free(x);
    free(y);
    free(table);
    free(exact);
}

static void test_glu(int kind, int n, int n_groups, bool has_up, bool gate_is_one)
{
    enum { ROWS = 2 };
    uint64_t seed = (uint64_t)(kind * 1000 + n);
    int gate_group = (gate_is_one ? 1 : n) + 2, gate_stride = n_groups * gate_group;
    int width = n * n_groups;
    float *gate = device_random((int64_t)ROWS * gate_stride, n == 1 ? 2 : 12, &seed);
    float *up = device_random((int64_t)ROWS * width, 9, &seed);
    void *dg = device_copy(gate, (size_t)(ROWS * gate_stride) * 4);
    void *du = device_copy(up, (size_t)(ROWS * width) * 4);
    struct glu_args a = {.gate = dg,
                         .up = has_up ? du : NULL,
                         .y = du,
                         .gate_stride = gate_stride,
                         .up_stride = width,
                         .y_stride = width,
                         .n_rows = ROWS,
                         .kind = kind,
                         .n_groups = n_groups,
                         .n = n,
                         .gate_group = gate_group,
                         .gate_is_one = gate_is_one,
                         .alpha = 1.702f,
                         .limit = 7};
    DEVICE_RUN(glu, &a);
    float *y = malloc((size_t)(ROWS * width) * 4);
    double *exact = malloc((size_t)width * sizeof *exact);
    emulator_download(y, du, (size_t)(ROWS * width) * 4);
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < width; i++) {
            double g =
                (double)gate[r * gate_stride + i / n * gate_group + (gate_is_one ? 0 : i % n)];
            double u = (double)up[r * width + i];
            exact[i] = glu_exact(kind, g, u, has_up, (double)a.alpha, (double)a.limit);
        }
        device_check("glu", y + r * width, exact, width, 2e-6);
    }
    emulator_free(dg);
    emulator_free(du);
    free(gate);
    free(up);
    free(y);
    free(exact);
}

static void test_add_and_scale(int n, float cap, float size)
{
    uint64_t seed = (uint64_t)n;
    float *u = device_random(2 * n, 3, &seed), *v = device_random(2 * n, size, &seed);
    void *du = device_copy(u, (size_t)n * 8), *dv = device_copy(v, (size_t)n * 8);
    struct add_args a = {.a = du,
                         .b = dv,
                         .y = du,
                         .a_stride = n,
                         .b_stride = n,
                         .y_stride = n,
                         .n_rows = 2,
                         .n = n,
                         .a_scale = 0.75f,
                         .b_scale = -1.5f};
    DEVICE_RUN(add, &a);
    struct scale_args s = {.x = dv,
                           .y = dv,
                           .x_stride = n,
                           .y_stride = n,
                           .n_rows = 2,
                           .n = n,
                           .scale = 0.3f,
                           .cap = cap};
    DEVICE_RUN(scale, &s);
    float *sum = malloc((size_t)n * 8), *scaled = malloc((size_t)n * 8);
    double *e = malloc((size_t)n * 16);
    emulator_download(sum, du, (size_t)n * 8);
    emulator_download(scaled, dv, (size_t)n * 8);
    for (int i = 0; i < 2 * n; i++) {
        e[i] = 0.75 * (double)u[i] - 1.5 * (double)v[i];
    }
    device_check("add", sum, e, 2 * n, 1e-6);
    for (int i = 0; i < 2 * n; i++) {
        double x = (double)0.3f * (double)v[i];
        e[i] = cap > 0 ? (double)cap * tanh(x / (double)cap) : x;
    }
    device_check("scale", scaled, e, 2 * n, 2e-6);
    emulator_free(du);
    emulator_free(dv);
    free(u);
    free(v);
    free(sum);
    free(scaled);
    free(e);
}

/* Rows of several groups, in floats and in 8 bits, and in 8 bits only. */
static void test_glu_act(int n, int n_groups, bool has_y)
{
    enum { ROWS = 3 };
    uint64_t seed = (uint64_t)(n + has_y);
    int width = n * n_groups;
    int64_t act_bytes = args_act_bytes(width);
    float *gate = device_random(ROWS * width, 4, &seed),
          *up = device_random(ROWS * width, 3, &seed);
    void *dg = device_copy(gate, (size_t)(ROWS * width) * 4);
    void *du = device_copy(up, (size_t)(ROWS * width) * 4);
    void *dy = emulator_alloc((size_t)(ROWS * width) * 4, 0);
    void *dact = emulator_alloc((size_t)(ROWS * act_bytes), 0);
    struct glu_args a = {.gate = dg,
                         .up = du,
                         .y = has_y ? dy : NULL,
                         .act = dact,
                         .gate_stride = width,
                         .up_stride = width,
                         .y_stride = width,
                         .act_stride = act_bytes,
                         .n_rows = ROWS,
                         .kind = OP_GLU_SILU,
                         .n_groups = n_groups,
                         .n = n,
                         .gate_group = n};
    DEVICE_RUN(glu, &a);
    int8_t *row = aligned_alloc(16, (size_t)act_bytes);
    float *y = malloc((size_t)width * 4);
    double *exact = malloc((size_t)width * sizeof *exact);
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < width; i++) {
            double u = (double)up[r * width + i];
            exact[i] = glu_exact(OP_GLU_SILU, (double)gate[r * width + i], u, true, 0, 0);
        }
        if (has_y) {
            emulator_download(y, (float *)dy + r * width, (size_t)width * 4);
            device_check("glu beside 8 bits", y, exact, width, 2e-6);
        }
        emulator_download(row, (int8_t *)dact + r * act_bytes, (size_t)(width + width / 32 * 8));
        device_check_act(row, width, exact);
    }
    void *device[] = {dg, du, dy, dact};
    for (size_t i = 0; i < COUNT_OF(device); i++) {
        emulator_free(device[i]);
    }
    void *host[] = {gate, up, row, y, exact};
    for (size_t i = 0; i < COUNT_OF(host); i++) {
        free(host[i]);
    }
}

static void test_probe(void)
{
    enum { N = 3 * PROBE_THREADS };
    uint32_t was[N], got[N];
    for (uint32_t i = 0; i < N; i++) {
        was[i] = i * i + 7;
    }
    void *data = device_copy(was, sizeof was);
    struct probe_args a = {.data = data, .n = N};
    struct emulator_grid grid = {.x = 3, .y = 1, .z = 1, .seed = 3};
    static const int32_t blocks[3] = {3, 1, 1};
    FILE *trace = device_trace(&probe_kernel, blocks, &a, sizeof a);
    CHECK(emulator_launch(&probe_kernel, &grid, &a, sizeof a));
    device_trace_end(trace);
    emulator_download(got, data, sizeof got);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t t = i % PROBE_THREADS, first = t / 32 * 32;
        uint32_t mirrored = i - t + PROBE_THREADS - 1 - t;
        CHECK(got[i] == was[mirrored] * 2654435761u + 32 * first + 31 * 16);
    }
    emulator_free(data);
}

int main(void)
{
    test_probe();
    for (int adjacent = 0; adjacent < 2; adjacent++) {
        test_rope(64, 64, 3, adjacent, true);
        test_rope(80, 32, 2, adjacent, false);
        test_rope(33, 2, 1, adjacent, false);
        test_rope(128, 128, 7, adjacent, false);
    }
    for (int kind = 0; kind < OP_GLU_COUNT; kind++) {
        test_glu(kind, 257, 1, true, false);
        test_glu(kind, 33, 2, kind == OP_GLU_SILU_CLAMPED, false);
        test_glu(kind, 1, 1, true, false);
        test_glu(kind, 31, 3, true, true);
    }
    test_glu_act(32, 1, true);
    test_glu_act(96, 3, true);
    test_glu_act(544, 1, false);
    test_add_and_scale(1, 0, 2);
    test_add_and_scale(257, 0, 2);
    test_add_and_scale(31, 30, 400);
    test_add_and_scale(300, 50, 0.1f);
    return 0;
}
