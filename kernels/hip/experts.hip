/* Mixture of experts: the choice, the sorting of slots, and the sum. (Products: gemv, gemm.) Every sum is a row's own and in
 * slot order. route: 4 bytes and some 20 + n_used operations an expert; combine: 4 (n_used + 1) bytes, n_used
 * multiply-adds a value. */
#include "kernels/hip/args.h"
#include "kernels/hip/gpu.h"
#include "kernels/op_kinds.h"

#define EXPERTS_NONE (-3.4028235e38f)

/* The lowest index of the best of n scores in shared memory, which is then struck out; the same in all lanes. */
GPU_FN int experts_take(float *score, int n)
{
    float best = EXPERTS_NONE;
    int id = 0;
    for (int i = gpu_lane(); i < n; i += GPU_WAVE) {
        if (score[i] > best) {
            best = score[i];
            id = i;
        }
    }
    float largest = gpu_max(best);
    id = -(int)gpu_max(best == largest && best > EXPERTS_NONE ? -(float)id : -(float)ROUTE_MAX);
    id = id < n ? id : 0; /* a row of NaN gives a valid one */
    gpu_wave_sync();
    if (gpu_lane() == 0) {
        score[id] = EXPERTS_NONE;
    }
    gpu_wave_sync();
    return id;
}

/* Strikes out the experts of all groups but the best by the sum of their two best. */
GPU_FN void experts_keep_groups(const struct route_args *a, float *score, float *of_group, int *is_kept)
{
    int size = a->n_expert / a->n_group;
    for (int g = gpu_lane(); g < a->n_group; g += GPU_WAVE) {
        float first = EXPERTS_NONE, second = EXPERTS_NONE;
        for (int i = g * size; i < (g + 1) * size; i++) {
            float s = score[i];
            second = s > first ? first : s > second ? s : second;
            first = s > first ? s : first;
        }
        of_group[g] = size > 1 ? first + second : first;
        is_kept[g] = 0;
    }
    gpu_wave_sync();
    for (int k = 0; k < a->n_group_used; k++) {
        int g = experts_take(of_group, a->n_group);
        if (gpu_lane() == 0) {
            is_kept[g] = 1;
        }
        gpu_wave_sync();
    }
    for (int i = gpu_lane(); i < size * a->n_group; i += GPU_WAVE) {
        score[i] = is_kept[i / size] ? score[i] : EXPERTS_NONE;
    }
    gpu_wave_sync();
}

/* A wave does a row. */
GPU_KERNEL(route, ROUTE_THREADS)
{
    GPU_SHARED(float, p, ROUTE_MAX);
    GPU_SHARED(float, score, ROUTE_MAX);
    GPU_SHARED(float, of_group, ROUTE_MAX);
    GPU_SHARED(int, is_kept, ROUTE_MAX);
    int row = gpu_block_x();
    const float *x = a.x + row * a.x_stride;
    float largest = EXPERTS_NONE, sum = 0;
    for (int i = gpu_lane(); i < a.n_expert; i += GPU_WAVE) {
        largest = gpu_max2(x[i], largest);
    }
    largest = gpu_max(largest);
    for (int i = gpu_lane(); i < a.n_expert; i += GPU_WAVE) {
        float v = a.gating == OP_ROUTE_SIGMOID ? gpu_sigmoid(x[i])
                  : a.gating == OP_ROUTE_SOFTMAX ? gpu_exp(x[i] - largest) : x[i];
        p[i] = v;
        sum += v;
    }
    sum = gpu_sum(sum);
    for (int i = gpu_lane(); i < a.n_expert; i += GPU_WAVE) {
        float v = a.gating == OP_ROUTE_SOFTMAX ? p[i] / sum : p[i];
        p[i] = v;
        score[i] = a.bias ? v + a.bias[i] : v;
    }
    gpu_wave_sync();
    if (a.n_group > 1) {
        experts_keep_groups(&a, score, of_group, is_kept);
    }
    float *y = a.y + row * a.y_stride;
    float chosen = 0, first = 0;
    for (int k = 0; k < a.n_used; k++) {
        int id = experts_take(score, a.n_expert);
        float w = p[id];
        if (a.gating == OP_ROUTE_SOFTMAX_CHOSEN) {
            first = k == 0 ? w : first;
            w = gpu_exp(w - first); /* the first is the largest, unless a bias made the choice */
        }
        chosen += w;
        if (gpu_lane() == 0) {
            ((int32_t *)(void *)y)[k] = id;
            y[a.n_used + k] = w;
        }
    }
    /* Below the smallest normal F16 a sum is as good as zero; models are trained with such a guard. */
    bool is_divided = a.normalize || a.gating == OP_ROUTE_SOFTMAX_CHOSEN;
    float divisor = is_divided ? gpu_max2(chosen, 6.103515625e-5f) : 1.0f;
    if (gpu_lane() == 0) {
        for (int k = 0; k < a.n_used; k++) {
            y[a.n_used + k] = y[a.n_used + k] / divisor * a.scale;
        }
    }
}

/* One block: thread e counts and then collects the slots of experts e, e + ORDER_THREADS, ... */
GPU_KERNEL(order, ORDER_THREADS)
{
    GPU_SHARED(int, offsets, ROUTE_MAX + 1);
    int n_slots = a.n_rows * a.n_used;
    for (int e = gpu_thread(); e < a.n_expert; e += ORDER_THREADS) {
        int n = 0;
        for (int i = 0; i < n_slots; i++) {
            n += a.ids[i / a.n_used * a.ids_stride + i % a.n_used] == e;
        }
        offsets[e + 1] = n;
    }
    gpu_barrier();
    if (gpu_thread() == 0) {
        offsets[0] = 0;
        for (int e = 0; e < a.n_expert; e++) {
            offsets[e + 1] += offsets[e];
        }
    }
    gpu_barrier();
    for (int e = gpu_thread(); e <= a.n_expert; e += ORDER_THREADS) {
        int place = offsets[e];
        a.y[e] = place;
        for (int i = 0; i < n_slots && e < a.n_expert; i++) {
            if (a.ids[i / a.n_used * a.ids_stride + i % a.n_used] == e) {
                a.y[a.n_expert + 1 + place] = i;
                place++;
            }
        }
    }
}

GPU_KERNEL(combine, COMBINE_THREADS)
{
    int row = gpu_block_y(), i = gpu_block_x() * COMBINE_THREADS + gpu_thread();
    if (i >= a.n) {
        return;
    }
    float y = 0;
    for (int k = 0; k < a.n_used; k++) {
        float x = a.x[((int64_t)row * a.n_used + k) * a.x_stride + i];
        y = gpu_fma(a.weights[row * a.weights_stride + k], x, y);
    }
    a.y[row * a.y_stride + i] = a.add ? y + a.add[row * a.add_stride + i] : y;
}
