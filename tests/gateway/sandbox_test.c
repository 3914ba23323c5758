/* The sandbox of a process that really serves: the gateway's own main in a child, with a signal
 * handler that does what an intruder would do. Before, a request is answered; the forbidden call
 * then kills the process with SIGSYS. */
#include "tests/gateway/rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* gateway/main.c, compiled into this test under another name. */
int gateway_main(int argc, char **argv);

enum crime {
    OPEN,
    OPENAT,
    SOCKET,
    CONNECT,
    EXECVE,
    FORK,
    PTRACE,
    EXECUTABLE_MEMORY,
    KILL_OTHER,
    IOCTL,
    CRIMES
};
static const char *const names[CRIMES] = {"open", "openat", "socket",          "connect", "execve",
                                          "fork", "ptrace", "mmap(PROT_EXEC)", "kill",    "ioctl"};
static volatile sig_atomic_t planned;

static void commit(int number)
{
    (void)number;
    char program[] = "/bin/true", *argv[] = {program, NULL}, *env[] = {NULL};
    switch ((enum crime)planned) {
    case OPEN:
        syscall(SYS_open, "/etc/passwd", O_RDONLY);
        break;
    case OPENAT:
        syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
        break;
    case SOCKET:
        syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
        break;
    case CONNECT:
        syscall(SYS_connect, 0, &(struct sockaddr_in){.sin_family = AF_INET},
                sizeof(struct sockaddr_in));
        break;
    case EXECVE:
        syscall(SYS_execve, program, argv, env);
        break;
    case FORK:
        syscall(SYS_fork);
        break;
    case PTRACE:
        syscall(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0);
        break;
    case EXECUTABLE_MEMORY:
        syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        break;
    case KILL_OTHER:
        syscall(SYS_kill, getpid(), 0);
        break;
    case IOCTL:
        syscall(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, "x");
        break;
    case CRIMES:
        break;
    }
    _exit(42); /* it was not stopped */
}

/* As the rig's program: becomes the gateway with an intruder inside. */
static int run_gateway(int crime)
{
    char name[] = "rocmforge-gateway", *argv[] = {name, NULL};
    planned = crime;
    signal(SIGUSR1, commit);
    return gateway_main(1, argv);
}

static void check_status_of(pid_t pid, const char *thread)
{
    char path[320], line[256];
    bool has_filter = false, has_no_new_privs = false;
    snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)pid, thread);
    FILE *f = fopen(path, "r");
    CHECK(f);
    while (fgets(line, sizeof(line), f)) {
        has_filter |= strcmp(line, "Seccomp:\t2\n") == 0;
        has_no_new_privs |= strcmp(line, "NoNewPrivs:\t1\n") == 0;
    }
    fclose(f);
    CHECK(has_filter && has_no_new_privs);
}

/* The loop's thread and the pool's. */
static void check_threads_of(pid_t pid)
{
    char path[64];
    int n = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *d = opendir(path);
    CHECK(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] != '.') {
            check_status_of(pid, e->d_name);
            n++;
        }
    }
    closedir(d);
    CHECK_INT(n, 2);
}

static void one(const char *self, int crime)
{
    struct rig r;
    char number[16];
    snprintf(number, sizeof(number), "%d", crime);
    const struct rig_options o = {.program = self, .args = {"--crime", number}};
    rig_start(&r, &o);
    rig_worker_start(&r);
    char *got = client_body(&r, "POST /v1/completions", "{\"prompt\":\"say served\"}", 200);
    CHECK(strstr(got, "served"));
    free(got);
    check_threads_of(r.pid);
    if (crime == CRIMES) { /* an honest one */
        rig_stop(&r);
        return;
    }
    CHECK(kill(r.pid, SIGUSR1) == 0);
    int status;
    CHECK(waitpid(r.pid, &status, 0) == r.pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS) {
        TEST_FAIL("%s: not stopped, status 0x%x", names[crime], (unsigned)status);
    }
    rig_forget(&r);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--crime") == 0) {
        return run_gateway(atoi(argv[2]));
    }
    if (rig_is_unsandboxed()) {
        TEST_SKIP("sanitizers need system calls that the sandbox forbids");
    }
    for (int crime = 0; crime <= CRIMES; crime++) {
        one(argv[0], crime);
    }
    return 0;
}
