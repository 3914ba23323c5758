/* What a packed matrix of each type looks like: FORM(type, bits of a weight's code, its upper bits, bytes of a chunk's scales,
 * super). 128 weights of one bit are a word of 16 bytes, so bits also count words. For packing and kernels; see pack.h. */
#ifndef KERNELS_HIP_FORM_H
#define KERNELS_HIP_FORM_H

#define FORMS(FORM)                                                                                \
    FORM(F32, 32, 0, 0, 0)                                                                         \
    FORM(F16, 16, 0, 0, 0)                                                                         \
    FORM(BF16, 16, 0, 0, 0)                                                                        \
    FORM(Q4_0, 4, 0, 8, 0)                                                                         \
    FORM(Q4_1, 4, 0, 16, 0)                                                                        \
    FORM(Q5_0, 4, 1, 8, 0)                                                                         \
    FORM(Q5_1, 4, 1, 16, 0)                                                                        \
    FORM(Q8_0, 8, 0, 8, 0)                                                                         \
    FORM(Q2_K, 2, 0, 8, 1)                                                                         \
    FORM(Q3_K, 2, 1, 8, 1)                                                                         \
    FORM(Q4_K, 4, 0, 8, 1)                                                                         \
    FORM(Q5_K, 4, 1, 8, 1)                                                                         \
    FORM(Q6_K, 4, 2, 8, 1)                                                                         \
    FORM(Q8_K, 8, 0, 0, 1)                                                                         \
    FORM(IQ1_S, 1, 0, 8, 1)                                                                        \
    FORM(IQ1_M, 1, 0, 16, 1)                                                                       \
    FORM(IQ2_XXS, 2, 0, 0, 1)                                                                      \
    FORM(IQ2_XS, 2, 0, 8, 1)                                                                       \
    FORM(IQ2_S, 2, 0, 8, 1)                                                                        \
    FORM(IQ3_XXS, 2, 1, 0, 1)                                                                      \
    FORM(IQ3_S, 2, 1, 8, 1)                                                                        \
    FORM(IQ4_NL, 4, 0, 8, 0)                                                                       \
    FORM(IQ4_XS, 4, 0, 8, 1)                                                                       \
    FORM(MXFP4, 4, 0, 8, 0)                                                                        \
    FORM(NVFP4, 4, 0, 8, 0)                                                                        \
    FORM(TQ1_0, 2, 0, 8, 0)                                                                        \
    FORM(TQ2_0, 2, 0, 8, 0)                                                                        \
    FORM(Q1_0, 1, 0, 8, 0)                                                                         \
    FORM(Q2_0, 2, 0, 8, 0)

#endif
