/* The GPU lock; runs in the worker and in the probe. May block in lock_take, up to its timeout.
 * Invariant: fd >= 0 only while the flock is held on the file that the path names. */
#include "safety/lock.h"
#include "shared/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

enum { LOCK_TEXT_BYTES = 160, LOCK_POLL_MS = 100, LOCK_OPEN_TRIES = 100 };

void lock_init(struct lock *l)
{
    l->fd = -1;
    l->path[0] = '\0';
}

/* Opens the lock file, or makes it. A plain open comes first because fs.protected_regular refuses
 * O_CREAT on another user's file in a sticky directory. */
static int open_file(const char *path, struct err *e)
{
    const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    for (int i = 0; i < LOCK_OPEN_TRIES; i++) {
        int fd = open(path, flags);
        if (fd < 0 && errno == ENOENT) {
            fd = open(path, flags | O_CREAT | O_EXCL, 0666);
            if (fd >= 0 && fchmod(fd, 0666) != 0) { /* the umask must not lock other users out */
                int err = errno;
                close(fd);
                return err_set(e, ERR_LOCK_PATH, "%s: chmod: %s", path, strerror(err));
            }
        }
        if (fd < 0 && errno == EEXIST) {
            continue; /* somebody made it between our two opens */
        }
        if (fd < 0) {
            return err_set(e, ERR_LOCK_PATH, "%s: %s", path,
                           errno == ELOOP ? "is a symbolic link" : strerror(errno));
        }
        struct stat st;
        if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_nlink > 1) {
            close(fd);
            return err_set(e, ERR_LOCK_PATH, "%s: is not a regular file of its own", path);
        }
        return fd;
    }
    return err_set(e, ERR_LOCK_PATH, "%s: appears and disappears", path);
}

/* Does the path still name the file we locked? Otherwise the lock guards nothing. */
static bool is_same_file(int fd, const char *path)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

static int write_holder(int fd, const char *purpose)
{
    char text[LOCK_TEXT_BYTES];
    int n = snprintf(text, sizeof(text), "pid %d\npurpose %.100s\n", (int)getpid(), purpose);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n) {
        return -1;
    }
    return 0;
}

/* What the holder wrote; any user can write there, so only printable bytes pass. */
static long read_holder(int fd, char *ret_purpose, size_t bytes)
{
    char text[LOCK_TEXT_BYTES];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    long pid = 0;
    if (strncmp(text, "pid ", 4) == 0) {
        pid = strtol(text + 4, NULL, 10);
    }
    const char *p = strstr(text, "\npurpose ");
    snprintf(ret_purpose, bytes, "%s", p ? p + 9 : "");
    ret_purpose[strcspn(ret_purpose, "\n")] = '\0';
    for (char *c = ret_purpose; *c; c++) {
        if (*c < ' ' || *c > '~') {
            *c = '?';
        }
    }
    return pid > 0 && pid < 0x7fffffff ? pid : 0;
}

/* A process other than `not` that has this file open; 0 when none is visible to this user. */
static long find_opener(int fd, long not_pid)
{
    struct stat want, st;
    DIR *proc = fstat(fd, &want) == 0 ? opendir("/proc") : NULL;
    long found = 0;
    for (struct dirent *d; !found && proc && (d = readdir(proc));) {
        char dir_path[64];
        long pid = strtol(d->d_name, NULL, 10);
        if (pid <= 0 || pid == not_pid || pid == getpid()) {
            continue;
        }
        snprintf(dir_path, sizeof(dir_path), "/proc/%ld/fd", pid);
        DIR *fds = opendir(dir_path);
        if (!fds) {
            continue; /* another user's, or gone */
        }
        for (struct dirent *f; !found && (f = readdir(fds));) {
            if (fstatat(dirfd(fds), f->d_name, &st, 0) == 0 && st.st_dev == want.st_dev &&
                st.st_ino == want.st_ino) {
                found = pid;
            }
        }
        closedir(fds);
    }
    if (proc) {
        closedir(proc);
    }
    return found;
}

/* Who took the lock on this file, if it still runs, as the kernel lists locks: also where nobody's
 * descriptors may be looked at (another user's, or anybody's from within Landlock). */
