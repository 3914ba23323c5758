/* The rig of the supervisor's tests. */
#include "tests/safety/rig.h"
#include "shared/clock.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { RIG_TIMEOUT_MS = 20 * 1000 };

static const char *program;
static char dir[] = "/tmp/rocmforge-safety-XXXXXX";
static const char *const links[] = {"gateway", "worker", "probe"};

void rig_init(int argc, char **argv)
{
    CHECK(argc == 4);
    program = argv[1];
    CHECK(mkdtemp(dir));
    for (size_t i = 0; i < 3; i++) {
        char path[128];
        snprintf(path, sizeof(path), "%s/rocmforge-%s", dir, links[i]);
        CHECK(symlink(argv[2], path) == 0);
    }
}

void rig_clean(void)
{
    for (size_t i = 0; i < 3; i++) {
        char path[128];
        snprintf(path, sizeof(path), "%s/rocmforge-%s", dir, links[i]);
        unlink(path);
    }
    CHECK(rmdir(dir) == 0);
}

const char *rig_dir(void)
{
    return dir;
}

void rig_start(struct rig *r, const char *const args[])
{
    const char *argv[32] = {program, "--libexec", dir};
    size_t n = 3;
    for (size_t i = 0; args[i]; i++) {
        CHECK(n + 1 < 32);
        argv[n++] = args[i];
    }
    int fds[2];
    CHECK(pipe2(fds, O_CLOEXEC) == 0);
    memset(r, 0, sizeof(*r));
    r->log_fd = fds[0];
    r->pid = fork();
    CHECK(r->pid >= 0);
    if (r->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(fds[1], STDERR_FILENO);
        setenv("XDG_CONFIG_HOME", dir, 1);
        setenv("XDG_STATE_HOME", dir, 1);
        char *copy[32] = {0};
        for (size_t i = 0; i < n; i++) {
            copy[i] = strdup(argv[i]);
        }
        execv(program, copy);
        _exit(127);
    }
    close(fds[1]);
}

void rig_serve(struct rig *r, const char *option, const char *value)
{
    const char *args[] = {"serve", "--port", "0", "-m", "x.gguf", option, value, NULL};
    rig_start(r, args);
}

pid_t rig_serve_ready(struct rig *r, const char *option, const char *value)
{
    rig_serve(r, option, value);
    rig_expect(r, "worker is ready");
    pid_t worker = (pid_t)rig_number(r, "pid ");
    rig_expect(r, "@gateway ready");
    return worker;
}

void rig_plan(const char *gateway, const char *worker)
{
    setenv("DUMMY_GATEWAY", gateway, 1);
    setenv("DUMMY_WORKER", worker, 1);
    setenv("DUMMY_PROBE", "", 1);
}

int rig_dial(int port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0);
    return fd;
}

void rig_check_answer(int fd)
{
    char text[64] = {0};
    CHECK(read(fd, text, sizeof(text) - 1) > 0);
    CHECK(strncmp(text, "dummy ", 6) == 0);
    close(fd);
}

/* Takes the first line that holds text out of the buffer. */
static bool take_line(struct rig *r, const char *text)
{
    for (size_t at = 0; at < r->n;) {
        char *end = memchr(r->buf + at, '\n', r->n - at);
        if (!end) {
            return false;
        }
        size_t len = (size_t)(end - r->buf) - at;
        size_t keep = MIN(len, sizeof(r->line) - 1);
        memcpy(r->line, r->buf + at, keep);
        r->line[keep] = '\0';
        if (strstr(r->line, text)) {
            r->n -= len + 1;
            memmove(r->buf + at, end + 1, r->n - at);
            return true;
        }
        at += len + 1;
    }
    return false;
}

const char *rig_expect(struct rig *r, const char *text)
{
    uint64_t deadline = clock_ms() + RIG_TIMEOUT_MS;
    while (!take_line(r, text)) {
        CHECK(r->n < sizeof(r->buf));
        uint64_t now = clock_ms();
        struct pollfd p = {.fd = r->log_fd, .events = POLLIN};
        ssize_t got = 0;
        if (now < deadline && poll(&p, 1, (int)(deadline - now)) > 0) {
            got = read(r->log_fd, r->buf + r->n, sizeof(r->buf) - r->n);
        }
        if (got <= 0) {
            TEST_FAIL("\"%s\" is not said; what was said:\n%.*s", text, (int)r->n, r->buf);
        }
        if (getenv("RIG_VERBOSE")) {
            fprintf(stderr, "%.*s", (int)got, r->buf + r->n);
        }
        r->n += (size_t)got;
    }
    return r->line;
}

long rig_number(const struct rig *r, const char *text)
{
    const char *p = strstr(r->line, text);
    CHECK(p);
    return strtol(p + strlen(text), NULL, 10);
}

int rig_wait(struct rig *r)
{
    uint64_t deadline = clock_ms() + RIG_TIMEOUT_MS;
    char drop[4096];
    CHECK(fcntl(r->log_fd, F_SETFL, O_NONBLOCK) == 0);
    for (;;) {
        int status;
        pid_t pid = waitpid(r->pid, &status, WNOHANG);
        ssize_t got = read(r->log_fd, drop, sizeof(drop) - 1);
        if (got > 0 && getenv("RIG_VERBOSE")) {
            fprintf(stderr, "%.*s", (int)got, drop);
        }
        if (pid == r->pid) {
            close(r->log_fd);
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        if (clock_ms() > deadline) {
            kill(r->pid, SIGKILL);
            TEST_FAIL("the supervisor does not end; last line: %s", r->line);
        }
        usleep(2000);
    }
}

void rig_stop(struct rig *r)
{
    CHECK(kill(r->pid, SIGTERM) == 0);
    CHECK_INT(rig_wait(r), 0);
}

int rig_port(const struct rig *r)
{
    const char *p = strrchr(r->line, ':');
    CHECK(p);
    return atoi(p + 1);
}

int rig_count_fds(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    CHECK(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        n += e->d_name[0] != '.';
    }
    closedir(d);
    return n;
}

int rig_is_alive(pid_t pid)
{
    char path[64], state = 'Z';
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (f) {
        if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1) {
            state = 'Z';
        }
        fclose(f);
    }
    return state != 'Z' && state != 'X';
}
