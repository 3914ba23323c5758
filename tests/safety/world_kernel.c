/* What the supervisor calls in place of the kernel: clocks, descriptors, memory that is shared,
 * systemd, what is remembered on disk (see world.h). */
#include "ipc/memfd.h"
#include "safety/epoch.h"
#include "safety/ladder.h"
#include "safety/listen.h"
#include "safety/notify.h"
#include "safety/oom.h"
#include "safety/remember.h"
#include "safety/tail.h"
#include "shared/clock.h"
#include "shared/log.h"
#include "tests/safety/world.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/signalfd.h>


uint64_t clock_ns(void)
{
    return w.now_ms * 1000000;
}
uint64_t clock_unix_ns(void)
{
    return clock_ns();
}
int64_t clock_unix_s(void)
{
    return (int64_t)(w.now_ms / 1000);
}
void log_init(const char *who, enum log_level level, enum log_format format)
{
    (void)who, (void)level, (void)format;
}
int log_fd(void)
{
    return -1;
}
bool log_enabled(enum log_level level)
{
    (void)level;
    return false;
}
void log_event(enum log_level level, const char *fmt, ...)
{
    (void)level;
    if (world_is_loud) {
        va_list ap;
        va_start(ap, fmt);
        fprintf(stderr, "%8llu ", (unsigned long long)w.now_ms);
        vfprintf(stderr, fmt, ap);
        fputc('\n', stderr);
        va_end(ap);
    }
}
void notify_init(void)
{
}
void notify_send(const char *fmt, ...)
{
    (void)fmt;
}
uint64_t notify_watchdog_ms(void)
{
    return 0;
}
uint64_t oom_kills(const char *root)
{
    (void)root;
    return w.oom;
}
void remember_key(const struct config *c, char ret[REMEMBER_KEY_BYTES])
{
    (void)c;
    strcpy(ret, "key");
}
void remember_line(const char *key, const struct ladder *l, int64_t unix_s,
                   char ret[REMEMBER_LINE_BYTES])
{
    (void)key, (void)l, (void)unix_s;
    strcpy(ret, "line");
}
void remember_read(const char *dir, const char *key, struct ladder *ret, uint64_t now_ms)
{
    (void)dir, (void)key;
    ladder_init(ret, (uint32_t)roll(LADDER_RUNGS), 0, now_ms);
}
void tail_start(struct tail *t)
{
    t->n = 0;
}
bool tail_read(struct tail *t, int fd, int out_fd, bool is_last, uint64_t now_ms)
{
    (void)t, (void)fd, (void)out_fd, (void)is_last, (void)now_ms;
    return false;
}
size_t tail_copy(const struct tail *t, char ret[TAIL_BYTES])
{
    (void)t, (void)ret;
    return 0;
}
int memfd_create_const(const char *name, const void *data, size_t bytes)
{
    (void)name, (void)data, (void)bytes;
    return FD0 + 100000;
}
int memfd_create_shared(const char *name, size_t bytes)
{
    (void)name, (void)bytes;
    return -ENOSYS;
}
int memfd_map(int fd, size_t min, size_t max, bool is_const, bool writable, void **ret_map,
              size_t *ret_bytes)
{
    (void)is_const, (void)writable;
    if (fd < MAP_FD) {
        return -ENOSYS;
    }
    struct world_epoch *ep = &epochs[(fd - MAP_FD) / EPOCH_FDS];
    int which = (fd - MAP_FD) % EPOCH_FDS;
    *ret_map = which == EPOCH_REQUEST_RING ? ep->requests
               : which == EPOCH_EVENT_RING ? ep->events
                                           : ep->page_bytes;
    *ret_bytes = which == EPOCH_STATUS ? sizeof(ep->page_bytes) : sizeof(ep->requests);
    if (*ret_bytes < min || *ret_bytes > max) {
        WRONG("a mapping of the wrong size");
    }
    return 0;
}
void memfd_unmap(void *map, size_t bytes)
{
    (void)map, (void)bytes;
}
int memfd_check(int fd, size_t min, size_t max, bool is_const, size_t *ret_bytes)
{
    (void)fd, (void)min, (void)max, (void)is_const, (void)ret_bytes;
    return -ENOSYS;
}
void epoch_init(struct epoch *ep)
{
    *ep = (struct epoch){.status_read_fd = -1};
}
int epoch_create(struct epoch *ep, uint64_t id, const struct status_pace *pace)
{
    struct world_epoch *memory = world_epoch(id);
    ring_format(memory->requests, RING_BYTES, id);
    ring_format(memory->events, RING_BYTES, id);
    memset(&memory->page, 0, sizeof(memory->page));
    status_format(&memory->page, id);
    status_pass_pace(pace, &memory->page);
    epoch_init(ep);
    ep->id = id;
    ep->page = &memory->page;
    return 0;
}
void epoch_close(struct epoch *ep)
{
    epoch_init(ep);
}
bool epoch_bell_rings(const struct epoch *ep)
{
    return gateway_is_waiting(ep->id);
}
int epoch_attach(const struct epoch *ep, struct channel *c)
{
    struct msg_attach m = {.epoch = ep->id};
    return channel_send(c, MSG_ATTACH, ep->id, &m, sizeof(m), NULL, 0);
}

int __wrap_close(int fd);
int __wrap_close(int fd)
{
    (void)fd;
    return 0;
}
int __wrap_fcntl(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, ...)
{
    (void)fd, (void)cmd;
    return -1;
}
int __wrap_signalfd(int fd, const sigset_t *set, int flags);
int __wrap_signalfd(int fd, const sigset_t *set, int flags)
{
    (void)fd, (void)set, (void)flags;
    return SIGNAL_FD;
}
ssize_t __wrap_read(int fd, void *buf, size_t n);
ssize_t __wrap_read(int fd, void *buf, size_t n)
{
    if (fd != SIGNAL_FD || w.signal == 0) {
        return -1;
    }
    struct signalfd_siginfo info = {.ssi_signo = (uint32_t)w.signal};
    memcpy(buf, &info, MIN(n, sizeof(info)));
    w.wedged_ms = w.signal == SIGHUP ? 0 : w.wedged_ms; /* it forgives the card */
    w.signal = 0;
    return (ssize_t)n;
}

int __wrap_access(const char *path, int mode);
int __wrap_access(const char *path, int mode)
{
    (void)path, (void)mode;
    return 0;
}
void listen_init(struct listen_set *s)
{
    memset(s, 0, sizeof(*s));
}
int listen_tcp(struct listen_set *s, const char *host, uint16_t port, struct err *e)
{
    (void)s, (void)host, (void)port, (void)e;
    return 0;
}
int listen_unix(struct listen_set *s, const char *path, struct err *e)
{
    (void)s, (void)path, (void)e;
    return 0;
}
void listen_close(struct listen_set *s)
{
    (void)s;
}
