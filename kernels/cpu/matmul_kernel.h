/* What the matmul kernels of each instruction set offer to matmul.c. */
#ifndef KERNELS_CPU_MATMUL_KERNEL_H
#define KERNELS_CPU_MATMUL_KERNEL_H

#include "kernels/matmul.h"

/* Outputs [lo, hi) of every token. */
void matmul_scalar_rows(const struct matmul *m, int64_t lo, int64_t hi);

#endif
