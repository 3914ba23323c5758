/* The supervisor's loop (see supervisor.h). One thread; blocks in poll() only, and at start in name
 * resolution. Invariant: at most one front, one worker and one probe that are not stuck. */
#include "safety/supervisor.h"
#include "safety/card.h"
#include "safety/crash.h"
#include "safety/death.h"
#include "safety/degrade.h"
#include "safety/dialog.h"
#include "safety/giveback.h"
#include "safety/launch.h"
#include "safety/monitor.h"
#include "safety/notify.h"
#include "shared/clock.h"
#include "shared/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

enum {
    TICK_MS = 1000,
    DRAIN_EXTRA_MS = 500,
    FRONT_SILENCE_MS = 10 * 1000, /* a gateway whose loop does not turn */
    EXTEND_START_US = 30 * 1000 * 1000,
};

/* ---- settings ---- */

/* SIGHUP. */
static void reload(struct supervisor *s, uint64_t now_ms)
{
    struct err e = {0};
    char text[512];
    struct config fresh;
    notify_send("RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)clock_ns() / 1000);
    int rc = s->options->load(s->options->load_arg, &fresh, &e);
    if (rc == 0) {
        rc = launch_settings(s, &fresh, &e);
        if (rc != 0) {
            config_finish(&fresh);
        }
    }
    if (rc != 0) {
        log_error("reload failed, the old settings stay: %s", err_format(&e, text, sizeof(text)));
    } else {
        for (size_t k = 0; k < CONFIG_COUNT; k++) {
            if (!config_rows[k].is_live && config_differs(&fresh, s->cfg, (enum config_key)k)) {
                log_warn("a change of '%s' needs a restart of the server", config_rows[k].key);
            }
        }
        config_finish(s->cfg);
        *s->cfg = fresh;
        struct child *both[] = {&s->front, &s->worker};
        for (size_t i = 0; i < COUNT_OF(both); i++) {
            rc = child_is_alive(both[i]) && both[i]->state >= CHILD_GREETED
                     ? launch_config(s, both[i])
                     : 0;
            if (rc != 0 && rc != ERR_PEER_GONE) { /* it must not live on with old keys */
                child_condemn(both[i], now_ms, "CONFIG could not be sent: %s", err_text(rc));
            }
        }
        policy_forgive(&s->front_policy);
        policy_forgive(&s->worker_policy);
        degrade_reload(s, now_ms);
        card_forgive(s);
        s->front_at_ms = MIN(s->front_at_ms, now_ms);
        s->worker_at_ms = MIN(s->worker_at_ms, now_ms);
        log_info("settings and API keys are reloaded, generation %llu",
                 (unsigned long long)s->generation);
    }
    notify_send("READY=1");
}

/* ---- ending ---- */

void supervisor_end(struct supervisor *s, int exit_code, uint64_t now_ms)
{
    if (s->phase == SUPERVISOR_ENDING) {
        return;
    }
    s->phase = SUPERVISOR_ENDING;
    s->exit_code = exit_code;
    s->ending_ms = now_ms; /* the reporter may finish */
    notify_send("STOPPING=1");
    child_end(&s->front, CHILD_GRACE_MS, now_ms);
    child_end(&s->worker, CHILD_GRACE_MS, now_ms);
    child_end(&s->probe, CHILD_LAST_MS, now_ms);
    child_end(&s->clerk, CHILD_LAST_MS, now_ms);
    child_end(&s->monitor, CHILD_LAST_MS, now_ms);
}

static void drain(struct supervisor *s, uint64_t now_ms)
{
    double timeout_s = s->cfg->v[CONFIG_drain_timeout].num;
    uint64_t timeout_ms = (uint64_t)(timeout_s * 1000);
    s->phase = SUPERVISOR_DRAINING;
    /* The children end what is left at their deadline and say so; we wait a little longer. */
    s->drain_deadline_ms = now_ms + timeout_ms + DRAIN_EXTRA_MS;
    notify_send("STOPPING=1\nSTATUS=finishing requests");
    log_info("stopping: running requests get %g s; once more ends them at once", timeout_s);
    if (s->worker.state != CHILD_READY) { /* loading: there is nothing to finish */
        child_end(&s->worker, CHILD_GRACE_MS, now_ms);
    }
    child_end(&s->probe, CHILD_LAST_MS, now_ms);
    dialog_drain(s, timeout_ms, now_ms);
    listen_close(&s->listening); /* who connects from now on is refused, and not kept waiting */
}

/* All that are not stuck; in the order in which they are heard. */
static void list_children(struct supervisor *s, struct child *ret[SUPERVISOR_CHILDREN])
{
    struct child *const all[] = {&s->front,    &s->worker, &s->probe,
                                 &s->reporter, &s->clerk,  &s->monitor};
    _Static_assert(COUNT_OF(all) == SUPERVISOR_CHILDREN, "all");
    memcpy(ret, all, sizeof(all));
}

static void kill_all(struct supervisor *s, uint64_t now_ms)
{
    struct child *all[SUPERVISOR_CHILDREN];
    list_children(s, all);
    supervisor_end(s, EXIT_GENERAL, now_ms);
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        child_kill(all[i], now_ms);
    }
}

