/* What the double of the HIP runtime knows of single kernels (see hip_double.h): where their
 * results stand, and how often they ran. Called under its lock. */
#include "kernels/hip/args.h"
#include "tests/rig/emulator.h"
#include "tests/rig/hip_double.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_KERNELS = 128 };

/* --- results
 * -------------------------------------------------------------------------------------- */

/* A number that the kernel has written: of a result in 8 bits, the first scale. */
static float *output_of(const struct gpu_host_kernel *kernel, const void *args)
{
    const char *name = kernel->name;
    int64_t n;
    int8_t *act;
    if (strcmp(name, "probe") == 0) {
        return (float *)(void *)((const struct probe_args *)args)->data;
    } else if (strcmp(name, "norm") == 0) {
        const struct norm_args *a = args;
        n = (int64_t)a->n_groups * a->n;
        act = a->act;
        if (a->y) {
            return a->y;
        }
    } else if (strcmp(name, "glu") == 0) {
        const struct glu_args *a = args;
        n = (int64_t)a->n_groups * a->n;
        act = a->act;
        if (a->y) {
            return a->y;
        }
    } else if (strcmp(name, "quantize") == 0) {
        const struct quantize_args *a = args;
        n = a->n;
        act = a->act;
    } else if (strncmp(name, "gemv", 4) == 0 || strncmp(name, "gemm", 4) == 0) {
        const struct matmul_args *a = args;
        n = a->w[0].n_rows;
        act = a->act;
        if (a->y[0]) {
            return a->y[0];
        }
    } else if (strncmp(name, "attention", 9) == 0) {
        const struct attention_args *a = args;
        n = (int64_t)a->n_head * a->dim_v;
        act = a->act;
        if (strncmp(name, "attention_split", 15) == 0 && a->n_splits > 1) {
            return a->part + 2; /* the first weighted value */
        }
        if (a->y) {
            return a->y;
        }
    } else {
        return strcmp(name, "rope") == 0           ? ((const struct rope_args *)args)->y
               : strcmp(name, "add") == 0          ? ((const struct add_args *)args)->y
               : strcmp(name, "scale") == 0        ? ((const struct scale_args *)args)->y
               : strcmp(name, "copy") == 0         ? ((const struct copy_args *)args)->y
               : strcmp(name, "embed") == 0        ? ((const struct embed_args *)args)->y
               : strcmp(name, "conv") == 0         ? ((const struct conv_args *)args)->y
               : strcmp(name, "ssm") == 0          ? ((const struct ssm_args *)args)->y
               : strcmp(name, "delta") == 0        ? ((const struct delta_args *)args)->y
               : strcmp(name, "top_fold") == 0     ? ((const struct top_args *)args)->values
               : strcmp(name, "combine") == 0      ? ((const struct combine_args *)args)->y
               : strncmp(name, "kv_write", 8) == 0 ? ((const struct kv_write_args *)args)->q
               : strcmp(name, "route") == 0        ? ((const struct route_args *)args)->y +
                                                  ((const struct route_args *)args)->n_used
                                            : NULL;
    }
    return (float *)(void *)(act + n);
}

void hip_double_spoil(const struct gpu_host_kernel *kernel, const void *args, bool is_nan)
{
    float *y = output_of(kernel, args);
    if (!y) {
        fprintf(stderr, "hip_double: what %s writes is not known\n", kernel->name);
        exit(2);
    }
    float v = is_nan ? NAN : *y * -2.0f + 3.0f;
    emulator_upload(y, &v, sizeof v);
}

/* --- counts
 * --------------------------------------------------------------------------------------- */

static struct {
    const struct gpu_host_kernel *kernel;
    size_t n;
} ran[MAX_KERNELS];

void hip_double_count(const struct gpu_host_kernel *kernel)
{
    int i = 0;
    while (ran[i].kernel && ran[i].kernel != kernel) {
        i++;
        ASSERT(i < MAX_KERNELS);
    }
    ran[i].kernel = kernel;
    ran[i].n++;
}

void hip_double_each(void (*note)(const char *what, size_t n))
{
    for (int i = 0; i < MAX_KERNELS && ran[i].kernel; i++) {
        char what[64];
        snprintf(what, sizeof what, "kernel %s", ran[i].kernel->name);
        note(what, ran[i].n);
    }
}
