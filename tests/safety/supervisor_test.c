/* The supervisor with dummy children: start, stop, drain, reload, what it hands on. Deaths and
 * hangs are in fault_test.c. */
#include "tests/safety/rig.h"
#include "shared/base.h"
#include "shared/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static struct rig r;
static const char *real_probe;

static void test_start_and_stop(void)
{
    rig_plan("", "");
    int stray = open("/dev/null", O_RDONLY); /* inherited, and not to reach the children */
    CHECK(dup2(stray, 77) == 77);
    rig_serve(&r, "--queue-size", "99");
    rig_expect(&r, "listening on http://127.0.0.1:");
    int port = rig_port(&r);
    rig_expect(&r, "@gateway start");
    CHECK(strstr(r.line, "fds 4 pgrp own sigint ignored"));
    CHECK(!strstr(r.line, "BLOCKED"));
    rig_expect(&r, "@gateway config 1 queue_size=99 keys=none");
    rig_expect(&r, "@gateway listen 1");
    rig_expect(&r, "@worker start");
    CHECK(strstr(r.line, "fds 4 pgrp own sigint ignored"));
    pid_t worker = (pid_t)rig_number(&r, "pid ");
    char path[64], adj[16] = {0};
    snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)worker);
    int fd = open(path, O_RDONLY);
    CHECK(read(fd, adj, sizeof(adj) - 1) > 0 && atoi(adj) == 500);
    close(fd);
    rig_expect(&r, "@worker arg 1");
    rig_expect(&r, "@worker attach 1 rw");
    rig_expect(&r, "@gateway attach 1 ro");
    rig_expect(&r, "@gateway ready 1");
    rig_expect(&r, "worker is ready");
    rig_check_answer(rig_dial(port));
    CHECK(kill(r.pid, SIGTERM) == 0);
    rig_expect(&r, "@gateway drain 20000");
    rig_expect(&r, "@worker drain ");
    rig_expect(&r, "@worker ends");
    CHECK_INT(rig_wait(&r), 0);
    CHECK(!rig_is_alive(worker));
    close(77);
    close(stray);
}

static void test_version_and_epoch(void)
{
    rig_plan("", "badversion");
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "worker is of version 9.9.9");
    CHECK_INT(rig_wait(&r), 30);
    rig_plan("badversion", "");
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "gateway is of version 9.9.9");
    CHECK_INT(rig_wait(&r), 30);
    rig_plan("", "badepoch");
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "its own fault: it greets as pid");
    kill(r.pid, SIGKILL);
    rig_wait(&r);
}

/* What systemd is told, in which order. */
static void test_systemd(void)
{
    char path[64], text[256];
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    snprintf(path, sizeof(path), "%s/notify", rig_dir());
    strcpy(sa.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0);
    setenv("NOTIFY_SOCKET", path, 1);
    setenv("WATCHDOG_USEC", "90000", 1);
    rig_plan("", "");
    rig_serve(&r, NULL, NULL);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    static const char *const want[] = {"WATCHDOG=1",  "READY=1", "WATCHDOG=1", "WATCHDOG=1",
                                       "RELOADING=1", "READY=1", "STOPPING=1"};
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        do { /* WATCHDOG=1 comes between all of them */
            ssize_t n = recv(fd, text, sizeof(text) - 1, 0);
            CHECK(n > 0);
            text[n] = '\0';
        } while (strncmp(text, want[i], strlen(want[i])) != 0 && strstr(text, "WATCHDOG=1"));
        if (strncmp(text, want[i], strlen(want[i])) != 0) {
            TEST_FAIL("systemd is told \"%s\", expected \"%s\"", text, want[i]);
        }
        if (i == 3) {
            CHECK(kill(r.pid, SIGHUP) == 0);
        } else if (i == 5) {
            CHECK(kill(r.pid, SIGTERM) == 0);
        }
    }
    CHECK(!memmem(r.buf, r.n, "could speak", 11));
    CHECK_INT(rig_wait(&r), 0);
    close(fd);
    CHECK(unlink(path) == 0);
}

