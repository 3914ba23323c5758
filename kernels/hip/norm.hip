/* Normalisation of rows or groups of them, and what feeds a matrix in 8 bits at once. A block does one group; thread t
 * takes values t, t + NORM_THREADS, ..., the waves' sums are added in order: one order for every grid. A value:
 * 8 bytes from memory (the second reading meets the cache) and 4 operations, with 8 bits another 1.25 and some 40. */
#include "kernels/hip/act.h"
#include "kernels/op_kinds.h"

GPU_FN float norm_block_sum(float v, float *of_waves)
{
    v = gpu_sum(v);
    if (gpu_lane() == 0) {
        of_waves[gpu_thread() / GPU_WAVE] = v;
    }
    gpu_barrier();
    float sum = 0;
    for (int i = 0; i < NORM_THREADS / GPU_WAVE; i++) {
        sum += of_waves[i];
    }
    return sum;
}

GPU_KERNEL(norm, NORM_THREADS)
{
    GPU_SHARED(float, sums, NORM_THREADS / GPU_WAVE);
    GPU_SHARED(float, squares, NORM_THREADS / GPU_WAVE);
    int group = gpu_block_x(), row = gpu_block_y();
    const float *x = a.x + row * a.x_stride + (int64_t)group * a.x_group;
    float mean = 0;
    if (a.kind == OP_NORM_LAYER) {
        float sum = 0;
        for (int i = gpu_thread(); i < a.n; i += NORM_THREADS) {
            sum += x[i];
        }
        mean = norm_block_sum(sum, sums) / (float)a.n;
    }
    float sum = 0;
    for (int i = gpu_thread(); i < a.n; i += NORM_THREADS) {
        float v = x[i] - mean;
        sum = gpu_fma(v, v, sum);
    }
    sum = norm_block_sum(sum, squares);
    float scale;
    if (a.kind == OP_NORM_L2) {
        float length = sum * gpu_rsq(sum); /* NaN for 0, and then eps counts */
        scale = 1.0f / (length > a.eps ? length : a.eps);
        scale += sum - sum;
    } else {
        scale = gpu_rsq(sum / (float)a.n + a.eps);
    }
    int64_t base = (int64_t)group * a.n, param = a.per_group ? base : 0;
    for (int first = gpu_thread() / GPU_WAVE * GPU_WAVE; first < a.n; first += NORM_THREADS) {
        int i = first + gpu_lane();
        float v = 0;
        if (i < a.n) {
            v = (x[i] - mean) * scale;
            v = a.weight ? v * a.weight[param + i] : v;
            v = a.bias ? v + a.bias[param + i] : v;
            if (a.y) {
                a.y[row * a.y_stride + base + i] = v;
            }
        }
        if (a.act) {
            act_store(a.act + row * a.act_stride, a.n * a.n_groups, (int)base + first, v);
        }
    }
}
