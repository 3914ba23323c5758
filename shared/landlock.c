/* Landlock by raw system calls, for libc has none. Any process, at its start. */
#include "shared/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CREATE_RULESET = 444, ADD_RULE = 445, RESTRICT_SELF = 446 };
enum { GET_VERSION = 1, PATH_BENEATH = 1 };
enum { OF_FILES = LANDLOCK_EXECUTE | LANDLOCK_WRITE_FILE | LANDLOCK_READ_FILE | LANDLOCK_TRUNCATE |
                  LANDLOCK_IOCTL_DEV };

int landlock_open(unsigned denied, struct landlock *ret)
{
    long abi = syscall(CREATE_RULESET, NULL, 0, GET_VERSION);
    if (abi < 1) {
        return abi < 0 ? -errno : -EOPNOTSUPP;
    }
    int n_known = abi >= 5 ? 16 : abi >= 3 ? 15 : abi >= 2 ? 14 : 13;
    struct {
        uint64_t fs, net, scoped;
    } a = {
        .fs = denied & ((1u << n_known) - 1),
        .net = abi >= 4 ? 3 : 0,    /* bind, connect */
        .scoped = abi >= 6 ? 3 : 0, /* abstract Unix sockets, signals */
    };
    size_t bytes = abi >= 6 ? 24 : abi >= 4 ? 16 : 8; /* a longer one than it knows is refused */
    int fd = (int)syscall(CREATE_RULESET, &a, bytes, 0);
    if (fd < 0) {
        return -errno;
    }
    *ret = (struct landlock){.fd = fd, .abi = (int)abi, .denied = (unsigned)a.fs};
    return 0;
}

int landlock_allow(struct landlock *l, const char *path, unsigned rights)
{
    int fd = open(path, O_PATH | O_CLOEXEC);
    struct stat st;
    if (fd < 0) {
        return -errno;
    }
    int rc = fstat(fd, &st) == 0 ? 0 : -errno;
    rights &= l->denied;
    if (rc == 0 && !S_ISDIR(st.st_mode)) {
        rights &= OF_FILES; /* a rule with others is refused */
    }
    if (rc == 0 && rights != 0) {
        struct __attribute__((packed)) {
            uint64_t rights;
            int32_t fd;
        } rule = {.rights = rights, .fd = fd};
        rc = syscall(ADD_RULE, l->fd, PATH_BENEATH, &rule, 0) == 0 ? 0 : -errno;
    }
    close(fd);
    return rc;
}

int landlock_enter(struct landlock *l)
{
    int rc = syscall(RESTRICT_SELF, l->fd, 0) == 0 ? 0 : -errno;
    close(l->fd);
    l->fd = -1;
    return rc;
}
