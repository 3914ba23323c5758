/* The architectures: one file each, one line each in arch.def. */
#ifndef WORKER_ARCH_ARCH_H
#define WORKER_ARCH_ARCH_H

#include "worker/model.h"

#define ARCH(name, function) model_arch_fn function;
#include "worker/arch/arch.def"
#undef ARCH

/* By the value of general.architecture; NULL when there is no such. */
model_arch_fn *arch_by_name(const char *name);

#endif
