/* Starting, ending and reaping one child; runs in the supervisor. Never blocks: whether the program
 * could be executed is learnt from the child's exit, not waited for. */
#include "safety/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_MAX_FILES = 65536 };

void child_init(struct child *c, const char *name, enum msg_peer role)
{
    *c = (struct child){.name = name, .role = role, .pidfd = -1, .deadline_ms = UINT64_MAX};
    c->channel.fd = -1;
}

/* --- in the child, between fork and exec ---------------------------------------------------------
 */

static void set_limits(const struct child_options *o)
{
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* a core would hold prompts, and on ROCm
                                                             changes what a GPU fault does */
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = MIN(files.rlim_max, (rlim_t)CHILD_MAX_FILES);
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

NORETURN static void become(const struct child_options *o, int channel_fd, pid_t parent)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(EXIT_PARENT_DIED);
    }
    for (int sig = 1; sig < NSIG; sig++) {
        (void)signal(sig, SIG_DFL);
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
    _exit(POLICY_EXEC_FAILED);
}

/* ---- in the supervisor ---- */

int child_spawn(struct child *c, const struct child_options *o, uint64_t epoch, uint64_t now_ms)
{
    ASSERT(c->state == CHILD_NONE);
    int ends[2];
    int rc = channel_pair(ends);
    if (rc != 0) {
        return rc;
    }
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        become(o, ends[1], parent);
    }
    rc = -errno;
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return rc;
    }
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) { /* no descriptor is left; a child that cannot be watched is not kept */
        rc = -errno;
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        close(ends[0]);
        return rc;
    }
    child_init(c, c->name, c->role);
    channel_init(&c->channel, ends[0], MSG_SUPERVISOR, c->role);
    c->state = CHILD_STARTED;
    c->pid = pid;
    c->pidfd = pidfd;
    c->epoch = epoch;
    c->start_ms = now_ms;
    c->deadline_ms = now_ms + CHILD_HELLO_MS;
    c->reap_ms = o->reap_ms ? o->reap_ms : CHILD_REAP_MS;
    c->keeps_terminal = o->keeps_terminal;
    return 0;
}

static void send_signal(const struct child *c, int sig)
{
    (void)syscall(SYS_pidfd_send_signal, c->pidfd, sig, NULL, 0);
}

void child_end(struct child *c, uint64_t grace_ms, uint64_t now_ms)
{
    if (!child_is_alive(c)) {
        return;
    }
    c->is_ordered = true;
    c->state = CHILD_ENDING;
    c->deadline_ms = now_ms + grace_ms;
    send_signal(c, SIGTERM);
}

void child_condemn(struct child *c, uint64_t now_ms, const char *fmt, ...)
{
    if (!child_is_alive(c)) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->reason, sizeof(c->reason), fmt, ap);
    va_end(ap);
    child_end(c, CHILD_LAST_MS, now_ms);
}

void child_kill(struct child *c, uint64_t now_ms)
{
    if (c->state == CHILD_NONE || c->state >= CHILD_KILLED) {
        return;
    }
    c->is_ordered = true;
    c->state = CHILD_KILLED;
    c->deadline_ms = now_ms + c->reap_ms;
    send_signal(c, SIGKILL);
}

bool child_tick(struct child *c, uint64_t now_ms)
{
    if (now_ms < c->deadline_ms) {
        return false;
    }
    switch (c->state) {
    case CHILD_STARTED:
        child_condemn(c, now_ms, "it did not greet within %d s of its start",
                      CHILD_HELLO_MS / 1000);
        return false;
    case CHILD_GREETED:
    case CHILD_ATTACHED:
    case CHILD_READY:
        child_condemn(c, now_ms, "it closed its channel and lives on");
        return false;
    case CHILD_ENDING:
        child_kill(c, now_ms);
        return false;
    case CHILD_KILLED:
        c->state = CHILD_STUCK;
        c->deadline_ms = UINT64_MAX;
        return true;
    case CHILD_NONE:
    case CHILD_STUCK:
        break;
    }
    return false;
}

bool child_reap(struct child *c, struct policy_death *ret)
{
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
        info.si_pid == 0) {
        return false;
    }
    if (!c->keeps_terminal) { /* while the zombie stands, nobody else can have its group's id */
        (void)kill(-c->pid, SIGKILL);
    }
    (void)waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED | WNOHANG);
    bool is_exit = info.si_code == CLD_EXITED;
    *ret = (struct policy_death){.exit_code = is_exit ? info.si_status : -1,
                                 .signal = is_exit ? 0 : info.si_status,
                                 .is_ordered = c->is_ordered,
                                 .is_condemned = c->reason[0] != '\0'};
    close(c->pidfd);
    c->pidfd = -1;
    channel_close(&c->channel);
    c->state = CHILD_NONE;
    c->deadline_ms = UINT64_MAX;
    return true;
}
