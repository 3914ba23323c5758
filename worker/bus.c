/* The handler of SIGBUS (see bus.h). Any thread. It may be anywhere in our code, so nothing here
 * allocates or takes a lock. */
#include "worker/bus.h"

#include "shared/err.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct attach *attach;

/* What is mapped at an address, by its line in /proc/self/maps; "" if nothing is known. */
static void find_mapping(uintptr_t at, char *ret, size_t bytes)
{
    static char text[64 * 1024]; /* (one handler comes here: it ends the process) */
    size_t n = 0;
    *ret = 0;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    for (ssize_t got; fd >= 0 && (got = read(fd, text + n, sizeof(text) - 1 - n)) > 0;) {
        n += (size_t)got;
        text[n] = 0;
        char *line = text, *end;
        for (; (end = strchr(line, '\n')); line = end + 1) {
            char *next;
            uintptr_t from = strtoul(line, &next, 16), to = strtoul(next + 1, NULL, 16);
            const char *path = memchr(line, '/', (size_t)(end - line));
            if (at >= from && at < to && path) {
                snprintf(ret, bytes, "%.*s", (int)(end - path), path);
            }
        }
        n -= (size_t)(line - text);
        memmove(text, line, n);
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void on_bus(int signal_number, siginfo_t *info, void *context)
{
    static atomic_flag is_ending = ATOMIC_FLAG_INIT;
    (void)context;
    if (info->si_code <= 0) { /* sent by a process, no access of ours */
        (void)signal(signal_number, SIG_DFL);
        (void)raise(signal_number);
        return; /* and dies of it as soon as the handler's mask is lifted */
    }
    while (atomic_flag_test_and_set(&is_ending)) {
        pause(); /* all threads of the pool read the same weights; the first of them says why */
    }
    char path[256];
    find_mapping((uintptr_t)info->si_addr, path, sizeof(path));
    bool is_store = !*path || strncmp(path, "/memfd:", 7) == 0;
    int code = is_store ? ERR_NO_MEMORY : ERR_MODEL_CHANGED;
    struct status_page *page = attach->status;
    if (page && is_store) {
        status_last_words(page, "%s: a page of %s", err_text(code), *path ? path : "shared memory");
    } else if (page) {
        status_last_words(page, "%s: %s cannot be read any more", err_text(code), path);
    }
    _exit(err_exit_code(code));
}

void bus_guard(const struct attach *a)
{
    attach = a;
    struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
}
