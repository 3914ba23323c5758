/* For tests of GPU kernels on the emulator: values in device memory, launches that must be sound, and errors measured as
 * ops.def says: relative to the largest exact value of the row. */
#ifndef TESTS_KERNELS_HIP_DEVICE_H
#define TESTS_KERNELS_HIP_DEVICE_H

#include "kernels/hip/args.h"
#include "tests/rig/emulator.h"
#include "tests/test.h"

/* Runs a grid of x by y by z blocks in the order of a seed that advances from launch to launch. */
#define DEVICE_RUN(kernel, x, y, z, args)                                                          \
    device_run(&kernel##_kernel, (int)(x), (int)(y), (int)(z), args, sizeof *(args))
static inline void device_run(const struct gpu_host_kernel *kernel, int x, int y, int z,
                              const void *args, size_t args_bytes)
{
    static uint64_t seed;
    struct emulator_grid g = {.x = x, .y = y, .z = z, .seed = seed, .matrix = seed % 2 ? 12 : 11};
    seed++;
    if (!emulator_launch(kernel, &g, args, args_bytes)) {
        TEST_FAIL("%s", emulator_fault());
    }
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

#endif