static bool is_over(struct supervisor *s)
{
    struct child *all[SUPERVISOR_CHILDREN];
    list_children(s, all);
    bool is_over = s->phase == SUPERVISOR_ENDING;
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        is_over = is_over && all[i]->state == CHILD_NONE;
    }
    return is_over;
}

/* ---- signals ---- */

/* Is there a controlling terminal? Without one any more, SIGHUP means that it was closed. */
static bool is_terminal_there(void)
{
    int fd = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

static void on_signal(struct supervisor *s, int sig, uint64_t now_ms)
{
    if (s->options->is_terminal) {
        if (sig != SIGINT) { /* Ctrl-C is the front's: it went to the same process group */
            child_end(&s->front, CHILD_GRACE_MS, now_ms);
        }
        return;
    }
    if (sig == SIGHUP && (!s->had_terminal || is_terminal_there())) {
        if (s->phase == SUPERVISOR_SERVING) {
            reload(s, now_ms);
        }
    } else if (s->phase == SUPERVISOR_SERVING) {
        drain(s, now_ms);
    } else {
        kill_all(s, now_ms);
    }
}

static void read_signals(struct supervisor *s, uint64_t now_ms)
{
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        on_signal(s, (int)info.ssi_signo, now_ms);
    }
}

/* ---- time ---- */

static void check_progress(struct supervisor *s, uint64_t now_ms)
{
    struct child *w = &s->worker;
    if (!child_is_alive(w) || w->state < CHILD_ATTACHED) {
        return;
    }
    struct watchdog_sample sample;
    watchdog_read(s->epoch.page, &sample);
    sample.is_bell_ringing = epoch_bell_rings(&s->epoch);
    if (w->holds_gpu && s->options->stall_ms == 0) {
        s->watchdog.limits.step_ms = LAUNCH_GPU_STEP_MS;
    }
    uint64_t still_ms = watchdog_check(&s->watchdog, &sample, now_ms);
    if (still_ms > 0 && watchdog_has_patience(&s->watchdog, still_ms) &&
        watchdog_is_running("", w->pid)) {
        return;
    }
    if (still_ms > 0) {
        char doing[STATUS_DOING_BYTES];
        death_doing(s->epoch.page, doing);
        child_condemn(w, now_ms, "no progress for %.1f s (phase %s, step %llu, op %u)%s%s",
                      (double)still_ms / 1000, status_phase_name(sample.phase),
                      (unsigned long long)sample.step, (unsigned)sample.op,
                      *doing ? "; " : "", doing);
    } else if (!s->was_ready && sample.phase == STATUS_LOADING) {
        notify_send("EXTEND_TIMEOUT_USEC=%d\nSTATUS=loading, %llu of %llu MiB", EXTEND_START_US,
                    (unsigned long long)sample.load_done_bytes >> 20,
                    (unsigned long long)atomic_load_explicit(&s->epoch.page->load_total_bytes,
                                                             memory_order_relaxed) >>
                        20);
    }
}

/* What systemd hears is that this loop turns and so judges its children by their progress; a hung
 * gateway or worker is ours to find and to replace. */
static void ping_systemd(struct supervisor *s, uint64_t now_ms)
{
    uint64_t interval_ms = notify_watchdog_ms();
    if (interval_ms > 0 && now_ms - s->notify_ms >= interval_ms / 3) {
        notify_send("WATCHDOG=1");
        s->notify_ms = now_ms;
    }
}

