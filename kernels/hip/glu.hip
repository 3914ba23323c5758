/* Activations, gated or not. A thread does one value. */
#include "kernels/hip/args.h"
#include "kernels/hip/gpu.h"
#include "kernels/op_kinds.h"

/* 1 - erf(z), z >= 0: Abramowitz and Stegun 7.1.26, error 1.5e-7. */
GPU_FN float glu_erfc(float z)
{
    float t = 1.0f / gpu_fma(0.3275911f, z, 1.0f);
    float p = gpu_fma(t, 1.061405429f, -1.453152027f);
    p = gpu_fma(t, p, 1.421413741f);
    p = gpu_fma(t, p, -0.284496736f);
    p = gpu_fma(t, p, 0.254829592f);
    return p * t * gpu_exp(-z * z);
}

GPU_FN float glu_activate(int kind, float x)
{
    switch (kind) {
    case OP_GLU_SILU:
        return x * gpu_sigmoid(x);
    case OP_GLU_GELU:
        /* (1 + tanh(z)) / 2 is the sigmoid of 2 z, and loses nothing where tanh comes near -1. */
        return x * gpu_sigmoid(1.59576912f * x * gpu_fma(0.044715f * x, x, 1.0f));
    case OP_GLU_GELU_ERF: {
        float c = 0.5f * glu_erfc(gpu_abs(x) * 0.707106781f);
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

GPU_KERNEL(glu, GLU_THREADS)
{
    int row = gpu_block_y(), index = gpu_block_x() * GLU_THREADS + gpu_thread();
    if (index >= a.n_groups * a.n) {
        return;
    }
    int group = index / a.n, i = index % a.n;
    float gate = a.gate[row * a.gate_stride + (int64_t)group * a.gate_group +
                        (a.gate_is_one ? 0 : i)];
    float up = a.up ? a.up[row * a.up_stride + index] : 1.0f;
    float y;
    if (a.kind == OP_GLU_SILU_CLAMPED) {
        gate = gate > a.limit ? a.limit : gate;
        up = up > a.limit ? a.limit : up < -a.limit ? -a.limit : up;
        y = gate * gpu_sigmoid(a.alpha * gate) * (a.up ? up + 1.0f : 1.0f);
    } else {
        y = glu_activate(a.kind, gate) * up;
    }
    a.y[row * a.y_stride + index] = y;
}
