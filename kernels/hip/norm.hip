/* Normalisation of rows or groups of them, and what feeds a matrix in 8 bits at once. A block does
 * one group. A value: 4 bytes from memory and 4 of weights, 4 operations, with 8 bits another 1.25
 * bytes and some 10. */
#include "kernels/hip/norm.h"

GPU_KERNEL(norm, NORM_THREADS)
{
    int group = gpu_block_x(), row = gpu_block_y();
    const float *x = a.x + row * a.x_stride + (int64_t)group * a.x_group;
    int64_t base = (int64_t)group * a.n;
    /* Of the one pointer, never of a choice of two: the compiler would not know it to be in global
     * memory. */
    float *y = a.y + (a.y ? row * a.y_stride + base : 0);
    int8_t *act = a.act + (a.act ? row * a.act_stride : 0), *q = act + (a.act ? base : 0);
    struct args_act *scales = (struct args_act *)(void *)(act + (a.act ? a.n * a.n_groups : 0));
    scales += a.act ? base / ARGS_GROUP : 0;
    int64_t param = a.per_group ? base : 0;
    struct norm_held held;
    norm_ask(&a, x, param, false, NORM_STEPS, &held);
    norm_group(&a, x, param, false, NORM_STEPS, &held, y, q, scales);
}
