/* Activations, gated or not, and what feeds a matrix in 8 bits at once. A thread does one value: 12 bytes (9.25 to 8 bits)
 * and some 15 operations (55). */
#include "kernels/hip/act.h"
#include "kernels/hip/activate.h"

GPU_KERNEL(glu, GLU_THREADS)
{
    int row = gpu_block_x(), index = gpu_block_y() * GLU_THREADS + gpu_thread();
    int n = a.n_groups * a.n;
    if (index / GPU_WAVE * GPU_WAVE >= n) {
        return;
    }
    float y = 0;
    if (index < n) {
        int group = index / a.n, i = index % a.n;
        float gate = a.gate[row * a.gate_stride + (int64_t)group * a.gate_group +
                            (a.gate_is_one ? 0 : i)];
        /* Without up: times one, also where the clamped kind adds one. */
        float one = a.kind == OP_GLU_SILU_CLAMPED ? 0.0f : 1.0f;
        float up = a.up ? a.up[row * a.up_stride + index] : one;
        y = activate_gated(a.kind, gate, up, a.alpha, a.limit);
        if (a.y) {
            a.y[row * a.y_stride + index] = y;
        }
    }
    if (a.act) {
        act_store(a.act + row * a.act_stride, n, index / GPU_WAVE * GPU_WAVE, y);
    }
}
