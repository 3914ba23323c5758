/* For tests of GPU kernels on the emulator: values in device memory, launches that must be sound,
 * and errors measured as ops.def says: relative to the largest exact value of the row. */
#ifndef TESTS_KERNELS_HIP_DEVICE_H
#define TESTS_KERNELS_HIP_DEVICE_H

#include "kernels/hip/table.h"
#include "tests/rig/emulator.h"
#include "tests/test.h"

/* With DEVICE_TRACE in the environment, every launch is added to that file for
 * tests/rig/code_objects: name, grid and threads, arguments, all memory before and after. */
static inline FILE *device_trace(const struct gpu_host_kernel *kernel, const int32_t grid[3],
                                 const void *args, size_t args_bytes)
{
    const char *path = getenv("DEVICE_TRACE");
    FILE *f = path ? fopen(path, "abe") : NULL;
    if (f) {
        uint64_t head[6] = {strlen(kernel->name), (uint64_t)grid[0],         (uint64_t)grid[1],
                            (uint64_t)grid[2],    (uint64_t)kernel->threads, args_bytes};
        fwrite(head, sizeof head, 1, f);
        fwrite(kernel->name, 1, head[0], f);
        fwrite(args, 1, args_bytes, f);
        emulator_dump(f);
    }
    return f;
}
static inline void device_trace_end(FILE *f)
{
    if (f) {
        emulator_dump(f);
        fclose(f);
    }
}

/* Launches a kernel over the grid of the table, in the order of a seed that advances from launch to
 * launch. */
#define DEVICE_RUN(name, args)                                                                     \
    device_run(&name##_kernel, &table_kernels[TABLE_##name], args, sizeof *(args))
static inline void device_run(const struct gpu_host_kernel *kernel,
                              const struct table_kernel *entry, const void *args, size_t args_bytes)
{
    static uint64_t seed;
    int32_t grid[3];
    CHECK(strcmp(kernel->name, entry->name) == 0);
    CHECK(entry->args_bytes == args_bytes && entry->threads == kernel->threads);
    entry->grid(args, grid);
    struct emulator_grid g = {
        .x = grid[0], .y = grid[1], .z = grid[2], .seed = seed, .matrix = seed % 2 ? 12 : 11};
    seed++;
    FILE *trace = device_trace(kernel, grid, args, args_bytes);
    if (!emulator_launch(kernel, &g, args, args_bytes)) {
        TEST_FAIL("%s", emulator_fault());
    }
    device_trace_end(trace);
}

static inline void *device_copy(const void *data, size_t n_bytes)
{
    void *p = emulator_alloc(n_bytes, 0);
    emulator_upload(p, data, n_bytes);
    return p;
}

/* n random floats; times scale. */
static inline float *device_random(int64_t n, float scale, uint64_t *seed)
{
    float *x = malloc((size_t)n * sizeof *x + 1);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)test_uniform(seed) * scale;
    }
    return x;
}

static inline void device_check(const char *what, const float *y, const double *exact, int64_t n,
                                double limit)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs(exact[i]));
    }
    for (int64_t i = 0; i < n; i++) {
        double error = fabs((double)y[i] - exact[i]);
        if (!(error <= limit * largest)) {
            TEST_FAIL("%s: value %d is %.9g, expected %.9g (largest %.9g)", what, (int)i,
                      (double)y[i], exact[i], largest);
        }
    }
}

/* A row in 8 bits: every value within half a step, and the sums of its bytes. */
static inline void device_check_act(const int8_t *row, int n, const double *exact)
{
    const struct args_act *groups = (const struct args_act *)(const void *)(row + n);
    for (int b = 0; b < n / ARGS_GROUP; b++) {
        double largest = 0, scale = (double)groups[b].scale;
        int sum[2] = {0, 0};
        for (int i = 0; i < ARGS_GROUP; i++) {
            largest = fmax(largest, fabs(exact[32 * b + i]));
            sum[i / 16] += row[32 * b + i];
        }
        CHECK(fabs(scale - largest / 127) <= 1e-5 * largest);
        CHECK(groups[b].sum[0] == sum[0] && groups[b].sum[1] == sum[1]);
        for (int i = 0; i < ARGS_GROUP; i++) {
            CHECK(fabs(scale * row[32 * b + i] - exact[32 * b + i]) <= 0.5001 * scale);
        }
    }
}

#endif
