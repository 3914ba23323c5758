/* Kinds of ops, by number in their arguments; for the CPU's side and the GPU's. */
#ifndef KERNELS_OP_KINDS_H
#define KERNELS_OP_KINDS_H

enum op_norm_kind { OP_NORM_RMS, OP_NORM_LAYER, OP_NORM_L2 };
enum op_glu_kind {
    OP_GLU_NONE, /* f(x) = x */
    OP_GLU_SILU,
    OP_GLU_GELU,     /* tanh form */
    OP_GLU_GELU_ERF, /* exact form */
    OP_GLU_RELU,
    OP_GLU_RELU2,
    OP_GLU_SIGMOID,
    /* gpt-oss: gate and up clamped to limit; f(g) * (up + 1) with f(g) = g * sigmoid(alpha * g) */
    OP_GLU_SILU_CLAMPED,
    OP_GLU_COUNT
};
enum op_route_gating {
    OP_ROUTE_SOFTMAX, /* of all logits, before the choice */
    OP_ROUTE_SIGMOID,
    OP_ROUTE_SOFTMAX_CHOSEN, /* of the chosen ones' logits */
};

#endif
