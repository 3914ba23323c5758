/* The worker's sandbox: what an intruder would do fails with EPERM, what engine and HIP do goes on.
 * Each in a child, because a filter is for ever. */
#include "worker/sandbox.h"
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static char program[] = "/bin/true";
static char *arguments[] = {program, NULL}, *environment[] = {NULL};

static const struct crime {
    const char *name;
    long number, a, b, c;
} crimes[] = {
    {"socket", SYS_socket, AF_INET, SOCK_STREAM, 0},
    {"socket AF_UNIX", SYS_socket, AF_UNIX, SOCK_STREAM, 0},
    {"connect", SYS_connect, 0, 0, 0},
    {"execve", SYS_execve, (long)program, (long)arguments, (long)environment},
    {"fork", SYS_fork, 0, 0, 0},
    {"clone of a process", SYS_clone, SIGCHLD, 0, 0},
    {"ptrace", SYS_ptrace, PTRACE_TRACEME, 0, 0},
    {"process_vm_readv", SYS_process_vm_readv, 1, 0, 0},
    {"kill of the parent", SYS_kill, 0, 0, 0}, /* a: filled in */
    {"kill of everybody", SYS_kill, -1, 0, 0},
    {"tgkill of another", SYS_tgkill, 1, 1, 0},
    {"bpf", SYS_bpf, 0, 0, 0},
    {"userfaultfd", SYS_userfaultfd, 0, 0, 0},
    {"io_uring_setup", SYS_io_uring_setup, 1, 0, 0},
    {"perf_event_open", SYS_perf_event_open, 0, 0, 0},
    {"keyctl", SYS_keyctl, 0, 0, 0},
    {"mount", SYS_mount, 0, 0, 0},
    {"unshare", SYS_unshare, CLONE_NEWUSER, 0, 0},
    {"chroot", SYS_chroot, (long)"/", 0, 0},
    {"TIOCSTI", SYS_ioctl, 0, TIOCSTI, (long)"x"},
    {"a call of the x32 kind", 0x40000000 | SYS_getpid, 0, 0, 0},
};

static void enter(void)
{
    struct err e;
    if (sandbox_enter(&e) != 0) {
        TEST_FAIL("%s", e.detail);
    }
}

static int wait_for(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void test_crimes(void)
{
    for (size_t i = 0; i < COUNT_OF(crimes); i++) {
        pid_t pid = fork();
        if (pid == 0) {
            enter();
            const struct crime *c = &crimes[i];
            long a = c->number == SYS_kill && c->a == 0 ? getppid() : c->a;
            errno = 0;
            long rc = syscall((long)c->number, a, c->b, c->c, 0, 0);
            _exit(rc == -1 && errno == EPERM ? 0 : 1);
        }
        if (wait_for(pid) != 0) {
            TEST_FAIL("%s is not denied", crimes[i].name);
        }
    }
}

static void *thread(void *arg)
{
    return arg;
}

/* What the engine and a GPU runtime need. */
static void work(void)
{
    enter();
    pthread_t t;
    void *got = NULL;
    CHECK(pthread_create(&t, NULL, thread, program) == 0);
    CHECK(pthread_join(t, &got) == 0 && got == program);
    void *code =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(code != MAP_FAILED);
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0);
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    /* ioctls reach the driver: the numbers of KFD's and amdgpu's first calls, here at a device that
     * does not know them */
    CHECK(ioctl(null_fd, _IOR('K', 1, uint64_t), &got) < 0 && errno == ENOTTY);
    CHECK(ioctl(null_fd, _IOWR('d', 0, uint64_t[8]), &got) < 0 && errno == ENOTTY);
    int bell = eventfd(0, EFD_CLOEXEC);
    int memory = memfd_create("x", MFD_CLOEXEC);
    CHECK(bell >= 0 && memory >= 0 && ftruncate(memory, 4096) == 0);
    cpu_set_t set;
    CHECK(sched_getaffinity(0, sizeof(set), &set) == 0 &&
          sched_setaffinity(0, sizeof(set), &set) == 0);
    CHECK_INT(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
    CHECK_INT(prctl(PR_GET_SECCOMP, 0, 0, 0, 0), 2);
    struct rlimit core;
    CHECK(getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_cur == 0 && core.rlim_max == 0);
}

static void test_work(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        work();
        _exit(0);
    }
    CHECK_INT(wait_for(pid), 0);
}

/* An abort is still an abort: the supervisor reads the signal. */
static void test_own_end(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        enter();
        abort();
    }
    CHECK_INT(wait_for(pid), 128 + SIGABRT);
}

int main(void)
{
#ifdef __SANITIZE_ADDRESS__
    TEST_SKIP("under AddressSanitizer the worker has no system call filter");
#endif
    test_crimes();
    test_work();
    test_own_end();
    return 0;
}
