/* Rows and columns moved. A thread does one value: 8 bytes. */
#include "kernels/hip/args.h"
#include "kernels/hip/gpu.h"

GPU_KERNEL(copy, COPY_THREADS)
{
    int row = gpu_block_y(), index = gpu_block_x() * COPY_THREADS + gpu_thread();
    if (index < a.n_groups * a.n) {
        int group = index / a.n, i = index % a.n;
        int64_t from = a.ids ? a.ids[row] : row;
        a.y[row * a.y_stride + (int64_t)group * a.y_group + i] =
            a.x[from * a.x_stride + (int64_t)group * a.x_group + i];
    }
}
