/* Shared memory that cannot be resized under a reader: memfds with seals.
 * Trust: whoever receives an fd checks seals and size before mapping (memfd_map), because without
 * F_SEAL_SHRINK the sender could truncate it and kill the reader with SIGBUS. */
#ifndef IPC_MEMFD_H
#define IPC_MEMFD_H

#include "shared/base.h"

/* A zeroed memfd of that size, sealed against resizing (SHRINK|GROW|SEAL), close-on-exec.
 * Returns the fd or -errno. */
MUST_CHECK int memfd_create_shared(const char *name, size_t bytes);

/* A memfd holding these bytes, sealed against resizing and writing. Returns the fd or -errno. */
MUST_CHECK int memfd_create_const(const char *name, const void *data, size_t bytes);

/* The same, but not yet sealed against further seals: once filled and unmapped everywhere,
 * memfd_make_const seals it against writing. -EBUSY: it is still mapped writable somewhere. */
MUST_CHECK int memfd_create_open(const char *name, size_t bytes);
MUST_CHECK int memfd_make_const(int fd);

/* Is an fd received from a peer a memfd of min to max bytes, sealed as memfd_map wants it? 0 or
 * ERR_PROTOCOL. */
MUST_CHECK int memfd_check(int fd, size_t min, size_t max, bool is_const, size_t *ret_bytes);

/* Maps an fd received from a peer. min/max bound its size; is_const wants F_SEAL_WRITE and maps
 * read-only, otherwise F_SEAL_SHRINK|F_SEAL_GROW are wanted and writable chooses the protection.
 * Returns 0, -errno, or ERR_PROTOCOL for a memfd that is not as promised. */
MUST_CHECK int memfd_map(int fd, size_t min, size_t max, bool is_const, bool writable,
                         void **ret_map, size_t *ret_bytes);
void memfd_unmap(void *map, size_t bytes); /* NULL-safe */

#endif
