/* Instruction set detection. Pure after the first call. */
#include "kernels/cpu/isa.h"

#include <string.h>

enum isa isa_detect(void)
{
#if defined(__x86_64__)
    /* The builtins also ask xgetbv whether the kernel saves the registers. */
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni")) {
        return ISA_AVX512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c")) {
        return ISA_AVX2;
    }
#endif
    return ISA_SCALAR;
}

static const char *const names[ISA_COUNT] = {"scalar", "avx2", "avx512"};

const char *isa_name(enum isa isa)
{
    return names[isa];
}

int isa_by_name(const char *name)
{
    if (strcmp(name, "auto") == 0) {
        return (int)isa_detect();
    }
    for (int i = 0; i < ISA_COUNT; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}