static long find_taker(int fd, long not_pid)
{
    struct stat want;
    FILE *f = fstat(fd, &want) == 0 ? fopen("/proc/locks", "re") : NULL;
    long found = 0, pid;
    unsigned dev_major, dev_minor;
    unsigned long inode;
    char line[256];
    while (!found && f && fgets(line, sizeof(line), f)) {
        bool is_same = sscanf(line, "%*u: FLOCK %*s %*s %ld %x:%x:%lu", &pid, &dev_major,
                              &dev_minor, &inode) == 4 &&
                       inode == want.st_ino && makedev(dev_major, dev_minor) == want.st_dev;
        if (is_same && pid > 0 && pid != not_pid && (kill((pid_t)pid, 0) == 0 || errno == EPERM)) {
            found = pid;
        }
    }
    if (f) {
        fclose(f);
    }
    return found;
}

static int fail_busy(int fd, const char *path, uint64_t timeout_ms, struct err *e)
{
    char purpose[LOCK_TEXT_BYTES], opener_name[32] = "a process of another user";
    double waited_s = (double)timeout_ms / 1000;
    long pid = read_holder(fd, purpose, sizeof(purpose));
    if (pid != 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM)) {
        return err_set(e, ERR_LOCK_BUSY, "%s is held by pid %ld (%s); waited %.1f s", path, pid,
                       purpose, waited_s);
    }
    long opener = find_opener(fd, pid);
    opener = opener != 0 ? opener : find_taker(fd, pid);
    if (opener != 0) {
        snprintf(opener_name, sizeof(opener_name), "pid %ld", opener);
    }
    if (pid == 0) {
        return err_set(e, ERR_LOCK_BUSY, "%s is held by %s, which left no name; waited %.1f s",
                       path, opener_name, waited_s);
    }
    return err_set(
        e, ERR_LOCK_BUSY,
        "%s: its holder, pid %ld (%s), has ended but leaked the lock to %s; waited %.1f s", path,
        pid, purpose, opener_name, waited_s);
}

int lock_take(struct lock *l, const char *dir, const char *pci, const char *purpose,
              uint64_t timeout_ms, struct err *e)
{
    ASSERT(l->fd < 0);
    int n = snprintf(l->path, sizeof(l->path), "%s/rocmforge-%s.lock", dir, pci);
    if (n < 0 || (size_t)n >= sizeof(l->path) || strchr(pci, '/')) {
        return err_set(e, ERR_LOCK_PATH, "'%s' is no PCI address", pci);
    }
    uint64_t deadline_ms = clock_ms() + timeout_ms;
    for (;;) {
        int fd = open_file(l->path, e);
        if (fd < 0) {
            return fd;
        }
        int rc;
        while ((rc = flock(fd, LOCK_EX | LOCK_NB)) != 0 && errno == EINTR) {
        }
        int code = 0;
        uint64_t now_ms = clock_ms();
        if (rc != 0 && errno != EWOULDBLOCK) {
            code = err_set(e, ERR_LOCK_PATH, "%s: flock: %s", l->path, strerror(errno));
        } else if (rc == 0 && is_same_file(fd, l->path)) {
            if (write_holder(fd, purpose) == 0) {
                l->fd = fd;
                return 0;
            }
            code = err_set(e, ERR_LOCK_PATH, "%s: cannot write: %s", l->path, strerror(errno));
        } else if (now_ms >= deadline_ms) {
            code = fail_busy(fd, l->path, timeout_ms, e);
        }
        close(fd);
        if (code != 0) {
            return code;
        }
        uint64_t ms = MIN((uint64_t)LOCK_POLL_MS, deadline_ms - now_ms);
        nanosleep(&(struct timespec){.tv_nsec = (long)ms * 1000000}, NULL);
    }
}

void lock_release(struct lock *l)
{
    if (l->fd >= 0) {
        /* An empty file names nobody; failing to empty it changes nothing about the lock. */
        int ignored = ftruncate(l->fd, 0);
        (void)ignored;
        close(l->fd);
        l->fd = -1;
    }
}
