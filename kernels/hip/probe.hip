/* What the preflight runs before a model is trusted to the card: global and shared memory, a barrier, a wave operation. */
#include "kernels/hip/args.h"
#include "kernels/hip/gpu.h"

GPU_KERNEL(probe, PROBE_THREADS)
{
    GPU_SHARED(uint32_t, tile, PROBE_THREADS);
    int t = gpu_thread(), i = gpu_block_x() * PROBE_THREADS + t;
    tile[t] = i < a.n ? a.data[i] * 2654435761u : 0;
    gpu_barrier();
    int32_t sum = gpu_sum_i32(t);
    if (i < a.n) {
        a.data[i] = tile[PROBE_THREADS - 1 - t] + (uint32_t)sum;
    }
}
