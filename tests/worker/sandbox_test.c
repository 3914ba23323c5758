/* The worker's sandbox: what an intruder would do fails with EPERM, with files EACCES; what engine
 * and HIP do goes on. Each in a child, because a sandbox is for ever. */
#include "worker/sandbox.h"
#include "tests/shared/no_landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
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
#include <sys/stat.h>
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
    if (sandbox_enter(NULL, &e) != 0) {
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

/* ---- files ---- */

static char top[] = "/var/tmp/rocmforge-sandbox-XXXXXX", lock_dir[64], model[64], scratch[64];

/* Opens to write. 0 or an errno. */
static int try_write(const char *path, int flags)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0600);
    int err = fd < 0 ? errno : 0;
    if (fd >= 0) {
        close(fd);
    }
    return err;
}

static int of(int rc)
{
    return rc < 0 ? errno : 0;
}

static const char *in(const char *dir, const char *name)
{
    static char path[2][128];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
    return path[turn];
}

/* What holds with and without a GPU. abi: older kernels know less. */
static void check_outside(long abi)
{
    char byte = 0;
    int fd = open(model, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && read(fd, &byte, 1) == 1 && byte == 'G');
    CHECK(mmap(NULL, 1, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) != MAP_FAILED);
    CHECK((fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0); /* parts of a split model */
    CHECK_INT(try_write(model, 0), EACCES);
    CHECK_INT(try_write(model, O_TRUNC), EACCES);
    CHECK_INT(try_write(in(top, "new"), O_CREAT), EACCES);
    CHECK_INT(of(openat(fd, "new", O_CREAT | O_RDWR | O_CLOEXEC, 0600)), EACCES);
    CHECK_INT(of(mkdir(in(top, "folder"), 0700)), EACCES);
    CHECK_INT(of(rmdir(in(top, "empty"))), EACCES);
    CHECK_INT(of(unlink(model)), EACCES);
    CHECK_INT(of(rename(model, in(top, "other"))), EACCES);
    CHECK_INT(of(symlink(model, in(top, "link"))), EACCES);
    CHECK_INT(of(mkfifo(in(top, "pipe"), 0600)), EACCES);
    CHECK(of(link(model, in(lock_dir, "model"))) != 0);
    CHECK_INT(try_write("/dev/zero", 0), EACCES); /* a device that is none of ours */
    if (abi >= 3) {
        CHECK_INT(of(truncate(model, 0)), EACCES);
    }
    if (abi >= 5) {
        int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
        CHECK(zero >= 0 && of(ioctl(zero, BLKGETSIZE64, &byte)) == EACCES);
    }
    CHECK_INT(try_write("/dev/null", 0), 0);
}

static void *check_in_thread(void *abi)
{
    check_outside(*(long *)abi);
    return NULL;
}

static void enter_with(const char *dir, long abi)
{
    int open_before = open(in(top, "log"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    struct err e;
    if (sandbox_enter(dir, &e) != 0) {
        TEST_FAIL("%s", e.detail);
    }
    check_outside(abi);
    pthread_t t;
    CHECK(pthread_create(&t, NULL, check_in_thread, &abi) == 0 && pthread_join(t, NULL) == 0);
    CHECK(write(open_before, "x", 1) == 1 && ftruncate(open_before, 0) == 0);
}

static void use_cpu(long abi)
{
    enter_with(NULL, abi);
    CHECK_INT(try_write(in(lock_dir, "rocmforge.lock"), O_CREAT), EACCES);
    CHECK_INT(try_write(in(scratch, "x"), O_CREAT), EACCES);
    CHECK_INT(try_write("/dev/shm/rocmforge-sandbox-test", O_CREAT), EACCES);
}

static void use_gpu(long abi)
{
    setenv("TMPDIR", scratch, 1);
    unsetenv("TMP");
    unsetenv("TEMP");
    unsetenv("TEMPDIR");
    static const char *const nodes[] = {"/dev/kfd", "/dev/dri/renderD128", "/dev/nvidiactl"};
    int before[COUNT_OF(nodes)];
    for (size_t i = 0; i < COUNT_OF(nodes); i++) {
        before[i] = try_write(nodes[i], 0);
    }
    enter_with(lock_dir, abi);
    for (size_t i = 0; i < COUNT_OF(nodes); i++) {
        CHECK_INT(try_write(nodes[i], 0), before[i]);
    }
    CHECK_INT(try_write(in(lock_dir, "rocmforge.lock"), O_CREAT | O_TRUNC), 0);
    CHECK_INT(of(unlink(in(lock_dir, "rocmforge.lock"))), EACCES);
    static const char shared[] = "/dev/shm/rocmforge-sandbox-test";
    CHECK_INT(try_write(shared, O_CREAT), 0);
    CHECK_INT(of(unlink(shared)), 0);
    /* what a compiler does in a folder for temporary files */
    CHECK_INT(of(mkdir(in(scratch, "a"), 0700)), 0);
    CHECK_INT(of(mkdir(in(scratch, "b"), 0700)), 0);
    CHECK_INT(try_write(in(scratch, "a/x"), O_CREAT), 0);
    if (abi >= 2) {
        CHECK_INT(of(rename(in(scratch, "a/x"), in(scratch, "b/x"))), 0);
        CHECK_INT(of(unlink(in(scratch, "b/x"))), 0);
    }
}

/* The worker starts all the same. */
static void test_no_landlock(int as_error)
{
    pid_t pid = fork();
    if (pid == 0) {
        no_landlock(as_error);
        enter();
        CHECK_INT(try_write("/dev/zero", 0), 0);
        _exit(0);
    }
    CHECK_INT(wait_for(pid), 0);
}

static void test_files(void)
{
    long abi = syscall(LANDLOCK_CREATE, NULL, 0, 1); /* 1: only ask for the version */
    if (abi < 1) {
        printf("skipped: files; the kernel has no Landlock\n");
        return;
    }
    CHECK(mkdtemp(top) != NULL);
    snprintf(lock_dir, sizeof(lock_dir), "%s/lock", top);
    snprintf(scratch, sizeof(scratch), "%s/scratch", top);
    snprintf(model, sizeof(model), "%s/model.gguf", top);
    CHECK(mkdir(lock_dir, 0700) == 0 && mkdir(scratch, 0700) == 0);
    CHECK(mkdir(in(top, "empty"), 0700) == 0);
    FILE *f = fopen(model, "we");
    CHECK(f && fputs("GGUF", f) >= 0 && fclose(f) == 0);
    static void (*const uses[])(long) = {use_cpu, use_gpu};
    for (size_t i = 0; i < COUNT_OF(uses); i++) {
        pid_t pid = fork();
        if (pid == 0) {
            uses[i](abi);
            _exit(0);
        }
        CHECK_INT(wait_for(pid), 0);
    }
    static const char *const made[] = {"lock/rocmforge.lock", "log", "model.gguf", "lock", "empty",
                                       "scratch/a/x", "scratch/a", "scratch/b", "scratch", ""};
    for (size_t i = 0; i < COUNT_OF(made); i++) {
        (void)remove(in(top, made[i]));
    }
    CHECK(access(top, F_OK) < 0);
}

int main(void)
{
    test_no_landlock(ENOSYS);
    test_no_landlock(EOPNOTSUPP);
    test_no_landlock(EPERM);
    test_files();
#ifdef __SANITIZE_ADDRESS__
    TEST_SKIP("under AddressSanitizer the worker has no system call filter");
#endif
    test_crimes();
    test_work();
    test_own_end();
    return 0;
}
