/* The largest values of long rows, so that logits need not travel. A block keeps its part in shared memory and takes the best
 * out k times; the second kernel does the same with what the first one left. 4 bytes a value; k comparisons, with shared memory. */
#include "kernels/hip/args.h"
#include "kernels/hip/gpu.h"

#define top_part_args top_args
#define top_fold_args top_args

enum { TOP_WAVES = TOP_THREADS / GPU_WAVE };
#define TOP_NONE (-3.4028235e38f)

/* The best of n in shared memory: value, and place; ties to the lower place. All threads get the place. */
GPU_FN int top_best(const float *values, int n, float *of_waves, int *places)
{
    float best = TOP_NONE;
    int place = n;
    for (int i = gpu_thread(); i < n; i += TOP_THREADS) {
        if (values[i] > best) {
            best = values[i];
            place = i;
        }
    }
    float largest = gpu_max(best);
    int first = -(int)gpu_max(best == largest ? -(float)place : -16777216.0f); /* exact: below 2^24 */
    if (gpu_lane() == 0) {
        of_waves[gpu_thread() / GPU_WAVE] = largest;
        places[gpu_thread() / GPU_WAVE] = first;
    }
    gpu_barrier();
    best = of_waves[0];
    place = places[0];
    for (int w = 1; w < TOP_WAVES; w++) {
        bool is_better = of_waves[w] > best || (of_waves[w] == best && places[w] < place);
        best = is_better ? of_waves[w] : best;
        place = is_better ? places[w] : place;
    }
    gpu_barrier();
    return place;
}

GPU_KERNEL(top_part, TOP_THREADS)
{
    GPU_SHARED(float, values, TOP_PART);
    GPU_SHARED(float, of_waves, TOP_WAVES);
    GPU_SHARED(int, places, TOP_WAVES);
    GPU_SHARED(int, bad, TOP_WAVES);
    int part = gpu_block_x(), row = gpu_block_y(), first = part * TOP_PART, n_bad = 0;
    int n = a.n - first < TOP_PART ? a.n - first : TOP_PART;
    int64_t at = (int64_t)row * a.n_parts + part;
    for (int i = gpu_thread(); i < n; i += TOP_THREADS) {
        float v = a.x[row * a.x_stride + first + i];
        bool is_bad = v - v != 0;
        values[i] = is_bad ? TOP_NONE : v;
        n_bad += is_bad;
    }
    n_bad = gpu_sum_i32(n_bad);
    if (gpu_lane() == 0) {
        bad[gpu_thread() / GPU_WAVE] = n_bad;
    }
    gpu_barrier();
    if (gpu_thread() == 0) {
        n_bad = 0;
        for (int w = 0; w < TOP_WAVES; w++) {
            n_bad += bad[w];
        }
        a.part_bad[at] = n_bad;
    }
    for (int k = 0; k < a.k; k++) {
        int place = top_best(values, n, of_waves, places);
        if (gpu_thread() == 0) {
            a.part_values[at * a.k + k] = place < n ? values[place] : TOP_NONE;
            a.part_ids[at * a.k + k] = place < n ? first + place : -1;
            if (place < n) {
                values[place] = TOP_NONE;
            }
        }
        gpu_barrier();
    }
}

/* Parts and places in them are in ascending order of index, so the lower place is the lower index. */
GPU_KERNEL(top_fold, TOP_THREADS)
{
    GPU_SHARED(float, values, TOP_FOLD);
    GPU_SHARED(float, of_waves, TOP_WAVES);
    GPU_SHARED(int, places, TOP_WAVES);
    int row = gpu_block_x(), n = a.n_parts * a.k;
    int64_t at = (int64_t)row * n;
    for (int i = gpu_thread(); i < n; i += TOP_THREADS) {
        values[i] = a.part_values[at + i];
    }
    gpu_barrier();
    if (gpu_thread() == 0) {
        int n_bad = 0;
        for (int p = 0; p < a.n_parts; p++) {
            n_bad += a.part_bad[(int64_t)row * a.n_parts + p];
        }
        a.bad[row] = n_bad;
    }
    for (int k = 0; k < a.k; k++) {
        int place = top_best(values, n, of_waves, places);
        if (gpu_thread() == 0) {
            a.values[(int64_t)row * a.k + k] = place < n ? values[place] : TOP_NONE;
            a.ids[(int64_t)row * a.k + k] = place < n ? a.part_ids[at + place] : -1;
            if (place < n) {
                values[place] = TOP_NONE;
            }
        }
        gpu_barrier();
    }
}
