/* The table of architectures. */
#include "worker/arch/arch.h"

#include <string.h>

static const struct {
    const char *name;
    model_arch_fn *build;
} archs[] = {
#define ARCH(name, function) {name, function},
#include "worker/arch/arch.def"
#undef ARCH
};

model_arch_fn *arch_by_name(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(archs); i++) {
        if (strcmp(archs[i].name, name) == 0) {
            return archs[i].build;
        }
    }
    return NULL;
}
