/* See faults.h. Compiled as kernels are. */
#include "tests/rig/faults.h"

#include "kernels/hip/gpu.h"

GPU_KERNEL(fault, FAULTS_THREADS)
{
    GPU_SHARED(float, tile, FAULTS_THREADS);
    int t = gpu_thread(), first = gpu_block_x() * FAULTS_THREADS, kind = a.kind;
    float v = a.x[t];
    switch (kind) {
    case FAULT_READ_PAST_END:
        v = a.x[t + 1];
        break;
    case FAULT_WRITE_BEFORE_START:
        a.y[t - 1] = v;
        break;
    case FAULT_READ_WILD:
        v = a.x[(int64_t)t << 30];
        break;
    case FAULT_NULL:
        v = t == 5 ? *(const float *)((uintptr_t)kind * 4) : v; /* page 0 */
        break;
    case FAULT_READ_UNWRITTEN:
        v = a.y[t];
        break;
    case FAULT_SHARED_UNWRITTEN:
        v = tile[t];
        break;
    case FAULT_SHARED_PAST_END:
        tile[t == FAULTS_THREADS - 1 ? t + 1 : t] = v;
        break;
    case FAULT_SHARED_TOO_LARGE: {
        GPU_SHARED(float, large, 16384);
        large[t] = v;
        break;
    }
    case FAULT_MISALIGNED_16:
        v = gpu_bits_f32(gpu_load16(a.x + t % 8).w[0]);
        break;
    case FAULT_MISALIGNED_4:
        v = *(const float *)(const void *)((const char *)a.x + t);
        break;
    default:
        break;
    }
    tile[t] = v;
    if (kind != FAULT_NO_BARRIER) {
        gpu_barrier();
    }
    v = tile[FAULTS_THREADS - 1 - t];
    if (kind == FAULT_NO_SECOND_BARRIER) {
        tile[t] = v;
    }
    gpu_barrier();
    tile[t] = v;
    if (kind != FAULT_NO_WAVE_SYNC) {
        gpu_wave_sync();
    }
    v = tile[t ^ 1];
    if (kind == FAULT_BARRIER_ORDERS_NO_GLOBAL) {
        a.y[first + t] = v;
        gpu_barrier();
        v = a.y[first + (t ^ 32)];
    }
    if (kind == FAULT_DIVIDED_WAVE) {
        v = t < 40 ? gpu_sum(v) : v; /* of the second wave, eight lanes */
        gpu_wave_sync();
    }
    if (kind == FAULT_DIVIDED_ENDED && t == 63) {
        return;
    }
    v += gpu_shuffle(v, 3) * 0.0f;
    if (kind == FAULT_BARRIER_OF_SOME) {
        if (t < 32) {
            gpu_barrier();
        } else {
            gpu_wave_sync();
            gpu_barrier();
        }
    }
    if (kind == FAULT_BARRIER_OTHERS_ENDED) {
        if (t >= 32) {
            return;
        }
        gpu_barrier();
    }
    a.y[(kind == FAULT_BLOCKS_MEET ? 0 : first) + t] = v;
}
