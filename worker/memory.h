/* How much memory this process may still take. */
#ifndef WORKER_MEMORY_H
#define WORKER_MEMORY_H

#include "shared/base.h"

/* What the system calls available (page cache counts as such), under the limit of this process's
 * cgroup. Reads files in /proc and /sys/fs/cgroup; 0 when they cannot be read. */
uint64_t memory_available(void);

/* Zeroed memory that is only taken when it is written; NULL without address space. */
void *memory_map(size_t bytes);
void memory_unmap(void *p, size_t bytes);

#endif