static void run_timers(struct supervisor *s, uint64_t now_ms)
{
    struct child *all[SUPERVISOR_CHILDREN];
    list_children(s, all);
    if (s->phase == SUPERVISOR_DRAINING &&
        ((s->front.is_drained && s->worker.is_drained) || s->front.state == CHILD_NONE ||
         now_ms >= s->drain_deadline_ms)) {
        supervisor_end(s, EXIT_OK, now_ms);
    }
    check_progress(s, now_ms);
    dialog_ping(s, s->options->stall_ms ? 4 * s->options->stall_ms : FRONT_SILENCE_MS, now_ms);
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        if (child_tick(all[i], now_ms)) {
            death_abandon(s, all[i], now_ms);
        }
    }
    if (s->probe.state != CHILD_NONE && now_ms - s->probe.start_ms > LAUNCH_PREFLIGHT_MS) {
        child_condemn(&s->probe, now_ms, "it did not end within %d s", LAUNCH_PREFLIGHT_MS / 1000);
    }
    card_tick(s, now_ms);
    launch_due(s, now_ms);
    monitor_tick(s, now_ms);
    giveback_tick(s, now_ms);
    degrade_tick(s, now_ms);
    crash_tick(s, now_ms); /* after it: the next worker does not wait for a report */
    ping_systemd(s, now_ms);
}

static uint64_t next_wakeup(struct supervisor *s, uint64_t now_ms)
{
    struct child *all[SUPERVISOR_CHILDREN];
    list_children(s, all);
    bool is_busy = child_is_alive(&s->worker) && watchdog_is_busy(&s->watchdog);
    uint64_t at = now_ms + (is_busy ? MIN(s->tick_ms, (uint64_t)WATCHDOG_TICK_MS) : s->tick_ms);
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        at = MIN(at, all[i]->deadline_ms);
    }
    if (s->phase == SUPERVISOR_DRAINING) {
        at = MIN(at, s->drain_deadline_ms);
    }
    if (s->phase == SUPERVISOR_SERVING) {
        /* One that is due and yet not started waits for something else than time. */
        if (s->front.state == CHILD_NONE && s->front_at_ms > now_ms) {
            at = MIN(at, s->front_at_ms);
        }
        if (s->worker.state == CHILD_NONE && s->worker_at_ms > now_ms) {
            at = MIN(at, s->worker_at_ms);
        }
    }
    return at > now_ms ? at - now_ms : 0;
}

/* ---- the loop ---- */

static void reap(struct supervisor *s, struct child *c, uint64_t now_ms)
{
    struct policy_death d;
    if (c->stderr_fd >= 0) {
        (void)tail_read(&s->tail, c->stderr_fd, log_fd(), true, now_ms);
    }
    if (child_reap(c, &d)) {
        death_of(s, c, &d, now_ms);
        c->is_drained = true;
    }
}

static void turn(struct supervisor *s)
{
    enum {
        SIGNALS,
        TAIL,
        CHANNELS,
        PIDFDS = CHANNELS + SUPERVISOR_CHILDREN,
        STUCK = PIDFDS + SUPERVISOR_CHILDREN,
        N_POLL = STUCK + SUPERVISOR_MAX_STUCK
    };
    struct child *all[SUPERVISOR_CHILDREN];
    list_children(s, all);
    struct pollfd polls[N_POLL];
    polls[SIGNALS] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
    polls[TAIL] = (struct pollfd){.fd = s->worker.stderr_fd, .events = POLLIN};
    for (int i = 0; i < SUPERVISOR_CHILDREN; i++) { /* poll() ignores an fd of -1 */
        polls[CHANNELS + i] = (struct pollfd){.fd = all[i]->channel.fd, .events = POLLIN};
        polls[PIDFDS + i] = (struct pollfd){.fd = all[i]->pidfd, .events = POLLIN};
    }
    for (int i = 0; i < SUPERVISOR_MAX_STUCK; i++) {
        polls[STUCK + i] = (struct pollfd){.fd = s->stuck[i].pidfd, .events = POLLIN};
    }
    if (s->has_held) {
        polls[CHANNELS].fd = -1;
        polls[CHANNELS + 1].events = POLLIN | POLLOUT;
    }
    int n = poll(polls, N_POLL, (int)next_wakeup(s, clock_ms()));
    uint64_t now_ms = clock_ms();
    if (n > 0 && polls[TAIL].revents &&
        !tail_read(&s->tail, s->worker.stderr_fd, log_fd(), false, now_ms)) {
        close(s->worker.stderr_fd);
        s->worker.stderr_fd = -1;
    }
    for (int i = 0; n > 0 && i < SUPERVISOR_CHILDREN; i++) {
        if (polls[CHANNELS + i].revents & POLLOUT) {
            dialog_flush(s, now_ms);
        }
        if (polls[CHANNELS + i].revents & ~POLLOUT) {
            dialog_read(s, all[i], now_ms);
        }
    }
    for (int i = 0; n > 0 && i < SUPERVISOR_CHILDREN; i++) {
        if (polls[PIDFDS + i].revents && all[i]->pidfd == polls[PIDFDS + i].fd) {
            dialog_read(s, all[i], now_ms); /* what it said last comes before its death */
            reap(s, all[i], now_ms);
        }
    }
    for (int i = 0; n > 0 && i < SUPERVISOR_MAX_STUCK; i++) {
        struct policy_death d;
        if (polls[STUCK + i].revents && child_reap(&s->stuck[i], &d)) {
            death_of_stuck(s, &s->stuck[i], now_ms);
        }
    }
    if (n > 0 && polls[SIGNALS].revents) {
        read_signals(s, now_ms);
    }
    run_timers(s, now_ms);
}

