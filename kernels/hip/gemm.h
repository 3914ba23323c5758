/* What the kernels for products with many tokens have in common. */
#ifndef KERNELS_HIP_GEMM_H
#define KERNELS_HIP_GEMM_H

#include "kernels/hip/args.h"
#include "kernels/hip/gpu.h"

/* Which expert and which of its places this block does; false: none. Places follow order's offsets. */
GPU_FN bool gemm_find(const struct matmul_args *a, int tile, int *expert, int *first, int *n)
{
    if (!a->order) {
        *expert = 0;
        *first = tile * GEMM_TOKENS;
        *n = a->n_tokens - *first;
        return true;
    }
    for (int e = 0; e < a->n_expert; e++) {
        int count = a->order[e + 1] - a->order[e], n_tiles = (count + GEMM_TOKENS - 1) / GEMM_TOKENS;
        if (tile < n_tiles) {
            *expert = e;
            *first = a->order[e] + tile * GEMM_TOKENS;
            *n = count - tile * GEMM_TOKENS;
            return true;
        }
        tile -= n_tiles;
    }
    return false;
}

#endif
