/* Starting and reaping processes; runs in the supervisor. Never blocks: whether the program could
 * be executed is learnt from the child's exit, not waited for. */
#include "safety/process.h"
#include "ipc/channel.h"
#include "shared/err.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROCESS_MAX_FILES = 65536 };

/* ---- in the child, between fork and exec ---- */

static void set_limits(const struct process_options *o)
{
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* a core would hold prompts, and on ROCm
                                                             changes what a GPU fault does */
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = MIN(files.rlim_max, (rlim_t)PROCESS_MAX_FILES);
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    if (o->oom_score_adj != 0) {
        int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (fd >= 0) {
            dprintf(fd, "%d", o->oom_score_adj);
            close(fd);
        }
    }
}

static void leave_terminal(void)
{
    (void)setpgid(0, 0);
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGTTOU, SIG_IGN); /* logging must not stop it under `stty tostop` */
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd >= 0) {
        (void)dup2(null_fd, STDIN_FILENO);
    }
    (void)dup2(STDERR_FILENO, STDOUT_FILENO); /* stdout belongs to the front */
}

NORETURN static void become(const struct process_options *o, int channel_fd, int stderr_fd,
                            pid_t parent)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(EXIT_PARENT_DIED);
    }
    for (int sig = 1; sig < NSIG; sig++) {
        (void)signal(sig, SIG_DFL);
    }
    if (stderr_fd >= 0) {
        (void)dup2(stderr_fd, STDERR_FILENO);
    }
    if (!o->keeps_terminal) {
        leave_terminal();
    }
    set_limits(o);
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (channel_fd == CHANNEL_CHILD_FD) {
        (void)fcntl(channel_fd, F_SETFD, 0);
    } else {
        (void)dup2(channel_fd, CHANNEL_CHILD_FD);
    }
    if (!o->keeps_terminal) {
        /* Ours are close-on-exec; this is for what we inherited from a careless parent. The front
         * of `run` keeps them: a prompt can come from /dev/fd/63. */
        (void)close_range(CHANNEL_CHILD_FD + 1, ~0u, 0);
    }
    execv(o->path, o->argv);
    dprintf(STDERR_FILENO, "rocmforge: cannot start %s: %s\n", o->path, strerror(errno));
    _exit(PROCESS_EXEC_FAILED);
}

/* ---- in the supervisor ---- */

static void close_all(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}

int process_start(const struct process_options *o, struct process *ret)
{
    enum { OURS, THEIRS, STDERR_OUT, STDERR_IN, N_FDS };
    int fds[N_FDS] = {-1, -1, -1, -1};
    int rc = channel_pair(fds);
    if (rc != 0) {
        return rc;
    }
    if (o->wants_stderr && pipe2(fds + STDERR_OUT, O_CLOEXEC) != 0) {
        rc = -errno;
        close_all(fds, N_FDS);
        return rc;
    }
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        become(o, fds[THEIRS], fds[STDERR_IN], parent);
    }
    rc = -errno;
    int pidfd = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
    if (pid >= 0 &&
        pidfd < 0) { /* no descriptor is left; a child that cannot be watched is not kept */
        rc = -errno;
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
    }
    if (pidfd < 0) {
        close_all(fds, N_FDS);
        return rc;
    }
    close(fds[THEIRS]);
    if (o->wants_stderr) {
        close(fds[STDERR_IN]);
        (void)fcntl(fds[STDERR_OUT], F_SETFL, O_NONBLOCK); /* our end alone */
    }
    *ret = (struct process){
        .pid = pid, .pidfd = pidfd, .channel_fd = fds[OURS], .stderr_fd = fds[STDERR_OUT]};
    return 0;
}

void process_signal(int pidfd, int sig)
{
    (void)syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0);
}

bool process_reap(int pidfd, pid_t pid, bool kills_group, int *ret_exit_code, int *ret_signal)
{
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) {
        return false;
    }
    if (kills_group) { /* while the zombie stands, nobody else can have its group's id */
        (void)kill(-pid, SIGKILL);
    }
    (void)waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG);
    bool is_exit = info.si_code == CLD_EXITED;
    *ret_exit_code = is_exit ? info.si_status : -1;
    *ret_signal = is_exit ? 0 : info.si_status;
    return true;
}
