/* Rotary position embedding by tables from the host. A thread does one pair, or one value beyond them: 24 bytes and 6
 * operations a pair. */
#include "kernels/hip/args.h"
#include "kernels/hip/gpu.h"

GPU_KERNEL(rope, ROPE_THREADS)
{
    int row = gpu_block_y(), index = gpu_block_x() * ROPE_THREADS + gpu_thread();
    int n_pairs = a.n_rot / 2, per_group = a.n - n_pairs;
    if (index >= a.n_groups * per_group) {
        return;
    }
    int group = index / per_group, i = index % per_group;
    const float *x = a.x + row * a.x_stride + (int64_t)group * a.x_group;
    float *y = a.y + row * a.y_stride + (int64_t)group * a.n;
    if (i >= n_pairs) {
        y[n_pairs + i] = x[n_pairs + i];
        return;
    }
    const float *table = a.table + row * a.table_stride;
    float cosine = table[i], sine = table[n_pairs + i];
    int first = a.adjacent ? 2 * i : i, second = a.adjacent ? first + 1 : i + n_pairs;
    float u = x[first], v = x[second];
    y[first] = u * cosine - v * sine;
    y[second] = u * sine + v * cosine;
}
