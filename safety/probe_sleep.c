/* logind by way of sd-bus (see probe_sleep.h). One thread; calls are asynchronous. The declarations
 * are those of systemd/sd-bus.h, which the build need not have. */
#include "safety/probe_sleep.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define LOGIND "org.freedesktop.login1"
#define LOGIND_PATH "/org/freedesktop/login1"
#define LOGIND_MANAGER "org.freedesktop.login1.Manager"

typedef int handler_fn(void *message, void *arg, void *error);

static struct {
    int (*open_system)(void **ret);
    int (*match_signal)(void *bus, void **slot, const char *sender, const char *path,
                        const char *interface, const char *member, handler_fn *on_signal,
                        handler_fn *on_installed, void *arg);
    int (*call_method)(void *bus, void **slot, const char *destination, const char *path,
                       const char *interface, const char *member, handler_fn *on_reply, void *arg,
                       const char *types, ...);
    int (*process)(void *bus, void **ret);
    int (*get_fd)(void *bus);
    int (*read)(void *message, const char *types, ...);
    void *bus;
    int inhibitor;
    enum sleep_news news;
} sd = {.inhibitor = -1};

static const struct {
    const char *name;
    void *to;
} symbols[] = {
    {"sd_bus_open_system", &sd.open_system},
    {"sd_bus_match_signal_async", &sd.match_signal},
    {"sd_bus_call_method_async", &sd.call_method},
    {"sd_bus_process", &sd.process},
    {"sd_bus_get_fd", &sd.get_fd},
    {"sd_bus_message_read", &sd.read},
};

static int on_inhibited(void *message, void *arg, void *error)
{
    int fd = -1;
    (void)arg;
    (void)error;
    if (sd.read(message, "h", &fd) > 0 && fd >= 0) {
        sleep_release();
        sd.inhibitor = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* the message closes its own */
    }
    return 0;
}

static int inhibit(void)
{
    return sd.call_method(sd.bus, NULL, LOGIND, LOGIND_PATH, LOGIND_MANAGER, "Inhibit",
                          on_inhibited, NULL, "ssss", "sleep", "rocmforge",
                          "the models leave the GPU", "delay");
}

static int on_sleep(void *message, void *arg, void *error)
{
    int begins = 0;
    (void)arg;
    (void)error;
    if (sd.read(message, "b", &begins) > 0) {
        sd.news = begins ? SLEEP_BEGINS : SLEEP_ENDED;
        if (!begins) {
            (void)inhibit();
        }
    }
    return 0;
}

int sleep_open(void)
{
    void *library = dlopen("libsystemd.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        return -ENOSYS;
    }
    for (size_t i = 0; i < COUNT_OF(symbols); i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol) {
            return -ENOSYS;
        }
        memcpy(symbols[i].to, &symbol, sizeof(symbol));
    }
    int rc = sd.open_system(&sd.bus);
    if (rc >= 0) {
        rc = sd.match_signal(sd.bus, NULL, LOGIND, LOGIND_PATH, LOGIND_MANAGER, "PrepareForSleep",
                             on_sleep, NULL, NULL);
    }
    if (rc >= 0) {
        rc = inhibit();
    }
    if (rc < 0) {
        sd.bus = NULL; /* not closed: that could wait */
    }
    return MIN(rc, 0);
}

int sleep_fd(void)
{
    return sd.bus ? sd.get_fd(sd.bus) : -1;
}

enum sleep_news sleep_process(void)
{
    int rc = 0;
    while (sd.bus && (rc = sd.process(sd.bus, NULL)) > 0 && sd.news == SLEEP_NONE) {
    }
    if (rc < 0) { /* the bus is gone */
        sd.bus = NULL;
    }
    enum sleep_news news = sd.news;
    sd.news = SLEEP_NONE;
    return news;
}

void sleep_release(void)
{
    if (sd.inhibitor >= 0) {
        close(sd.inhibitor);
        sd.inhibitor = -1;
    }
}
