/* Sums of rows, and scaling with an optional soft cap. A thread does one value: add 12 bytes and 2 operations, scale 8
 * bytes and 1 (15 with a cap). */
#include "kernels/hip/args.h"
#include "kernels/hip/gpu.h"

GPU_KERNEL(add, ADD_THREADS)
{
    int row = gpu_block_y(), i = gpu_block_x() * ADD_THREADS + gpu_thread();
    if (i < a.n) {
        float u = a.a[row * a.a_stride + i], v = a.b[row * a.b_stride + i];
        a.y[row * a.y_stride + i] = gpu_fma(a.a_scale, u, a.b_scale * v);
    }
}

GPU_KERNEL(scale, ADD_THREADS)
{
    int row = gpu_block_y(), i = gpu_block_x() * ADD_THREADS + gpu_thread();
    if (i < a.n) {
        float v = a.scale * a.x[row * a.x_stride + i];
        a.y[row * a.y_stride + i] = a.cap > 0 ? a.cap * gpu_tanh(v / a.cap) : v;
    }
}
