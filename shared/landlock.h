/* Landlock: what of the file system this process may still touch, kept by the kernel. Rights are
 * denied for a whole process and given back below single paths. What the kernel is too old to know
 * stays allowed, so a process says what it would like denied and takes what it gets.
 *
 * Facts: linux/landlock.h and Documentation/userspace-api/landlock.rst. The rights stand here
 * because a machine's headers may be older than its kernel. Beside them are always denied, where
 * the kernel can: binding and connecting TCP sockets (ABI 4), signals and abstract Unix sockets to
 * processes outside (ABI 6). */
#ifndef SHARED_LANDLOCK_H
#define SHARED_LANDLOCK_H

#include "shared/base.h"

enum landlock_right {
    LANDLOCK_EXECUTE = 1 << 0, /* execve; not mapping a library */
    LANDLOCK_WRITE_FILE = 1 << 1,
    LANDLOCK_READ_FILE = 1 << 2,
    LANDLOCK_READ_DIR = 1 << 3,
    LANDLOCK_REMOVE_DIR = 1 << 4,
    LANDLOCK_REMOVE_FILE = 1 << 5,
    LANDLOCK_MAKE_CHAR = 1 << 6,
    LANDLOCK_MAKE_DIR = 1 << 7,
    LANDLOCK_MAKE_REG = 1 << 8,
    LANDLOCK_MAKE_SOCK = 1 << 9,
    LANDLOCK_MAKE_FIFO = 1 << 10,
    LANDLOCK_MAKE_BLOCK = 1 << 11,
    LANDLOCK_MAKE_SYM = 1 << 12,
    LANDLOCK_REFER = 1 << 13,     /* to another folder; ABI 2, before it always denied */
    LANDLOCK_TRUNCATE = 1 << 14,  /* by path; ABI 3 */
    LANDLOCK_IOCTL_DEV = 1 << 15, /* of a device opened from now on; ABI 5 */
    LANDLOCK_ALL = (1 << 16) - 1,
};

struct landlock {
    int fd;          /* owned; -1: none */
    int abi;         /* the kernel's */
    unsigned denied; /* rights that are, but below the paths given back */
};

/* Begins. Errors: -ENOSYS, -EOPNOTSUPP (the kernel has none, or it is switched off), -EPERM (a
 * container's filter forbids it). */
MUST_CHECK int landlock_open(unsigned denied, struct landlock *ret);

/* Gives rights back for what path names (symbolic links are followed) and all below it. -errno of a
 * path that is not there or cannot be reached. */
MUST_CHECK int landlock_allow(struct landlock *l, const char *path, unsigned rights);

/* For this thread and what it starts from now on, for ever; files that are open stay as they are.
 * Needs PR_SET_NO_NEW_PRIVS. Closes l, whatever comes of it. */
MUST_CHECK int landlock_enter(struct landlock *l);

#endif
