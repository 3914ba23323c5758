/* The supervisor's policy under random schedules: the real supervisor (loop, dialog, launching,
 * deaths, watchdog, ladder, crash reports) in a made-up world of processes, channels and time.
 * Everything that a kernel would do is done here (--wrap and the fakes below): children greet,
 * load, work, hang, die of themselves, are killed by others or by the kernel, do not die of
 * SIGKILL, clocks jump. After every step the invariants are checked; at the end faults stop, a
 * worker must come, and SIGTERM must end it all. The seed of a schedule is printed when it fails.
 *
 *     safety_simulation_test [SCHEDULES [FIRST_SEED]] */
#include "ipc/memfd.h"
#include "safety/crash.h"
#include "safety/ladder.h"
#include "safety/notify.h"
#include "safety/oom.h"
#include "safety/remember.h"
#include "safety/supervisor.h"
#include "shared/clock.h"
#include "shared/log.h"
#include "tests/test.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/signalfd.h>
#include <time.h>

enum { N_PROCS = 24, QUEUE = 16, FD0 = 1000000, SIGNAL_FD = FD0 - 1, STEPS = 120 };
enum role { GATEWAY, WORKER, PROBE, REPORTER, CLERK, MONITOR };

static struct proc {
    bool exists, is_zombie, is_hung, is_unkillable, is_killed, has_gpu, has_config;
    bool is_external;   /* somebody else killed it */
    bool gives_cause;   /* it gives cause to be ended */
    bool was_signalled; /* by the supervisor */
    enum role role;
    pid_t pid;
    int exit_code, signal;
    uint64_t start_ms, next_ms, killed_ms, epoch;
    int stage;
    struct channel_msg *out[QUEUE]; /* to the supervisor; borrowed from the pool */
    size_t n_out;
} procs[N_PROCS];

static struct world {
    uint64_t seed, rng, now_ms, jumped_ms, idle_since_ms, faults_until_ms, end_ms, last_epoch;
    int n_steps, n_fds;
    pid_t next_pid;
    bool is_calm, is_ending, has_gpu;
    uint64_t danger;   /* of a hundred steps of a worker, those above this are its last */
    int dead_signal;   /* how the last worker ended */
    bool dead_outside; /* by somebody else */
    bool dead_healthy; /* nobody had signalled it */
    int signal;
    uint64_t oom;
    struct status_page pages[2];
    uint64_t n_epochs;
    uint64_t attached; /* epoch that the front has */
    uint64_t ready_ms;
} w;

static struct channel_msg pool[64];
static size_t n_pool;
static uint64_t n_total_steps, n_deaths, n_ready;

#define WRONG(...)                                                                                 \
    do {                                                                                           \
        fprintf(stderr, "seed %llu, %llu ms: ", (unsigned long long)w.seed,                        \
                (unsigned long long)w.now_ms);                                                     \
        TEST_FAIL(__VA_ARGS__);                                                                    \
    } while (0)

