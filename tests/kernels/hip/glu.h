/* What op glu computes, in double precision. */
#ifndef TESTS_KERNELS_HIP_GLU_H
#define TESTS_KERNELS_HIP_GLU_H

#include "kernels/op_kinds.h"

#include <math.h>
#include <stdbool.h>

static inline double glu_of_gate(int kind, double x, double alpha)
{
    switch (kind) {
    case OP_GLU_SILU:
        return x / (1 + exp(-x));
    case OP_GLU_GELU:
        return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case OP_GLU_GELU_ERF:
        return 0.5 * x * erfc(-x / sqrt(2));
    case OP_GLU_RELU:
        return fmax(x, 0);
    case OP_GLU_RELU2:
        return fmax(x, 0) * fmax(x, 0);
    case OP_GLU_SIGMOID:
        return 1 / (1 + exp(-x));
    case OP_GLU_SILU_CLAMPED:
        return x / (1 + exp(-alpha * x));
    default:
        return x;
    }
}
static inline double glu_exact(int kind, double gate, double up, bool has_up, double alpha,
                               double limit)
{
    if (kind == OP_GLU_SILU_CLAMPED) {
        gate = fmin(gate, limit);
        up = fmin(fmax(up, -limit), limit) + 1;
    }
    return glu_of_gate(kind, gate, alpha) * (has_up ? up : 1);
}

#endif
