/* OOM kills that the kernel counted in our cgroup (memory.events; in version 1 of cgroups
 * memory.oom_control): they tell a SIGKILL of the kernel's from one of somebody's. */
#ifndef SAFETY_OOM_H
#define SAFETY_OOM_H

#include "shared/base.h"

/* Processes killed so far, 0 where it cannot be read. root is "" but in tests. */
uint64_t oom_kills(const char *root);

#endif
