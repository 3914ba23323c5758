/* The GPU lock between processes: contention, what the loser is told, leaks, hostile paths. */
#include "safety/lock.h"
#include "shared/clock.h"
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define PCI "0000:03:00.0"

static char dir[] = "/tmp/rocmforge-lock-XXXXXX";
static char path[128];

static pid_t start(int (*body)(int), int *ret_pipe)
{
    int fds[2];
    CHECK(pipe(fds) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        _exit(body(fds[1]));
    }
    close(fds[1]);
    *ret_pipe = fds[0];
    return pid;
}

static void wait_byte(int fd)
{
    char c;
    CHECK(read(fd, &c, 1) == 1);
}

static int holder(int out)
{
    struct lock l;
    lock_init(&l);
    if (lock_take(&l, dir, PCI, "worker, epoch 3", 0, NULL) != 0 || write(out, "x", 1) != 1) {
        return 1;
    }
    pause();
    return 0;
}

static void test_contention(void)
{
    int out;
    pid_t pid = start(holder, &out);
    wait_byte(out);
    struct lock l;
    struct err e = {0};
    lock_init(&l);
    uint64_t t0 = clock_ms();
    CHECK_INT(lock_take(&l, dir, PCI, "test", 250, &e), ERR_LOCK_BUSY);
    uint64_t waited = clock_ms() - t0;
    CHECK(waited >= 250 && waited < 2000);
    char want[64];
    snprintf(want, sizeof(want), "held by pid %d (worker, epoch 3)", (int)pid);
    CHECK(strstr(e.detail, want) != NULL);
    CHECK_INT(err_exit_code(ERR_LOCK_BUSY), EXIT_GPU_LOCK);
    CHECK_INT(l.fd, -1);
    /* Another card is another lock. */
    CHECK_INT(lock_take(&l, dir, "0000:43:00.0", "test", 0, &e), 0);
    lock_release(&l);
    /* Killed, it holds nothing. */
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    CHECK_INT(lock_take(&l, dir, PCI, "test", 0, &e), 0);
    CHECK(fcntl(l.fd, F_GETFD) & FD_CLOEXEC);
    struct stat st;
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0666);
    lock_release(&l);
    lock_release(&l);
    close(out);
}

static int brief_holder(int out)
{
    struct lock l;
    lock_init(&l);
    if (lock_take(&l, dir, PCI, "brief", 0, NULL) != 0 || write(out, "x", 1) != 1) {
        return 1;
    }
    usleep(300 * 1000);
    lock_release(&l);
    return 0;
}

static void test_waits_for_release(void)
{
    int out;
    pid_t pid = start(brief_holder, &out);
    wait_byte(out);
    struct lock l;
    lock_init(&l);
    CHECK_INT(lock_take(&l, dir, PCI, "patient", 10000, NULL), 0);
    char text[64] = {0};
    CHECK(pread(l.fd, text, sizeof(text) - 1, 0) > 0);
    CHECK(strstr(text, "purpose patient\n") != NULL);
    lock_release(&l);
    waitpid(pid, NULL, 0);
    close(out);
}

/* Takes the lock, leaves a grandchild that inherited it, and ends. */
static int leaker(int out)
{
    struct lock l;
    lock_init(&l);
    if (lock_take(&l, dir, PCI, "leaky", 0, NULL) != 0) {
        return 1;
    }
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    return write(out, &pid, sizeof(pid)) == sizeof(pid) ? 0 : 1;
}

static void test_leak_is_named(void)
{
    int out;
    pid_t pid = start(leaker, &out), grandchild;
    CHECK(read(out, &grandchild, sizeof(grandchild)) == sizeof(grandchild));
    waitpid(pid, NULL, 0);
    struct lock l;
    struct err e = {0};
    lock_init(&l);
    CHECK_INT(lock_take(&l, dir, PCI, "test", 0, &e), ERR_LOCK_BUSY);
    char want[128];
    snprintf(want, sizeof(want), "pid %d (leaky), has ended but leaked the lock to pid %d",
             (int)pid, (int)grandchild);
    CHECK(strstr(e.detail, want) != NULL);
    kill(grandchild, SIGKILL);
    CHECK_INT(lock_take(&l, dir, PCI, "test", 5000, &e), 0);
    lock_release(&l);
    close(out);
}