static void test_drain_has_a_bound(void)
{
    rig_plan("nodrain", "nodrain");
    rig_serve_ready(&r, "--drain-timeout", "0.2");
    uint64_t t0 = clock_ms();
    rig_stop(&r);
    CHECK(clock_ms() - t0 >= 200 && clock_ms() - t0 < 10000);
    /* A worker that dies meanwhile is not started again. */
    rig_plan("nodrain", "nodrain");
    pid_t worker = rig_serve_ready(&r, "--drain-timeout", "1");
    CHECK(kill(r.pid, SIGTERM) == 0);
    rig_expect(&r, "@gateway drain 1000");
    CHECK(kill(worker, SIGKILL) == 0);
    rig_expect(&r, "@gateway detach 1 shutting_down");
    CHECK_INT(rig_wait(&r), 0);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, mode);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static void test_reload(void)
{
    char conf[128], keys[128], line[300];
    snprintf(conf, sizeof(conf), "%s/test.conf", rig_dir());
    snprintf(keys, sizeof(keys), "%s/keys", rig_dir());
    snprintf(line, sizeof(line), "queue_size = 5\napi_key_file = %s\n", keys);
    write_file(conf, line, 0600);
    write_file(keys, "first\n", 0600);
    rig_plan("", "");
    rig_serve_ready(&r, "--config", conf);
    write_file(conf, "queue_size = nonsense\n", 0600);
    CHECK(kill(r.pid, SIGHUP) == 0);
    rig_expect(&r, "reload failed, the old settings stay");
    CHECK(strstr(r.line, "test.conf, line 1"));
    snprintf(line, sizeof(line), "queue_size = 6\nhost = ::1\napi_key_file = %s\n", keys);
    write_file(conf, line, 0600);
    write_file(keys, "second\n", 0600);
    CHECK(kill(r.pid, SIGHUP) == 0);
    rig_expect(&r, "a change of 'host' needs a restart");
    rig_expect(&r, "@gateway config 2 queue_size=6 keys=second");
    /* A gateway started later is given the keys as well, from the start of the file. */
    CHECK(unlink(keys) == 0);
    rig_stop(&r);
    write_file(keys, "third\n", 0600);
    rig_plan("diesonce", "");
    rig_serve(&r, "--config", conf);
    rig_expect(&r, "@gateway config 1 queue_size=6 keys=third");
    CHECK(unlink(keys) == 0);
    rig_expect(&r, "@gateway config 1 queue_size=6 keys=third");
    rig_expect(&r, "@gateway ready 2");
    rig_stop(&r);
    rig_serve(&r, "--config", conf); /* never without the keys that were asked for */
    rig_expect(&r, "api_key_file");
    CHECK_INT(rig_wait(&r), 11);
    CHECK(unlink(conf) == 0);
}

static void test_address_in_use(void)
{
    char port[16];
    rig_plan("", "");
    struct sockaddr_in sa = {.sin_family = AF_INET};
    socklen_t len = sizeof(sa);
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(fd, (struct sockaddr *)&sa, len) == 0 && listen(fd, 1) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&sa, &len) == 0);
    snprintf(port, sizeof(port), "%d", ntohs(sa.sin_port));
    const char *args[] = {"serve", "--port", port, "-m", "x", NULL};
    rig_start(&r, args);
    rig_expect(&r, "is taken by another program");
    CHECK_INT(rig_wait(&r), 75);
    close(fd);
}

static void test_bulk(void)
{
    rig_plan("bulk stalebulk", "");
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "@worker bulk 1: a long prompt");
    usleep(50 * 1000);
    CHECK(kill(r.pid, SIGTERM) == 0);
    rig_expect(&r, "@worker drain"); /* the one of another epoch did not come */
    CHECK_INT(rig_wait(&r), 0);
    /* More than the worker's channel holds: the gateway waits, nothing is lost. */
    rig_plan("bulk flood", "");
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "@worker bulk 2000: a long prompt");
    rig_stop(&r);
}

