/* Instruction set detection. Pure after the first call. */
#include "kernels/cpu/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <string.h>

#if defined(__x86_64__)
/* Instructions without register state of their own, which the compilers' builtins do not all name.
 */
static bool has_f16c(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}

static bool has_avx_vnni(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

enum isa isa_detect(void)
{
#if defined(__x86_64__)
    /* The builtins also ask xgetbv whether the kernel saves the registers. */
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
        __builtin_cpu_supports("bmi2")) {
        return ISA_AVX512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c() &&
        __builtin_cpu_supports("bmi2")) {
        return ISA_AVX2;
    }
#endif
    return ISA_SCALAR;
}

bool isa_has_avx_vnni(void)
{
#if defined(__x86_64__)
    static _Atomic int
        known; /* 0: not asked yet; asking costs a microsecond or, in a virtual machine, many */
    if (known == 0) {
        known = isa_detect() != ISA_SCALAR && has_avx_vnni() ? 1 : -1;
    }
    return known > 0;
#else
    return false;
#endif
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
