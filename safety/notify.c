/* sd_notify; runs in the supervisor. Never blocks. */
#include "safety/notify.h"
#include "shared/num.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { NOTIFY_BYTES = 1024 };

static struct sockaddr_un notify_address;
static socklen_t notify_address_len; /* 0: nobody to tell */
static int notify_fd = -1;
static uint64_t notify_interval_ms;

static uint64_t take_number(const char *name)
{
    const char *text = getenv(name);
    uint64_t n = 0;
    if (text && !num_parse_u64(text, &n)) {
        n = 0;
    }
    return n;
}

void notify_init(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    size_t n = path ? strlen(path) : 0;
    if (n > 1 && (*path == '/' || *path == '@') && n < sizeof(notify_address.sun_path)) {
        notify_address.sun_family = AF_UNIX;
        memcpy(notify_address.sun_path, path, n);
        if (*path == '@') { /* an abstract address */
            notify_address.sun_path[0] = '\0';
        }
        notify_address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
        notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    }
    uint64_t pid = take_number("WATCHDOG_PID");
    if (pid == 0 || pid == (uint64_t)getpid()) {
        notify_interval_ms = take_number("WATCHDOG_USEC") / 1000;
    }
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

void notify_send(const char *fmt, ...)
{
    if (notify_fd < 0) {
        return;
    }
    char text[NOTIFY_BYTES];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : MIN((size_t)n, sizeof(text) - 1);
    (void)!sendto(notify_fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL,
                  (const struct sockaddr *)&notify_address, notify_address_len);
}

uint64_t notify_watchdog_ms(void)
{
    return notify_interval_ms;
}
