/* The vocabulary's inexact functions where no AMD card computes them: on the CUDA rig and on the
 * emulator. Made of operations that IEEE 754 rounds in one way only (gpu_fma, +, *, /, gpu_sqrt),
 * so that both rigs give the same bits; see gpu.h. Denormals count as 0. */
#ifndef KERNELS_HIP_GPU_RIG_H
#define KERNELS_HIP_GPU_RIG_H

#define GPU_RIG_INFINITY 0x7f800000u

/* A float of this exponent (biased) and of p's digits: 0 below the normal numbers, infinity above
 * them. */
GPU_FN float gpu_rig_scaled(float p, int exponent)
{
    uint32_t digits = gpu_f32_bits(p) & 0x7fffffu;
    return exponent <= 0     ? 0.0f
           : exponent >= 255 ? gpu_bits_f32(GPU_RIG_INFINITY)
                             : gpu_bits_f32(digits | (uint32_t)exponent << 23);
}
GPU_FN float gpu_rig_flush(float a)
{
    uint32_t bits = gpu_f32_bits(a);
    return gpu_bits_f32(bits & 0x7f800000u ? bits : bits & 0x80000000u);
}
/* 2^a = 2^whole * 2^f, f from -1/2 to 1/2: a polynomial; 1 ulp. NaN stays NaN. */
GPU_FN float gpu_exp2(float a)
{
    float b = a < -127.0f ? -127.0f : a > 129.0f ? 129.0f : a;
    float f = b - gpu_round(b);
    float p = gpu_fma(f, 0.000154531634f, 0.00133908633f);
    p = gpu_fma(f, p, 0.00961808302f);
    p = gpu_fma(f, p, 0.0555035695f);
    p = gpu_fma(f, p, 0.240226507f);
    p = gpu_fma(f, p, 0.693147182f);
    p = gpu_fma(f, p, 1.0f);
    int whole = (int)(gpu_f32_bits(b + GPU_ROUNDER) - gpu_f32_bits(GPU_ROUNDER));
    return a == a ? gpu_rig_scaled(p, (int)(gpu_f32_bits(p) >> 23) + whole) : a;
}
/* a = 2^e m, m from sqrt(1/2) to sqrt(2); log2(m) by the series of artanh(s), its coefficients
 * fitted, where s = (m - 1) / (m + 1); 3 ulp. NaN of negative numbers. */
GPU_FN float gpu_log2(float a)
{
    uint32_t bits = gpu_f32_bits(gpu_rig_flush(a));
    if (bits << 1 == 0) {
        return gpu_bits_f32(GPU_RIG_INFINITY | 0x80000000u);
    }
    if (bits >= GPU_RIG_INFINITY) { /* infinity, NaN, or negative */
        return bits == GPU_RIG_INFINITY ? a : gpu_bits_f32(0x7fc00000u);
    }
    int e = (int)(bits - 0x3f3504f3u) >> 23;
    float m = gpu_bits_f32(bits - ((uint32_t)e << 23));
    float s = (m - 1.0f) / (m + 1.0f), u = s * s;
    float p = gpu_fma(u, 0.34072113f, 0.411673307f);
    p = gpu_fma(u, p, 0.577083588f);
    p = gpu_fma(u, p, 0.961796701f);
    p = gpu_fma(u, p, 2.88539004f);
    return gpu_fma(s, p, (float)e);
}
/* Of 0 without a division by it, which a sanitizer of the emulator would report. */
GPU_FN float gpu_rig_over(float a, float b)
{
    return b == 0 ? gpu_bits_f32(GPU_RIG_INFINITY | gpu_f32_bits(b)) : a / b;
}
GPU_FN float gpu_rcp(float a)
{
    return gpu_rig_flush(gpu_rig_over(1.0f, gpu_rig_flush(a)));
}
GPU_FN float gpu_rsq(float a)
{
    return gpu_rig_over(1.0f, gpu_sqrt(gpu_rig_flush(a)));
}

#endif
