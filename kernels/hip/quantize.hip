/* Rows of floats to 8 bits. A wave does 32 values: 5.25 bytes and some 40 operations each, most of them the wave's sums. */
#include "kernels/hip/act.h"

GPU_KERNEL(quantize, QUANTIZE_THREADS)
{
    int row = gpu_block_x();
    int first = gpu_block_y() * QUANTIZE_THREADS + gpu_thread() / GPU_WAVE * GPU_WAVE;
    if (first < a.n) {
        float x = a.x[row * a.x_stride + first + gpu_lane()];
        act_store(a.act + row * a.act_stride, a.n, first, x);
    }
}
