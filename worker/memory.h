/* How much memory this process may still take. */
#ifndef WORKER_MEMORY_H
#define WORKER_MEMORY_H

#include "shared/base.h"
#include "shared/err.h"

/* What the system calls available (page cache counts as such), under the limit of this process's
 * cgroup. Reads files in /proc and /sys/fs/cgroup; 0 when they cannot be read. */
uint64_t memory_available(void);

/* Zeroed memory that is only taken when it is written; NULL without address space. */
void *memory_map(size_t bytes);
void memory_unmap(void *p, size_t bytes);

#define MEMORY_HUGE_BYTES ((size_t)2 << 20)

/* Maps a whole memfd where huge pages can be mapped: shared when writable, else read-only and
 * private. NULL when it cannot be. */
void *memory_map_fd(int fd, size_t bytes, bool is_writable);
/* Asks for huge pages under a writable mapping of a memfd, before it is filled; map and bytes are
 * multiples of MEMORY_HUGE_BYTES. Shared memory seldom gets them by itself, but since Linux 6.1 the
 * pages there are can be collapsed. Returns the bytes that are known to be huge. */
size_t memory_make_huge(char *map, size_t bytes);
/* The same for the MEMORY_HUGE_BYTES at `at`, a multiple of that, whatever stands there; nobody
 * else may use them meanwhile. */
void memory_collapse(char *at);
/* Can these bytes of a mapped file be read? Reads them from the disk where they are not in memory;
 * they stay mapped until memory_let_go. 0, or -EIO: *ret_bad is a place in the first page that
 * cannot be had. Before Linux 5.14 always 0. */
MUST_CHECK int memory_check(const void *map, size_t bytes, const void **ret_bad);
/* Which file is mapped at an address, and where in it; ret_path is "" where none is known. The
 * inode is that of the mapping. Reads /proc/self/maps; allocates nothing and takes no lock. */
struct memory_file {
    char path[256];
    uint64_t offset, inode;
};
void memory_file_at(const void *at, struct memory_file *ret);
/* What it means that the file cannot be read there: ERR_MODEL_CHANGED (it is shorter, or another
 * one is in its place) or ERR_MODEL_IO. Allocates nothing and takes no lock. */
int memory_file_error(const struct memory_file *f);
/* memory_check of a model's file, with the error above and the place in e. */
MUST_CHECK int memory_check_file(const void *map, size_t bytes, struct err *e);
/* Takes the whole pages of a file's mapping out of this process; they are read again when
 * needed. */
void memory_let_go(const void *map, size_t bytes);

#endif
