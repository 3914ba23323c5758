/* Hearing the kernel's uevents (see uevent.h). Never blocks. */
#include "safety/uevent.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { KERNEL_GROUP = 1, MESSAGE_BYTES = 8192 };

static int open_socket(int family, int protocol, const struct sockaddr *address, socklen_t len)
{
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
    if (fd >= 0 && bind(fd, address, len) != 0) {
        int err = errno;
        close(fd);
        return -err;
    }
    return fd >= 0 ? fd : -errno;
}

int uevent_open(const char *root)
{
    if (!*root) {
        struct sockaddr_nl kernel = {.nl_family = AF_NETLINK, .nl_groups = KERNEL_GROUP};
        return open_socket(AF_NETLINK, NETLINK_KOBJECT_UEVENT, (struct sockaddr *)&kernel,
                           sizeof(kernel));
    }
    struct sockaddr_un made_up = {.sun_family = AF_UNIX};
    int n = snprintf(made_up.sun_path, sizeof(made_up.sun_path), "%s/run/uevents", root);
    if (n >= (int)sizeof(made_up.sun_path)) {
        return -ENAMETOOLONG;
    }
    (void)unlink(made_up.sun_path);
    return open_socket(AF_UNIX, 0, (struct sockaddr *)&made_up, sizeof(made_up));
}

/* The value of NAME; "" without one. Every string of the text is ended within it. */
static const char *value(const char *text, size_t n, const char *name)
{
    size_t len = strlen(name);
    for (size_t at = 0; at < n; at += strlen(text + at) + 1) {
        if (strncmp(text + at, name, len) == 0 && text[at + len] == '=') {
            return text + at + len + 1;
        }
    }
    return "";
}

/* Is the card one of the folders of the path? */
static bool is_below(const char *path, const char *pci)
{
    size_t n = strlen(pci);
    for (const char *at = path; *pci && (at = strstr(at, pci)); at++) {
        if (at > path && at[-1] == '/' && (at[n] == '/' || at[n] == '\0')) {
            return true;
        }
    }
    return false;
}

void uevent_parse(const char *text, size_t n, const char *pci, struct uevent *ret)
{
    *ret = (struct uevent){.kind = UEVENT_OTHER};
    if (n == 0 || text[n - 1] != '\0' || !is_below(value(text, n, "DEVPATH"), pci)) {
        return;
    }
    const char *action = value(text, n, "ACTION"), *subsystem = value(text, n, "SUBSYSTEM");
    const char *wedged = value(text, n, "WEDGED");
    if (strcmp(subsystem, "drm") == 0 && *wedged) {
        ret->kind = strcmp(wedged, "none") == 0 ? UEVENT_RECOVERED : UEVENT_WEDGED;
        ret->pid = (uint32_t)strtoul(value(text, n, "PID"), NULL, 10);
        for (size_t i = 0; i + 1 < sizeof(ret->remedy) && wedged[i]; i++) {
            bool is_plain = wedged[i] > ' ' && wedged[i] < 127;
            ret->remedy[i] = (char)(is_plain ? wedged[i] : '?');
        }
    } else if (strcmp(subsystem, "pci") == 0 && strcmp(action, "bind") == 0) {
        ret->kind = UEVENT_BACK;
    }
}

int uevent_read(int fd, const char *pci, struct uevent *ret)
{
    char text[MESSAGE_BYTES];
    struct sockaddr_storage from;
    for (;;) {
        struct iovec part = {.iov_base = text, .iov_len = sizeof(text)};
        struct msghdr m = {
            .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &part, .msg_iovlen = 1};
        memset(&from, 0, sizeof(from));
        ssize_t n = recvmsg(fd, &m, 0);
        if (n < 0 && errno != ENOBUFS && errno != EINTR) {
            return 0; /* (too many at once: those lost are gone) */
        }
        const struct sockaddr_nl *sender = (const struct sockaddr_nl *)(const void *)&from;
        bool is_kernel = from.ss_family != AF_NETLINK || sender->nl_pid == 0;
        if (n > 0 && is_kernel && !(m.msg_flags & MSG_TRUNC)) {
            uevent_parse(text, (size_t)n, pci, ret);
            if (ret->kind != UEVENT_OTHER) {
                return 1;
            }
        }
    }
}
