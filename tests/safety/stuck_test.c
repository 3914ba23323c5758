/* A worker that SIGKILL does not end: it waits in the kernel (state D) for a file system that does
 * not answer. The file system is a FUSE mount of ours, which the worker asks for a name. Once the
 * request has been read, the wait cannot be interrupted. Needs root for the mount. */
#include "tests/safety/rig.h"
#include "shared/base.h"
#include "shared/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

static struct rig r;
static char mount_dir[128];
static volatile sig_atomic_t may_answer;

static void on_usr1(int sig)
{
    (void)sig;
    may_answer = 1;
}

static void answer(int fd, uint64_t unique, int error, const void *data, size_t n)
{
    char out[256];
    struct fuse_out_header h = {.len = (uint32_t)(sizeof(h) + n), .error = error, .unique = unique};
    memcpy(out, &h, sizeof(h));
    memcpy(out + sizeof(h), data, n);
    (void)!write(fd, out, sizeof(h) + n);
}

/* Answers everything but LOOKUP, and that only after SIGUSR1. */
static void run_file_system(int fd)
{
    static char in[1 << 17];
    uint64_t waiting = 0;
    for (;;) {
        if (waiting && may_answer) {
            answer(fd, waiting, -ENOENT, "", 0);
            waiting = 0;
        }
        ssize_t n = read(fd, in, sizeof(in));
        if (n < 0 && (errno == EINTR || errno == ENOENT)) {
            continue;
        }
        if (n < (ssize_t)sizeof(struct fuse_in_header)) {
            _exit(0);
        }
        struct fuse_in_header h;
        memcpy(&h, in, sizeof(h));
        if (h.opcode == FUSE_INIT) {
            struct fuse_init_out o = {.major = FUSE_KERNEL_VERSION,
                                      .minor = FUSE_KERNEL_MINOR_VERSION,
                                      .max_write = 4096};
            answer(fd, h.unique, 0, &o, sizeof(o));
        } else if (h.opcode == FUSE_GETATTR) {
            struct fuse_attr_out o = {.attr = {.ino = 1, .mode = S_IFDIR | 0755, .nlink = 2}};
            answer(fd, h.unique, 0, &o, sizeof(o));
        } else if (h.opcode == FUSE_LOOKUP) {
            waiting = h.unique;
        } else if (h.opcode != FUSE_FORGET && h.opcode != FUSE_INTERRUPT) {
            answer(fd, h.unique, -ENOSYS, "", 0);
        }
    }
}

static pid_t mount_file_system(void)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    char options[128];
    snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
    if (fd < 0 || mount("test", mount_dir, "fuse", MS_NOSUID | MS_NODEV, options) != 0) {
        rmdir(mount_dir);
        rig_clean();
        TEST_SKIP("cannot mount FUSE (%s); this needs root and /dev/fuse", strerror(errno));
    }
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct sigaction sa = {.sa_handler = on_usr1}; /* no SA_RESTART: read() returns */
        sigaction(SIGUSR1, &sa, NULL);
        run_file_system(fd);
    }
    close(fd);
    return pid;
}

static void unmount_file_system(pid_t pid)
{
    kill(pid, SIGKILL); /* closes /dev/fuse, which ends every wait */
    waitpid(pid, NULL, 0);
    CHECK(umount2(mount_dir, MNT_DETACH) == 0);
}

static void start(const char *worker, const char *fallback)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/x", mount_dir);
    setenv("DUMMY_STUCK", path, 1);
    rig_plan("", worker);
    const char *args[] = {"--stall-ms", "200", "--reap-ms",      "300",    "serve", "--port", "0",
                          "-m",         "x",   "--cpu-fallback", fallback, NULL};
    rig_start(&r, args);
}

/* On the CPU the next worker is started beside the one that cannot die. */
static void test_cpu_worker(void)
{
    pid_t fs = mount_file_system();
    start("", "always");
    rig_expect(&r, "@worker ready 1");
    pid_t stuck = (pid_t)rig_number(&r, "pid ");
    rig_expect(&r, "cannot be killed: the kernel holds it (state D)");
    CHECK(strstr(r.line, "no progress for 0."));
    rig_expect(&r, "@gateway detach 1 worker_down");
    rig_expect(&r, "worker is ready: epoch 2");
    CHECK(rig_is_alive(stuck));
    CHECK(kill(fs, SIGUSR1) == 0);
    rig_expect(&r, "is gone at last");
    CHECK(!rig_is_alive(stuck));
    rig_stop(&r);
    unmount_file_system(fs);
}

/* One that holds the GPU keeps every other process of ours away from it, until it is gone. */
static void test_gpu_worker(void)
{
    pid_t fs = mount_file_system();
    start("preflight", "load");
    rig_expect(&r, "@worker ready 1");
    rig_expect(&r, "no process of ours touches the GPU until it is gone");
    rig_expect(&r, "@gateway detach 1 gpu_stalled retry 0");
    CHECK(strstr(r.line, "hangs in the kernel and cannot be killed"));
    usleep(700 * 1000);
    CHECK(kill(fs, SIGUSR1) == 0);
    rig_expect(&r, "is gone at last");
    rig_expect(&r, "worker is ready: epoch 2");
    rig_stop(&r);
    unmount_file_system(fs);
}

/* Where the CPU may take over, it does, while nobody touches the GPU. */
static void test_cpu_takes_over(void)
{
    pid_t fs = mount_file_system();
    start("preflight", "always");
    rig_expect(&r, "@worker ready 1");
    pid_t stuck = (pid_t)rig_number(&r, "pid ");
    rig_expect(&r, "the next worker runs on rung 'cpu'");
    rig_expect(&r, "worker is ready: epoch 2");
    CHECK(rig_is_alive(stuck));
    CHECK(kill(fs, SIGUSR1) == 0);
    rig_expect(&r, "is gone at last");
    rig_stop(&r);
    unmount_file_system(fs);
}

/* The server can be ended all the same. */
static void test_stop_while_stuck(void)
{
    pid_t fs = mount_file_system();
    start("preflight", "load");
    rig_expect(&r, "cannot be killed");
    uint64_t t0 = clock_ms();
    CHECK(kill(r.pid, SIGTERM) == 0);
    CHECK_INT(rig_wait(&r), 0);
    CHECK(clock_ms() - t0 < 5000);
    unmount_file_system(fs);
}

int main(int argc, char **argv)
{
    rig_init(argc, argv);
    snprintf(mount_dir, sizeof(mount_dir), "%s/fuse", rig_dir());
    CHECK(mkdir(mount_dir, 0755) == 0);
    test_cpu_worker();
    test_gpu_worker();
    test_cpu_takes_over();
    test_stop_while_stuck();
    CHECK(rmdir(mount_dir) == 0);
    rig_clean();
    return 0;
}