static void test_hostile_text(void)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    char junk[200];
    memset(junk, 0x1b, sizeof(junk));
    memcpy(junk, "pid 1\npurpose ", 14);
    CHECK(pwrite(fd, junk, sizeof(junk), 0) == sizeof(junk));
    struct lock l;
    struct err e = {0};
    lock_init(&l);
    CHECK_INT(lock_take(&l, dir, PCI, "test", 0, &e), ERR_LOCK_BUSY);
    CHECK(strstr(e.detail, "pid 1 (") != NULL && strchr(e.detail, 0x1b) == NULL);
    memcpy(junk, "pid 99999999999999999999", 24);
    CHECK(pwrite(fd, junk, sizeof(junk), 0) == sizeof(junk));
    CHECK_INT(lock_take(&l, dir, PCI, "test", 0, &e), ERR_LOCK_BUSY);
    CHECK(ftruncate(fd, 0) == 0);
    CHECK_INT(lock_take(&l, dir, PCI, "test", 0, &e), ERR_LOCK_BUSY);
    CHECK(strstr(e.detail, "left no name") != NULL);
    close(fd);
}

static void check_path_error(const char *in_dir, const char *pci, const char *want)
{
    struct lock l;
    struct err e = {0};
    lock_init(&l);
    CHECK_INT(lock_take(&l, in_dir, pci, "test", 0, &e), ERR_LOCK_PATH);
    if (!strstr(e.detail, want)) {
        TEST_FAIL("\"%s\" does not say \"%s\"", e.detail, want);
    }
    CHECK_INT(l.fd, -1);
}

static void test_bad_paths(void)
{
    check_path_error("/nonexistent/dir", PCI, "No such file");
    check_path_error(dir, "../../etc/passwd", "no PCI address");
    CHECK(unlink(path) == 0);
    char other[160];
    snprintf(other, sizeof(other), "%s/other", dir);
    CHECK(close(open(other, O_CREAT | O_WRONLY, 0600)) == 0);
    CHECK(symlink(other, path) == 0);
    check_path_error(dir, PCI, "symbolic link");
    CHECK(unlink(path) == 0 && link(other, path) == 0);
    check_path_error(dir, PCI, "not a regular file of its own");
    CHECK(unlink(path) == 0 && mkfifo(path, 0666) == 0);
    check_path_error(dir, PCI, "not a regular file");
    CHECK(unlink(path) == 0 && unlink(other) == 0);
}

static int unwritable_as_user(int out)
{
    (void)out;
    if (geteuid() == 0 && setuid(65534) != 0) {
        return 1;
    }
    check_path_error(dir, PCI, "Permission denied");
    return 0;
}

static void test_unwritable(void)
{
    int out, status;
    CHECK(close(open(path, O_CREAT | O_WRONLY, 0444)) == 0);
    CHECK(chmod(path, 0444) == 0 && chmod(dir, 0755) == 0);
    pid_t pid = start(unwritable_as_user, &out);
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(unlink(path) == 0);
    close(out);
}

/* A file that was replaced while we waited for it guards nothing. */
static int replacer(int out)
{
    struct lock l;
    lock_init(&l);
    if (lock_take(&l, dir, PCI, "replacer", 0, NULL) != 0 || write(out, "x", 1) != 1) {
        return 1;
    }
    usleep(250 * 1000);
    return unlink(path);
}

static void test_replaced_file(void)
{
    int out;
    pid_t pid = start(replacer, &out);
    wait_byte(out);
    struct lock l;
    lock_init(&l);
    CHECK_INT(lock_take(&l, dir, PCI, "test", 10000, NULL), 0);
    struct stat a, b;
    CHECK(fstat(l.fd, &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino);
    lock_release(&l);
    waitpid(pid, NULL, 0);
    close(out);
}

int main(void)
{
    CHECK(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/rocmforge-%s.lock", dir, PCI);
    umask(0077); /* a strict umask must not lock other users out */
    test_contention();
    test_waits_for_release();
    test_leak_is_named();
    test_hostile_text();
    test_bad_paths();
    test_unwritable();
    test_replaced_file();
    unlink(path);
    char other_card[160];
    snprintf(other_card, sizeof(other_card), "%s/rocmforge-0000:43:00.0.lock", dir);
    unlink(other_card);
    CHECK(rmdir(dir) == 0);
    return 0;
}
