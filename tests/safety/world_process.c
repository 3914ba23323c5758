/* Processes and their control channels (see world.h): what the supervisor starts, signals, reaps,
 * hears and tells; no two workers, no probe beside one that does not die, every epoch begins and
 * ends once. */
#include "safety/card.h"
#include "safety/process.h"
#include "shared/err.h"
#include "tests/safety/world.h"

#include <errno.h>
#include <signal.h>

static struct channel_msg pool[128];
static size_t n_pool;

bool is_alive(const struct proc *p)
{
    return p->exists && !p->is_zombie;
}

struct proc *of_fd(int fd)
{
    return &procs[(fd - FD0) / 2];
}

struct proc *find(enum role role)
{
    for (size_t i = 0; i < n_procs; i++) {
        if (is_alive(&procs[i]) && procs[i].role == role &&
            !(procs[i].is_unkillable && procs[i].is_killed)) {
            return &procs[i];
        }
    }
    return NULL;
}

void end(struct proc *p, int exit_code, int signal)
{
    if (p->role == GATEWAY && p->stage > 0) {
        gateway_end();
        w.attached = 0;
    }
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
    n_procs = MAX(n_procs, i + 1);
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
    for (size_t k = 0; role == PROBE && k < n_procs; k++) {
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
        w.model += chance(150); /* the file was changed */
        p->epoch = strtoull(o->argv[2], NULL, 10);
        w.dead_outside = w.dead_healthy = false;
    } else if (role == PROBE) {
        p->epoch = strtoull(o->argv[2], NULL, 10);
        p->has_gpu = true;
    }
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
    p->gives_cause = p->gives_cause || (w.wedged_ms > 0 && p->has_gpu);
    /* A server whose gateway has died so often, and may never have been ready, ends. */
    bool gives_up = w.n_front_deaths >= POLICY_INTENSITY && w.front_died_ms == w.now_ms;
    if (p->role == WORKER && !p->is_hung && !p->was_signalled && !w.is_ending && !p->gives_cause &&
        !is_idle && !gives_up) {
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
    counts.deaths++;
    if (p->role == GATEWAY) {
        w.n_front_deaths++;
        w.front_died_ms = w.now_ms;
    }
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
    c->fd = -1;
}
void channel_msg_finish(struct channel_msg *m)
{
    (void)m;
}

/* What the supervisor has heard of the card. */
static void note_card(const struct channel_msg *m)
{
    struct msg_card card;
    memcpy(&card, m->payload, sizeof(card));
    if (card.event == MSG_CARD_WEDGED && w.wedged_ms == 0) {
        w.wedged_ms = w.now_ms;
    } else if (card.event == MSG_CARD_BACK || card.event == MSG_CARD_UNREAD) {
        w.wedged_ms = 0; /* (of one whose files went, the next reading says that it is back) */
    } else if (card.event == MSG_CARD_RESET_BEGINS) {
        w.reset_ms = w.now_ms;
    }
}

bool say(struct proc *p, uint32_t type, uint64_t epoch, const void *payload, size_t len)
{
    if (p->n_out == QUEUE) {
        return false;
    }
    struct channel_msg *m = &pool[n_pool++ % COUNT_OF(pool)];
    m->type = type;
    m->epoch = epoch;
    m->len = len;
    m->n_fds = 0;
    memcpy(m->payload, payload, len);
    p->out[p->n_out++] = m;
    return true;
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
    if (m->type == MSG_CARD && !p->was_signalled) {
        note_card(m);
    }
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
    uint64_t trouble_ms = MAX(w.reset_ms, w.wedged_ms); /* of the card */
    bool has_excuse = trouble_ms > 0 && w.now_ms - trouble_ms <= CARD_EXCUSE_MS;
    if (w.dead_signal == SIGSEGV && w.dead_healthy && !m->is_counted && !w.is_ending &&
        !has_excuse) {
        WRONG("a crash is not held against anybody");
    }
}

int channel_send(struct channel *c, uint32_t type, uint64_t epoch, const void *payload, size_t len,
                 const int *fds, int n_fds)
{
    struct proc *p = c->fd < FD0 ? NULL : of_fd(c->fd);
    (void)fds, (void)n_fds;
    if (p && c->self == MSG_GATEWAY) {
        return say(p, type, epoch, payload, len) ? 0 : -EAGAIN;
    }
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
            gateway_hear(p, type, payload, len);
        } else {
            worker_attach(p, attach.epoch);
        }
        break;
    case MSG_DETACH:
        memcpy(&detach, payload, sizeof(detach));
        on_detach(&detach);
        gateway_hear(p, type, payload, len);
        break;
    case MSG_POISON:
        gateway_hear(p, type, payload, len);
        break;
    case MSG_VERDICT:
        memcpy(&verdict, payload, sizeof(verdict));
        p->has_gpu = verdict.err == 0;
        if (p->has_gpu && w.wedged_ms > 0 && w.now_ms - w.wedged_ms < CARD_WEDGED_MS) {
            WRONG("a worker on a wedged card");
        }
        for (size_t i = 0; p->has_gpu && i < n_procs; i++) {
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
        (void)say(p, MSG_PING, epoch, payload, sizeof(struct msg_empty));
        break;
    case MSG_DRAIN: {
        struct msg_empty none = {0};
        (void)say(p, MSG_DRAINED, epoch, &none, sizeof(none));
        break;
    }
    default:
        break;
    }
    return 0;
}