static uint64_t roll(uint64_t n) /* 0 .. n-1; splitmix64 */
{
    uint64_t z = (w.rng += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % n;
}

static bool chance(uint64_t one_in)
{
    return !w.is_calm && roll(one_in) == 0;
}

/* ---- what the supervisor calls in place of the kernel ---- */

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
static bool is_loud;
void log_init(const char *who, enum log_level level, enum log_format format)
{
    (void)who, (void)level, (void)format;
}
bool log_enabled(enum log_level level)
{
    (void)level;
    return false;
}
void log_event(enum log_level level, const char *fmt, ...)
{
    (void)level;
    if (is_loud) {
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
    w.n_fds++;
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
    (void)fd, (void)min, (void)max, (void)is_const, (void)writable, (void)ret_map, (void)ret_bytes;
    return -ENOSYS;
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
int epoch_create(struct epoch *ep, uint64_t id)
{
    struct status_page *page = &w.pages[w.n_epochs++ % 2];
    memset(page, 0, sizeof(*page));
    epoch_init(ep);
    ep->id = id;
    ep->page = page;
    return 0;
}
void epoch_close(struct epoch *ep)
{
    epoch_init(ep);
}
bool epoch_bell_rings(const struct epoch *ep)
{
    (void)ep;
    return false;
}
int epoch_attach(const struct epoch *ep, struct channel *c)
{
    struct msg_attach m = {.epoch = ep->id};
    return channel_send(c, MSG_ATTACH, ep->id, &m, sizeof(m), NULL, 0);
}

int __wrap_close(int fd);
int __wrap_close(int fd)
{
    w.n_fds -= fd >= FD0;
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
    w.signal = 0;
    return (ssize_t)n;
}

/* ---- processes ---- */

static bool is_alive(const struct proc *p)
{
    return p->exists && !p->is_zombie;
}

static struct proc *of_fd(int fd)
{
    return &procs[(fd - FD0) / 2];
}

static struct proc *find(enum role role)
{
    for (size_t i = 0; i < N_PROCS; i++) {
        if (is_alive(&procs[i]) && procs[i].role == role &&
            !(procs[i].is_unkillable && procs[i].is_killed)) {
            return &procs[i];
        }
    }
    return NULL;
}

static void end(struct proc *p, int exit_code, int signal)
{
    p->is_zombie = true;
    p->exit_code = exit_code;
    p->signal = signal;
    p->next_ms = UINT64_MAX;
}

int process_start(const struct process_options *o, struct process *ret)
{
    size_t i = 0;
    while (i < N_PROCS && procs[i].exists) {
        i++;
    }
    if (i == N_PROCS || chance(200)) {
        return -EAGAIN;
    }
    struct proc *p = &procs[i];
    const char *a = o->argv[1] ? o->argv[1] : "";
    enum role role = strstr(o->path, "-worker")    ? WORKER
                     : strstr(o->path, "-gateway") ? GATEWAY
                     : strcmp(a, "--report") == 0  ? REPORTER
                     : strncmp(a, "--re", 4) == 0  ? CLERK
                     : strcmp(a, "--watch") == 0   ? MONITOR
                                                   : PROBE;
    if (role == WORKER && find(WORKER)) {
        WRONG("a second worker is started");
    }
    for (size_t k = 0; role == PROBE && k < N_PROCS; k++) {
        if (is_alive(&procs[k]) && procs[k].is_unkillable && procs[k].has_gpu &&
            procs[k].is_killed) {
            WRONG("a probe touches the GPU beside an unkillable worker");
        }
    }
    *p = (struct proc){.exists = true,
                       .role = role,
                       .pid = w.next_pid++,
                       .start_ms = w.now_ms,
                       .next_ms = w.now_ms + 1 + roll(chance(300) ? 100000 : 20)};
    p->gives_cause = p->next_ms - w.now_ms > 25 * 1000; /* too late to greet */
    p->is_unkillable = role == WORKER && chance(40);
    if (role == WORKER) {
        p->epoch = strtoull(o->argv[2], NULL, 10);
        w.dead_outside = w.dead_healthy = false;
    } else if (role == PROBE) {
        p->epoch = strtoull(o->argv[2], NULL, 10);
        p->has_gpu = true;
    }
    w.n_fds += 2;
    *ret = (struct process){.pid = p->pid,
                            .pidfd = FD0 + 2 * (int)i,
                            .channel_fd = FD0 + 2 * (int)i + 1,
                            .stderr_fd = -1};
    return 0;
}

void process_signal(int pidfd, int sig)
{
    struct proc *p = of_fd(pidfd);
    if (!is_alive(p)) {
        return;
    }
    bool is_idle = p->role == WORKER && p->stage >= 4;
    if (p->role == WORKER && !p->is_hung && !p->was_signalled && !w.is_ending && !p->gives_cause &&
        !is_idle) {
        WRONG("a healthy worker is ended (signal %d, stage %d)", sig, p->stage);
    }
    p->was_signalled = true;
    if (sig == SIGKILL) {
        p->is_killed = true;
        p->killed_ms = w.now_ms;
        if (!p->is_unkillable) {
            end(p, -1, SIGKILL);
        }
    } else if (!p->is_hung && !p->is_unkillable && roll(4)) {
        end(p, -1, SIGTERM);
    }
}

bool process_reap(int pidfd, pid_t pid, bool kills_group, int *ret_exit_code, int *ret_signal)
{
    struct proc *p = of_fd(pidfd);
    (void)kills_group;
    if (!p->is_zombie || p->pid != pid) {
        return false;
    }
    *ret_exit_code = p->exit_code;
    *ret_signal = p->signal;
    p->exists = false;
    n_deaths++;
    if (p->role == WORKER) {
        w.dead_signal = p->signal;
        w.dead_outside = p->is_external;
        w.dead_healthy = !p->was_signalled;
    }
    return true;
}

/* ---- channels ---- */

int channel_pair(int ret_fds[2])
{
    (void)ret_fds;
    return -ENOSYS;
}
void channel_init(struct channel *c, int fd, enum msg_peer self, enum msg_peer peer)
{
    *c = (struct channel){.fd = fd, .self = self, .peer = peer, .state = MSG_STATE_NEW};
}
void channel_close(struct channel *c)
{
    w.n_fds -= c->fd >= FD0;
    c->fd = -1;
}
void channel_msg_finish(struct channel_msg *m)
{
    (void)m;
}

static void say(struct proc *p, uint32_t type, const void *payload, size_t len)
{
    struct channel_msg *m = &pool[n_pool++ % COUNT_OF(pool)];
    ASSERT(p->n_out < QUEUE);
    m->type = type;
    m->epoch = p->epoch;
    m->len = len;
    m->n_fds = 0;
    memcpy(m->payload, payload, len);
    p->out[p->n_out++] = m;
}

int channel_recv(struct channel *c, struct channel_msg *ret)
{
    if (c->fd < FD0) {
        return ERR_PEER_GONE;
    }
    struct proc *p = of_fd(c->fd);
    if (p->n_out == 0) {
        return p->is_zombie || !p->exists ? ERR_PEER_GONE : 0;
    }
    const struct channel_msg *m = p->out[0];
    ret->type = m->type;
    ret->epoch = m->epoch;
    ret->len = m->len;
    ret->n_fds = 0;
    memcpy(ret->payload, m->payload, m->len);
    p->n_out--;
    memmove(p->out, p->out + 1, p->n_out * sizeof(p->out[0]));
    return 1;
}

static void on_detach(const struct msg_detach *m)
{
    if (m->epoch != w.attached) {
        WRONG("DETACH of epoch %llu, attached is %llu", (unsigned long long)m->epoch,
              (unsigned long long)w.attached);
    }
    w.attached = 0;
    if (w.dead_outside && m->is_counted) {
        WRONG("somebody else's kill is held against the requests");
    }
    if (w.dead_signal == SIGSEGV && w.dead_healthy && !m->is_counted && !w.is_ending) {
        WRONG("a crash is not held against anybody");
    }
}

int channel_send(struct channel *c, uint32_t type, uint64_t epoch, const void *payload, size_t len,
                 const int *fds, int n_fds)
{
    struct proc *p = c->fd < FD0 ? NULL : of_fd(c->fd);
    (void)epoch, (void)fds, (void)n_fds, (void)len;
    if (!p || !is_alive(p)) {
        return ERR_PEER_GONE;
    }
    if (p->is_hung) {
        return 0;
    }
    struct msg_attach attach;
    struct msg_verdict verdict;
    struct msg_detach detach;
    switch (type) {
    case MSG_CONFIG:
        p->has_config = true;
        break;
    case MSG_ATTACH:
        memcpy(&attach, payload, sizeof(attach));
        p->epoch = attach.epoch;
        if (p->role == GATEWAY) {
            if (w.attached != 0) {
                WRONG("a second epoch without an end of the first");
            }
            w.attached = attach.epoch;
            w.last_epoch = attach.epoch;
        } else if (p->stage >= 4) { /* again, for a new gateway */
            struct msg_ready ready = {.epoch = p->epoch};
            say(p, MSG_READY, &ready, sizeof(ready));
        } else {
            p->stage = 2;
            p->next_ms = w.now_ms + 1 + roll(50);
        }
        break;
    case MSG_DETACH:
        memcpy(&detach, payload, sizeof(detach));
        on_detach(&detach);
        break;
    case MSG_VERDICT:
        memcpy(&verdict, payload, sizeof(verdict));
        p->has_gpu = verdict.err == 0;
        for (size_t i = 0; p->has_gpu && i < N_PROCS; i++) {
            if (&procs[i] != p && is_alive(&procs[i]) && procs[i].role == WORKER &&
                procs[i].has_gpu) {
                WRONG("two workers on the GPU");
            }
        }
        p->stage = 3;
        p->next_ms = w.now_ms + 1 + roll(200);
        break;
    case MSG_CRASH:
        p->stage++;
        p->next_ms = w.now_ms + 1 + roll(chance(20) ? 30000 : 100);
        break;
    case MSG_PING:
        say(p, MSG_PING, payload, sizeof(struct msg_empty));
        break;
    case MSG_DRAIN: {
        struct msg_empty none = {0};
        say(p, MSG_DRAINED, &none, sizeof(none));
        break;
    }
    default:
        break;
    }
    return 0;
}

/* ---- what children do ---- */

static struct status_page *page_of(void)
{
    return &w.pages[(w.n_epochs + 1) % 2];
}

static void run_worker(struct proc *p)
{
    struct status_page *page = page_of();
    uint64_t fate = w.is_calm ? 0 : roll(100);
    if (fate >= w.danger) { /* of itself, of somebody, of the kernel, or it hangs */
        switch (roll(7)) {
        case 0:
            end(p, -1, SIGSEGV);
            return;
        case 1:
            p->is_external = true;
            end(p, -1, SIGKILL);
            return;
        case 2:
            w.oom++;
            end(p, -1, SIGKILL);
            return;
        case 3:
            status_last_words(page, "GPU fault");
            end(p, 20, 0);
            return;
        case 4:
            end(p, p->stage < 4 ? 10 + (int)roll(9) : 1, 0);
            return;
        default:
            p->is_hung = true;
            p->next_ms = UINT64_MAX;
            if (p->stage >= 4) {
                atomic_store(&page->phase, STATUS_DECODE);
                atomic_fetch_add(&page->beat, 1);
            }
            return;
        }
    }
    switch (p->stage) {
    case 2:
        atomic_store(&page->phase, STATUS_LOADING);
        atomic_fetch_add(&page->beat, 1);
        if (w.has_gpu && roll(2)) {
            struct msg_preflight m = {.device = 0};
            atomic_store(&page->phase, STATUS_PREFLIGHT);
            say(p, MSG_PREFLIGHT, &m, sizeof(m));
            p->next_ms = UINT64_MAX; /* goes on with the verdict */
            return;
        }
        p->stage = 3;
        p->next_ms = w.now_ms + 1 + roll(20000); /* a slow load, with progress */
        return;
    case 3: {
        struct msg_ready m = {.epoch = p->epoch};
        atomic_store(&page->phase, STATUS_IDLE);
        atomic_fetch_add(&page->beat, 1);
        say(p, MSG_READY, &m, sizeof(m));
        p->stage = 4;
        n_ready++;
        w.ready_ms = w.now_ms;
        break;
    }
    default:
        atomic_fetch_add(&page->step, roll(3));
        atomic_fetch_add(&page->beat, 1);
        atomic_store(&page->phase, roll(2) ? STATUS_IDLE : STATUS_DECODE);
        break;
    }
    bool idles = atomic_load(&page->phase) == STATUS_IDLE;
    p->next_ms = w.now_ms + 1 + roll(idles ? 120000 : 900);
}

static void run_proc(struct proc *p)
{
    if (p->is_unkillable && p->is_killed) { /* the kernel lets go of it at last */
        end(p, -1, SIGKILL);
        return;
    }
    if (p->role != WORKER && chance(60)) {
        if (roll(3) && p->role != MONITOR) {
            end(p, -1, SIGSEGV);
        } else {
            p->is_hung = true;
            p->next_ms = UINT64_MAX;
        }
        return;
    }
    p->next_ms = UINT64_MAX;
    if (p->stage == 0 && p->role != CLERK) {
        struct msg_hello m = {.protocol = MSG_PROTOCOL_VERSION, .pid = (uint32_t)p->pid};
        m.epoch = p->role == WORKER || p->role == PROBE ? p->epoch : 0;
        strcpy(m.version, ROCMFORGE_VERSION);
        say(p, MSG_HELLO, &m, sizeof(m));
        p->stage = 1;
        if (p->role == PROBE) {
            p->next_ms = w.now_ms + roll(3000);
        }
        return;
    }
    struct msg_verdict verdict = {.err = !w.is_calm && roll(3) == 0 ? ERR_GPU_COPY : 0};
    struct msg_crashed crashed = {.name = "x"};
    switch (p->role) {
    case WORKER:
        run_worker(p);
        break;
    case PROBE:
        say(p, MSG_VERDICT, &verdict, sizeof(verdict));
        end(p, 0, 0);
        break;
    case REPORTER:
        say(p, MSG_CRASHED, &crashed, sizeof(crashed));
        end(p, 0, 0);
        break;
    case CLERK:
        end(p, 0, 0);
        break;
    default:
        break;
    }
}

/* ---- time ---- */

static void check(void)
{
    const struct proc *front = find(GATEWAY);
    bool has_front = front && front->stage > 0 && !front->is_hung, is_blocked = false;
    for (size_t i = 0; i < N_PROCS; i++) {
        is_blocked =
            is_blocked || (is_alive(&procs[i]) && procs[i].is_unkillable && procs[i].is_killed);
    }
    if (!has_front || is_blocked || w.is_ending || find(WORKER)) {
        w.idle_since_ms = w.now_ms;
    } else if (w.now_ms - w.idle_since_ms > POLICY_BACKOFF_MAX_MS + 40 * 1000) {
        WRONG("no worker for %llu ms", (unsigned long long)(w.now_ms - w.idle_since_ms));
    }
}

static void advance(uint64_t limit_ms)
{
    uint64_t at = limit_ms;
    for (size_t i = 0; i < N_PROCS; i++) {
        struct proc *p = &procs[i];
        if (is_alive(p)) {
            if (p->is_unkillable && p->is_killed && p->next_ms == UINT64_MAX) {
                p->next_ms = w.now_ms + 1 + roll(w.is_calm ? 1000 : 60000);
            }
            at = MIN(at, p->next_ms);
        }
    }
    w.now_ms = MAX(w.now_ms, at);
    if (chance(400)) { /* the machine slept, or we were stopped */
        uint64_t jump = 6000 + roll(3600 * 1000);
        w.now_ms += jump;
        w.idle_since_ms += jump;
    }
    for (size_t i = 0; i < N_PROCS; i++) {
        if (is_alive(&procs[i]) && procs[i].next_ms <= w.now_ms) {
            run_proc(&procs[i]);
        }
    }
}

/* The end of a schedule: calm, until a worker is ready; then SIGTERM; in between a reload. */
static void direct(void)
{
    w.n_steps++;
    n_total_steps++;
    if (chance(500)) {
        w.signal = SIGHUP;
    }
    if (!w.is_calm && w.n_steps > STEPS) {
        w.is_calm = true;
        w.end_ms = w.now_ms + 30 * 60 * 1000;
    } else if (w.is_calm && !w.is_ending) {
        const struct proc *p = find(WORKER);
        bool is_ready = p && p->stage == 4 && !p->is_hung && w.ready_ms > w.end_ms - 30 * 60 * 1000;
        bool was_ready = p && p->stage == 4 && !p->is_hung;
        if (is_ready || was_ready) {
            w.is_ending = true;
            w.signal = SIGTERM;
            w.end_ms = w.now_ms + 5 * 60 * 1000;
        } else if (w.now_ms > w.end_ms) {
            WRONG("all is calm, and no worker comes");
        }
    } else if (w.is_ending && w.now_ms > w.end_ms) {
        WRONG("it does not end");
    }
    if (w.n_steps > 100000) {
        WRONG("the loop spins");
    }
}

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout)
{
    if (n == 1) { /* a look that does not wait */
        fds[0].revents = fds[0].events;
        return 1;
    }
    direct();
    advance(w.now_ms + (uint64_t)MAX(timeout, 0));
    check();
    int n_ready_fds = 0;
    for (nfds_t i = 0; i < n; i++) {
        int fd = fds[i].fd;
        fds[i].revents = 0;
        if (fd == SIGNAL_FD) {
            fds[i].revents = w.signal ? POLLIN : 0;
        } else if (fd >= FD0) {
            const struct proc *p = of_fd(fd);
            bool is_channel = fd % 2 == 1;
            bool has = is_channel ? p->n_out > 0 || p->is_zombie : p->is_zombie;
            fds[i].revents = has ? POLLIN : 0;
        }
        n_ready_fds += fds[i].revents != 0;
    }
    return n_ready_fds;
}

/* ---- schedules ---- */

static int load(void *arg, struct config *ret, struct err *e)
{
    (void)arg;
    config_init(ret);
    return config_set(ret, "model", "x.gguf", CONFIG_FROM_FLAG, e);
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

static void run_schedule(uint64_t seed)
{
    static char name[] = "rocmforge-gateway";
    static char *argv[] = {name, NULL};
    static const char *const fallbacks[] = {"never", "load", "always"};
    struct config cfg;
    struct err e;
    memset(procs, 0, sizeof(procs));
    memset(&w, 0, sizeof(w));
    w.seed = seed;
    w.rng = seed * 0x2545f4914f6cdd1du;
    w.now_ms = 1000000;
    w.next_pid = 100;
    w.idle_since_ms = w.now_ms;
    w.has_gpu = roll(2);
    w.danger = roll(4) ? 97 : 5 + roll(90);
    int rc = load(NULL, &cfg, &e);
    rc = rc == 0 ? config_set(&cfg, "cpu_fallback", fallbacks[roll(3)], CONFIG_FROM_FLAG, &e) : rc;
    ASSERT(rc == 0);
    struct supervisor_options o = {.program_dir = "/x",
                                   .state_dir = roll(4) ? "/state" : "",
                                   .front_argv = argv,
                                   .load = load};
    (void)supervisor_run(&cfg, &o);
    for (size_t i = 0; i < N_PROCS; i++) {
        if (is_alive(&procs[i]) && !procs[i].is_unkillable) {
            WRONG("a process of role %d is left", procs[i].role);
        }
    }
    config_finish(&cfg);
}

int main(int argc, char **argv)
{
    uint64_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : 3000;
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    is_loud = getenv("SIMULATION_LOUD") != NULL;
    struct timespec t0, t1;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    for (uint64_t i = 0; i < n; i++) {
        run_schedule(first + i);
    }
    clock_gettime(CLOCK_MONOTONIC, &t1);
    double s = (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9;
    printf("%llu schedules, %llu steps, %llu deaths, %llu times ready; %.0f schedules/s\n",
           (unsigned long long)n, (unsigned long long)n_total_steps, (unsigned long long)n_deaths,
           (unsigned long long)n_ready, (double)n / s);
    return 0;
}
