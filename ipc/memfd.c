/* Sealed memfds. Any process; blocks never. */
#include "ipc/memfd.h"
#include "shared/err.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

/* Kernels before 6.3 do not know MFD_NOEXEC_SEAL and answer EINVAL. */
static int create(const char *name, size_t bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) {
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    }
    if (fd < 0) {
        return -errno;
    }
    if (ftruncate(fd, (off_t)bytes) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

static int seal(int fd, int seals)
{
    if (fcntl(fd, F_ADD_SEALS, seals) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

int memfd_create_shared(const char *name, size_t bytes)
{
    int fd = create(name, bytes);
    return fd < 0 ? fd : seal(fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
}

int memfd_create_open(const char *name, size_t bytes)
{
    int fd = create(name, bytes);
    return fd < 0 ? fd : seal(fd, F_SEAL_SHRINK | F_SEAL_GROW);
}

int memfd_make_const(int fd)
{
    return fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) < 0 ? -errno : 0;
}

int memfd_create_const(const char *name, const void *data, size_t bytes)
{
    int fd = create(name, bytes);
    if (fd < 0) {
        return fd;
    }
    const char *p = data;
    for (size_t done = 0; done < bytes;) {
        ssize_t n = write(fd, p + done, bytes - done);
        if (n < 0 && errno != EINTR) {
            int err = -errno;
            close(fd);
            return err;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return seal(fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
}

int memfd_check(int fd, size_t min, size_t max, bool is_const, size_t *ret_bytes)
{
    int want = F_SEAL_SHRINK | F_SEAL_GROW | (is_const ? F_SEAL_WRITE : 0);
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat st;
    if (seals < 0 || (seals & want) != want || fstat(fd, &st) < 0 || st.st_size < 0 ||
        (uint64_t)st.st_size < min || (uint64_t)st.st_size > max) {
        return ERR_PROTOCOL;
    }
    *ret_bytes = (size_t)st.st_size;
    return 0;
}

int memfd_map(int fd, size_t min, size_t max, bool is_const, bool writable, void **ret_map,
              size_t *ret_bytes)
{
    size_t bytes;
    int err = memfd_check(fd, min, max, is_const, &bytes);
    if (err < 0) {
        return err;
    }
    if (bytes == 0) {
        *ret_map = NULL;
        *ret_bytes = 0;
        return 0;
    }
    int prot = PROT_READ | (writable && !is_const ? PROT_WRITE : 0);
    void *map = mmap(NULL, bytes, prot, is_const ? MAP_PRIVATE : MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        return -errno;
    }
    *ret_map = map;
    *ret_bytes = bytes;
    return 0;
}

void memfd_unmap(void *map, size_t bytes)
{
    if (map) {
        munmap(map, bytes);
    }
}
