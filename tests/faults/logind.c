/* A stand-in for logind on a bus of the test's own: hands out delay inhibitors, says on SIGUSR1
 * that the machine is about to sleep and on SIGUSR2 that it woke. Writes what happens to stdout, a
 * line each. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

static int held = -1; /* our end of the newest inhibitor; readable when it is released */

static void say(const char *word)
{
    printf("%s\n", word);
    fflush(stdout);
}

static int on_inhibit(sd_bus_message *m, void *arg, sd_bus_error *error)
{
    int ends[2];
    (void)arg;
    (void)error;
    if (pipe(ends) != 0) {
        return -1;
    }
    held = ends[0];
    say("inhibited");
    int rc = sd_bus_reply_method_return(m, "h", ends[1]);
    close(ends[1]);
    return rc;
}

static const sd_bus_vtable vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD("Inhibit", "ssss", "h", on_inhibit, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_SIGNAL("PrepareForSleep", "b", 0),
    SD_BUS_VTABLE_END,
};

int main(void)
{
    sd_bus *bus = NULL;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int signals = signalfd(-1, &set, 0);
    if (sd_bus_open_system(&bus) < 0 ||
        sd_bus_add_object_vtable(bus, NULL, "/org/freedesktop/login1",
                                 "org.freedesktop.login1.Manager", vtable, NULL) < 0 ||
        sd_bus_request_name(bus, "org.freedesktop.login1", 0) < 0) {
        return 1;
    }
    say("ready");
    for (;;) {
        while (sd_bus_process(bus, NULL) > 0) {
        }
        struct pollfd polls[] = {
            {sd_bus_get_fd(bus), POLLIN, 0}, {signals, POLLIN, 0}, {held, POLLIN, 0}};
        if (poll(polls, 3, -1) < 0) {
            continue;
        }
        struct signalfd_siginfo info;
        if ((polls[1].revents & POLLIN) && read(signals, &info, sizeof(info)) == sizeof(info)) {
            sd_bus_emit_signal(bus, "/org/freedesktop/login1", "org.freedesktop.login1.Manager",
                               "PrepareForSleep", "b", info.ssi_signo == SIGUSR1);
            sd_bus_flush(bus);
        }
        if (polls[2].revents) {
            close(held);
            held = -1;
            say("released");
        }
    }
}
