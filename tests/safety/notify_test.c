/* What systemd receives, seen from its side of the socket. */
#include "safety/notify.h"
#include "tests/test.h"

#include <sys/socket.h>
#include <sys/un.h>

static int listen_as_systemd(const struct sockaddr_un *sa, socklen_t len)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    CHECK(bind(fd, (const struct sockaddr *)sa, len) == 0);
    return fd;
}

static void check_message(int fd, const char *want)
{
    char text[1200] = {0};
    CHECK(recv(fd, text, sizeof(text) - 1, 0) > 0);
    CHECK_STR(text, want);
}

int main(void)
{
    notify_send("READY=1"); /* nobody to tell */
    notify_init();
    notify_send("READY=1");
    CHECK_INT(notify_watchdog_ms(), 0);

    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    snprintf(sa.sun_path, sizeof(sa.sun_path), "/tmp/rocmforge-notify-%d", (int)getpid());
    int fd = listen_as_systemd(&sa, sizeof(sa));
    char pid[16];
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    setenv("NOTIFY_SOCKET", sa.sun_path, 1);
    setenv("WATCHDOG_USEC", "10000000", 1);
    setenv("WATCHDOG_PID", pid, 1);
    notify_init();
    CHECK_INT(notify_watchdog_ms(), 10000);
    CHECK(!getenv("NOTIFY_SOCKET") && !getenv("WATCHDOG_USEC") && !getenv("WATCHDOG_PID"));
    notify_send("READY=1\nSTATUS=epoch %d", 3);
    check_message(fd, "READY=1\nSTATUS=epoch 3");
    for (int i = 0; i < 5000; i++) { /* a systemd that does not read must not block us */
        notify_send("WATCHDOG=1");
    }
    check_message(fd, "WATCHDOG=1");
    close(fd);
    notify_send("READY=1"); /* gone */
    unlink(sa.sun_path);

    /* An abstract socket; a watchdog meant for another process. */
    sa.sun_path[0] = '\0';
    fd = listen_as_systemd(
        &sa, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(sa.sun_path + 1)));
    sa.sun_path[0] = '@';
    setenv("NOTIFY_SOCKET", sa.sun_path, 1);
    setenv("WATCHDOG_USEC", "10000000", 1);
    setenv("WATCHDOG_PID", "1", 1);
    notify_init();
    notify_send("STOPPING=1");
    check_message(fd, "STOPPING=1");
    return 0;
}
