/* The supervisor on a terminal (a pseudo-terminal of ours): Ctrl-C, a front that crashes, a window
 * that is closed. */
#include "tests/safety/rig.h"
#include "shared/base.h"

#include <errno.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>

static const char *program;
static struct rig r; /* log_fd is the terminal's other side */

static void start(const char *command)
{
    memset(&r, 0, sizeof(r));
    r.pid = forkpty(&r.log_fd, NULL, NULL, NULL);
    if (r.pid < 0) {
        TEST_SKIP("no pseudo-terminal can be had (%s); mount devpts", strerror(errno));
    }
    if (r.pid == 0) {
        setenv("XDG_CONFIG_HOME", rig_dir(), 1);
        execl(program, program, "--libexec", rig_dir(), command, "-m", "x", "--port", "0",
              "--log-level", "info", NULL);
        _exit(127);
    }
}

static int wait_end(void)
{
    int status;
    CHECK(waitpid(r.pid, &status, 0) == r.pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void test_ctrl_c_is_the_fronts(void)
{
    rig_plan("", "");
    start("chat");
    rig_expect(&r, "@gateway ready");
    rig_expect(&r, "worker is ready");
    CHECK(write(r.log_fd, "\x03", 1) == 1);
    rig_expect(&r, "@gateway Ctrl-C");
    usleep(50 * 1000);
    CHECK(rig_is_alive(r.pid));
    CHECK(kill(r.pid, SIGTERM) == 0);
    rig_expect(&r, "@gateway ends");
    CHECK(!memmem(r.buf, r.n, "@worker Ctrl-C", 14));
    close(r.log_fd);
    CHECK_INT(wait_end(), 0);
}

static void test_terminal_is_restored(void)
{
    struct termios before, raw, after;
    rig_plan("raw", "");
    start("chat");
    CHECK(tcgetattr(r.log_fd, &before) == 0);
    rig_expect(&r, "@gateway start");
    pid_t front = (pid_t)rig_number(&r, "pid ");
    rig_expect(&r, "@gateway is raw");
    CHECK(tcgetattr(r.log_fd, &raw) == 0 && !(raw.c_lflag & ECHO));
    CHECK(kill(front, SIGKILL) == 0);
    rig_expect(&r, "stopped");
    CHECK_INT(wait_end(), 128 + SIGKILL);
    CHECK(tcgetattr(r.log_fd, &after) == 0);
    CHECK(after.c_lflag == before.c_lflag && after.c_iflag == before.c_iflag);
    close(r.log_fd);
}

/* For a server SIGHUP means reload, but not when the window it was started in is closed. */
static void test_closed_window_ends_the_server(void)
{
    rig_plan("", "");
    start("serve");
    rig_expect(&r, "worker is ready");
    CHECK(kill(r.pid, SIGHUP) == 0);
    rig_expect(&r, "settings and API keys are reloaded");
    close(r.log_fd);
    CHECK_INT(wait_end(), 0);
}

int main(int argc, char **argv)
{
    rig_init(argc, argv);
    program = argv[1];
    test_ctrl_c_is_the_fronts();
    test_terminal_is_restored();
    test_closed_window_ends_the_server();
    rig_clean();
    return 0;
}