static void test_preflight(void)
{
    rig_plan("", "preflight");
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "@probe start");
    rig_expect(&r, "@probe arg 1"); /* epoch */
    rig_expect(&r, "@probe arg 1"); /* device */
    rig_expect(&r, "preflight stage environment passed");
    rig_expect(&r, "@worker verdict 0 from the probe");
    rig_expect(&r, "worker is ready");
    rig_stop(&r);
    setenv("DUMMY_PROBE", "refuses", 1);
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "@worker verdict -");
    CHECK(strstr(r.line, "from the probe"));
    rig_stop(&r);
    setenv("DUMMY_PROBE", "dies", 1);
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "@worker verdict -");
    CHECK(strstr(r.line, "the probe exited with 9"));
    rig_stop(&r);
    /* The real probe: no build has GPU kernels yet, so its verdict is no, with or without a card.
     */
    char path[128], moved[128];
    snprintf(path, sizeof(path), "%s/rocmforge-probe", rig_dir());
    snprintf(moved, sizeof(moved), "%s/moved", rig_dir());
    CHECK(rename(path, moved) == 0 && symlink(real_probe, path) == 0);
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "preflight stage environment passed");
    rig_expect(&r, "@worker verdict -");
    rig_expect(&r, "worker is ready");
    rig_stop(&r);
    CHECK(rename(moved, path) == 0);
}

static void test_terminal(void)
{
    rig_plan("", "");
    const char *args[] = {"run", "-m", "x", "--temp", "0.5", "-p", "-m", "-t", "2", NULL};
    setenv("DUMMY_TERMINAL", "7", 1);
    rig_start(&r, args);
    rig_expect(&r, "@gateway start");
    CHECK(strstr(r.line, "pgrp shared sigint default"));
    static const char *const want[] = {"--terminal", "run", "--temp", "0.5", "-p", "-m"};
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        char line[64];
        snprintf(line, sizeof(line), "@gateway arg %s", want[i]);
        rig_expect(&r, "@gateway ");
        CHECK_STR(r.line, line);
    }
    rig_expect(&r, "@gateway terminal done");
    CHECK_INT(rig_wait(&r), 7);
    unsetenv("DUMMY_TERMINAL");
    /* Ctrl-C is the front's business. */
    const char *chat[] = {"chat", "-m", "x", "--log-level", "info", NULL};
    rig_start(&r, chat);
    rig_expect(&r, "@gateway ready 1");
    CHECK(kill(r.pid, SIGINT) == 0);
    usleep(100 * 1000);
    CHECK(rig_is_alive(r.pid));
    CHECK(kill(r.pid, SIGTERM) == 0);
    rig_expect(&r, "@gateway ends");
    CHECK_INT(rig_wait(&r), 0);
    /* A worker that cannot load ends the command with its code. */
    rig_plan("", "exit16");
    const char *run[] = {"-m", "x", "-p", "hello", NULL};
    rig_start(&r, run);
    rig_expect(&r, "@gateway arg run");
    rig_expect(&r, "could not start");
    CHECK_INT(rig_wait(&r), 16);
}

static void test_missing_program(void)
{
    char path[128], moved[128];
    snprintf(path, sizeof(path), "%s/rocmforge-worker", rig_dir());
    snprintf(moved, sizeof(moved), "%s/moved", rig_dir());
    CHECK(rename(path, moved) == 0);
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "rocmforge-worker; install all rocmforge programs together");
    CHECK_INT(rig_wait(&r), 1);
    CHECK(rename(moved, path) == 0);
}

int main(int argc, char **argv)
{
    rig_init(argc, argv);
    real_probe = argv[3];
    test_start_and_stop();
    test_version_and_epoch();
    test_systemd();
    test_drain_has_a_bound();
    test_reload();
    test_address_in_use();
    test_bulk();
    test_preflight();
    test_terminal();
    test_missing_program();
    rig_clean();
    return 0;
}