/* ---- what children do ---- */

/* A reading, and now and then something that happens to the card; a reset ends who is on it. */
static void watch_card(struct proc *p)
{
    struct msg_vram vram = {.busy_percent = -1};
    struct proc *worker = find(WORKER);
    struct msg_card card = {.event =
                                w.is_calm ? MSG_CARD_BACK : 1 + (uint32_t)roll(MSG_CARD_UNREAD + 1),
                            .pid = worker && roll(2) ? (uint32_t)worker->pid : (uint32_t)roll(2)};
    p->next_ms = w.now_ms + 1000;
    bool has_news = w.is_calm ? w.wedged_ms > 0 : roll(20) == 0;
    (void)(has_news ? say(p, MSG_CARD, 0, &card, sizeof(card))
                    : say(p, MSG_VRAM, 0, &vram, sizeof(vram)));
    if (has_news && card.event == MSG_CARD_RESET_BEGINS && worker && worker->has_gpu && roll(4)) {
        end(worker, -1, SIGABRT);
    }
}

void run_proc(struct proc *p)
{
    if (p->is_unkillable && p->is_killed) { /* the kernel lets go of it at last */
        end(p, -1, SIGKILL);
        return;
    }
    bool is_serving = p->role == GATEWAY && p->stage > 0;
    if (p->role != WORKER && chance(is_serving ? 3000 : 60)) {
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
        (void)say(p, MSG_HELLO, p->epoch, &m, sizeof(m));
        p->stage = 1;
        if (p->role == GATEWAY) {
            gateway_begin(p);
        }
        if (p->role == PROBE) {
            p->next_ms = w.now_ms + roll(3000);
        } else if (p->role == MONITOR) {
            p->next_ms = w.now_ms + 1;
        }
        return;
    }
    struct msg_verdict verdict = {.err = !w.is_calm && roll(3) == 0 ? ERR_GPU_COPY : 0};
    struct msg_crashed crashed = {.name = "x"};
    switch (p->role) {
    case WORKER:
        worker_run(p);
        break;
    case GATEWAY:
        gateway_run(p);
        break;
    case PROBE:
        (void)say(p, MSG_VERDICT, p->epoch, &verdict, sizeof(verdict));
        end(p, 0, 0);
        break;
    case REPORTER:
        (void)say(p, MSG_CRASHED, p->epoch, &crashed, sizeof(crashed));
        end(p, 0, 0);
        break;
    case CLERK:
        end(p, 0, 0);
        break;
    case MONITOR:
        watch_card(p);
        break;
    default:
        break;
    }
}