static int open_signals(struct supervisor *s)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGCHLD, SIG_DFL); /* ignored, it would reap our children behind our back */
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signal_fd < 0 ? -errno : 0;
}

static int open_listening(struct supervisor *s, struct err *e)
{
    const struct config *cfg = s->cfg;
    const char *host = cfg->v[CONFIG_host].str, *path = cfg->v[CONFIG_unix].str;
    int rc = listen_tcp(&s->listening, host, (uint16_t)cfg->v[CONFIG_port].i, e);
    if (rc == 0 && *path) {
        rc = listen_unix(&s->listening, path, e);
    }
    for (int i = 0; rc == 0 && i < s->listening.n_tcp; i++) {
        const char *at = s->listening.address[i];
        log_info("listening on http://%s", at);
        if (s->key_fd < 0 && strncmp(at, "127.", 4) != 0 && strncmp(at, "[::1]", 5) != 0) {
            log_warn("%s can be reached from other machines and asks for no key; give "
                     "--api-key-file",
                     at);
        }
    }
    if (rc == 0 && *path) {
        log_info("listening on unix:%s", path);
    }
    return rc;
}

/* Everything that can fail before the first child. */
static int set_up(struct supervisor *s, struct err *e)
{
    int rc = launch_check(s, e);
    if (rc == 0) {
        rc = launch_settings(s, s->cfg, e);
    }
    if (rc == 0) {
        rc = open_signals(s);
        rc = rc == 0 ? 0 : err_set(e, rc, "signals");
    }
    if (rc == 0 && !s->options->is_terminal) {
        rc = open_listening(s, e);
    }
    return rc;
}

static void tear_down(struct supervisor *s)
{
    listen_close(&s->listening);
    epoch_close(&s->epoch);
    vault_clear(&s->vault);
    crash_finish(s);
    int fds[] = {s->config_fd, s->key_fd, s->signal_fd};
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}

int supervisor_run(struct config *cfg, const struct supervisor_options *o)
{
    static struct supervisor s; /* large, and there is one */
    s = (struct supervisor){
        .options = o, .cfg = cfg, .signal_fd = -1, .config_fd = -1, .key_fd = -1};
    notify_init();
    s.tick_ms = TICK_MS;
    if (notify_watchdog_ms() > 0) {
        s.tick_ms = MIN(s.tick_ms, notify_watchdog_ms() / 3);
    }
    if (o->stall_ms > 0) {
        s.tick_ms = MIN(s.tick_ms, o->stall_ms / 4);
    }
    listen_init(&s.listening);
    epoch_init(&s.epoch);
    policy_init(&s.front_policy);
    policy_init(&s.worker_policy);
    child_init(&s.front, o->is_terminal ? "terminal" : "gateway", MSG_GATEWAY);
    child_init(&s.worker, "worker", MSG_WORKER);
    child_init(&s.probe, "probe", MSG_PROBE);
    child_init(&s.reporter, "reporter", MSG_PROBE);
    child_init(&s.clerk, "clerk", MSG_PROBE);
    child_init(&s.monitor, "monitor", MSG_PROBE);
    crash_init(&s);
    degrade_start(&s, clock_ms());
    for (size_t i = 0; i < SUPERVISOR_MAX_STUCK; i++) {
        child_init(&s.stuck[i], "", MSG_WORKER);
    }
    s.had_terminal = is_terminal_there();
    struct termios terminal;
    bool restores_terminal = o->is_terminal && tcgetattr(STDIN_FILENO, &terminal) == 0;
    struct err e = {0};
    int rc = set_up(&s, &e);
    if (rc != 0) {
        char text[512];
        log_error("%s", err_format(&e, text, sizeof(text)));
        s.exit_code = err_exit_code(rc);
    } else {
        run_timers(&s, clock_ms());
        while (!is_over(&s)) {
            turn(&s);
        }
        log_info("stopped");
    }
    if (restores_terminal) { /* a front that crashed may have left it without echo */
        (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal);
    }
    tear_down(&s);
    return s.exit_code;
}
