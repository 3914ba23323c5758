/* Which CPU instructions the kernels may use: found once at start, overridable (--isa). */
#ifndef KERNELS_CPU_ISA_H
#define KERNELS_CPU_ISA_H

#include "shared/base.h"

enum isa {
    ISA_SCALAR, /* the reference: weights decoded to F32, F32 activations, plain C */
    ISA_AVX2,   /* AVX2, FMA, F16C, BMI2 */
    ISA_AVX512, /* AVX-512 F, BW, VL, DQ, VNNI, VBMI, BMI2: Zen 4, Ice Lake and later */
    ISA_COUNT
};

/* The best this CPU and kernel support (cpuid and xgetbv). */
enum isa isa_detect(void);
/* The AVX2 processors that also have AVX's own dot products: same results, faster. */
bool isa_has_avx_vnni(void);
const char *isa_name(enum isa isa);
/* -1: no such name; "auto" gives isa_detect(). */
int isa_by_name(const char *name);

#endif
