/* The activations of op glu. */
#ifndef KERNELS_HIP_ACTIVATE_H
#define KERNELS_HIP_ACTIVATE_H

#include "kernels/hip/gpu.h"
#include "kernels/op_kinds.h"

/* 1 - erf(z), z >= 0: Abramowitz and Stegun 7.1.26, error 1.5e-7. */
GPU_FN float activate_erfc(float z)
{
    float t = 1.0f / gpu_fma(0.3275911f, z, 1.0f);
    float p = gpu_fma(t, 1.061405429f, -1.453152027f);
    p = gpu_fma(t, p, 1.421413741f);
    p = gpu_fma(t, p, -0.284496736f);
    p = gpu_fma(t, p, 0.254829592f);
    return p * t * gpu_exp(-z * z);
}

GPU_FN float activate(int kind, float x)
{
    switch (kind) {
    case OP_GLU_SILU:
        return x * gpu_sigmoid(x);
    case OP_GLU_GELU:
        /* (1 + tanh(z)) / 2 is the sigmoid of 2 z, and loses nothing where tanh comes near -1. */
        return x * gpu_sigmoid(1.59576912f * x * gpu_fma(0.044715f * x, x, 1.0f));
    case OP_GLU_GELU_ERF: {
        float c = 0.5f * activate_erfc(gpu_abs(x) * 0.707106781f);
        return x * (x < 0 ? c : 1.0f - c);
    }
    case OP_GLU_RELU:
        return x < 0 ? 0 : x;
    case OP_GLU_RELU2:
        return x < 0 ? 0 : x * x;
    case OP_GLU_SIGMOID:
        return gpu_sigmoid(x);
    default:
        return x;
    }
}

/* kind: enum op_glu_kind. */
GPU_FN float activate_gated(int kind, float gate, float up, float alpha, float limit)
{
    if (kind == OP_GLU_SILU_CLAMPED) {
        gate = gate > limit ? limit : gate;
        up = up > limit ? limit : up < -limit ? -limit : up;
        return gate * gpu_sigmoid(alpha * gate) * (up + 1.0f);
    }
    return activate(kind, gate) * up;
}

#endif
