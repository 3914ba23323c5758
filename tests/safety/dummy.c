/* A child that speaks the control protocol and nothing else: gateway, worker, terminal or probe by
 * its name, so that the supervisor is tested without the real ones. What it sees it writes to
 * stderr as lines that begin with '@'; how it misbehaves it reads from DUMMY_GATEWAY, DUMMY_WORKER
 * and DUMMY_PROBE (words separated by spaces). */
#include "ipc/channel.h"
#include "ipc/memfd.h"
#include "ipc/ring.h"
#include "ipc/status.h"
#include "shared/clock.h"
#include "shared/config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

static struct channel channel;
static enum msg_peer role;
static const char *name;
static uint64_t epoch;
static int listeners[LIMIT_CHANNEL_FDS], n_listeners;
static struct status_page *page;
static int request_bell = -1;
static bool is_cpu; /* the configuration says so */
static struct ring ring; /* requests: the gateway produces, the worker consumes */
static volatile sig_atomic_t told_to_end;

static bool does(const char *word)
{
    const char *plan = getenv(role == MSG_WORKER    ? "DUMMY_WORKER"
                              : role == MSG_GATEWAY ? "DUMMY_GATEWAY"
                                                    : "DUMMY_PROBE");
    size_t n = strlen(word);
    for (const char *p = plan; p && *p; p += strcspn(p, " "), p += *p == ' ') {
        if (strncmp(p, word, n) == 0 && (p[n] == ' ' || p[n] == '\0')) {
            return true;
        }
    }
    return false;
}

static void PRINTF_LIKE(1, 2) say(const char *fmt, ...)
{
    char line[1024];
    int at = snprintf(line, sizeof(line), "@%s ", name);
    va_list ap;
    va_start(ap, fmt);
    at += vsnprintf(line + at, sizeof(line) - (size_t)at - 1, fmt, ap);
    va_end(ap);
    line[at++] = '\n';
    (void)!write(STDERR_FILENO, line, (size_t)at); /* one line, one write */
}

static void send_message(uint32_t type, const void *payload, size_t len, const int *fds, int n_fds)
{
    if (channel_send(&channel, type, epoch, payload, len, fds, n_fds) != 0) {
        say("cannot send %s", msg_info(type)->name);
    }
}

static void greet(void)
{
    struct msg_hello m = {
        .protocol = MSG_PROTOCOL_VERSION, .pid = (uint32_t)getpid(), .epoch = epoch};
    strcpy(m.version, does("badversion") ? "9.9.9" : ROCMFORGE_VERSION);
    m.epoch += does("badepoch");
    send_message(MSG_HELLO, &m, sizeof(m), NULL, 0);
    channel.state = MSG_STATE_GREETED;
}

static void on_config(struct channel_msg *m)
{
    struct msg_config c;
    memcpy(&c, m->payload, sizeof(c));
    void *map;
    size_t bytes;
    struct config cfg;
    config_init(&cfg);
    if (memfd_map(m->fds[0], 1, 1 << 20, true, false, &map, &bytes) != 0 ||
        config_decode(&cfg, map, bytes, NULL) != 0) {
        say("bad config");
        return;
    }
    char keys[64] = "none";
    if (m->n_fds == 2) {
        ssize_t n = read(m->fds[1], keys, sizeof(keys) - 1);
        keys[n > 0 ? n : 0] = '\0';
        keys[strcspn(keys, "\n")] = '\0';
    }
    is_cpu = strcmp(cfg.v[CONFIG_device].str, "cpu") == 0;
    say("config %llu queue_size=%s keys=%s", (unsigned long long)c.generation,
        cfg.v[CONFIG_queue_size].str, keys);
    config_finish(&cfg);
    memfd_unmap(map, bytes);
}

static void on_attach(struct channel_msg *m)
{
    struct msg_attach a;
    memcpy(&a, m->payload, sizeof(a));
    void *map;
    size_t bytes;
    if (memfd_map(m->fds[0], 1, 1 << 24, false, true, &map, &bytes) != 0 ||
        ring_attach(&ring, map, bytes, a.epoch, dup(m->fds[2])) != 0) {
        say("bad ring");
        return;
    }
    bool can_write = memfd_map(m->fds[4], 1, 4096, false, true, &map, &bytes) == 0;
    if (!can_write && memfd_map(m->fds[4], 1, 4096, false, false, &map, &bytes) != 0) {
        say("bad status page");
        return;
    }
    page = status_attach(map, bytes, a.epoch);
    request_bell = ring.bell;
    epoch = a.epoch;
    channel.state = MSG_STATE_RUNNING;
    say("attach %llu %s", (unsigned long long)a.epoch, can_write ? "rw" : "ro");
}

static void send_bulk(void)
{
    static const char text[] = "a long prompt";
    struct msg_bulk b = {.request = 7, .bytes = sizeof(text)};
    for (int i = 0; i < (does("flood") ? 2000 : 1); i++) {
        int fd = memfd_create_const("bulk", text, sizeof(text));
        int rc;
        while ((rc = channel_send(&channel, MSG_BULK, epoch, &b, sizeof(b), &fd, 1)) == -EAGAIN) {
            poll(&(struct pollfd){.fd = channel.fd, .events = POLLOUT}, 1, -1);
        }
        close(fd);
        if (rc != 0) {
            say("cannot send BULK");
            return;
        }
    }
    if (does("stalebulk")) {
        epoch += 5;
        int fd = memfd_create_const("bulk", text, sizeof(text));
        send_message(MSG_BULK, &b, sizeof(b), &fd, 1);
        epoch -= 5;
        close(fd);
    }
}

static void on_bulk(struct channel_msg *m)
{
    static int n;
    void *map;
    size_t bytes;
    if (memfd_map(m->fds[0], 1, 1 << 20, true, false, &map, &bytes) != 0) {
        say("bad bulk");
        return;
    }
    n++;
    if (n == 1 || n % 1000 == 0) {
        say("bulk %d: %s", n, (const char *)map);
    }
    memfd_unmap(map, bytes);
}

static void become_ready(void)
{
    struct msg_ready r = {.epoch = epoch, .load_ns = 1};
    say("ready %llu pid %d", (unsigned long long)epoch, (int)getpid());
    send_message(MSG_READY, &r, sizeof(r), NULL, 0);
}

static void misbehave_loading(void)
{
    if (does("exit16") || (does("exit16later") && epoch > 1)) {
        _exit(16);
    }
    if (does("segv")) {
        raise(SIGSEGV);
    }
    if (does("words")) {
        status_last_words(page, "kernel matmul failed:\n\x1b[2J 0x%x", 0xdead);
        _exit(20);
    }
    if (does("slowload")) {
        usleep(300 * 1000);
    }
    if (does("hangload")) {
        pause();
    }
    if (does("garbage")) {
        (void)!write(channel.fd, "garbage", 7);
    }
    if (does("forge")) { /* a message that only the supervisor may send, past our own check */
        struct {
            uint32_t type, reserved;
            uint64_t epoch;
            struct msg_drain m;
        } forged = {.type = MSG_DRAIN, .epoch = epoch};
        (void)!write(channel.fd, &forged, sizeof(forged));
    }
}

static void *stat_thread(void *path)
{
    struct stat st;
    say("stuck %d", stat(path, &st));
    return NULL;
}

static void run_worker_loaded(void)
{
    if (does("worked") || (does("workedonce") && epoch == 1)) {
        atomic_store(&page->step, 5);
    }
    status_beat(page, STATUS_IDLE);
    become_ready();
    if (does("hang") || (does("hangonce") && epoch == 1)) {
        status_beat(page, STATUS_DECODE);
        say("hanging %llu", (unsigned long long)epoch);
    }
    if (getenv("DUMMY_STUCK") && epoch == 1) { /* a call that the kernel does not let go */
        struct stat st;
        status_beat(page, STATUS_DECODE);
        say("stuck %d", stat(getenv("DUMMY_STUCK"), &st));
    }
    if (getenv("DUMMY_STUCK_THREAD") && epoch == 1) { /* only one of its threads is held */
        pthread_t thread;
        status_beat(page, STATUS_DECODE);
        if (pthread_create(&thread, NULL, stat_thread, getenv("DUMMY_STUCK_THREAD")) == 0) {
            pause();
        }
    }
    if (does("idle")) { /* waits on the bell like a real one, but the test stops it */
        (void)ring_sleep(&ring);
    }
}

static void run_worker_attached(void)
{
    static bool is_loaded;
    if (is_loaded) { /* a new gateway */
        status_beat(page, STATUS_IDLE);
        become_ready();
        return;
    }
    is_loaded = true;
    status_beat(page, STATUS_LOADING);
    misbehave_loading();
    if (does("preflight") && !is_cpu) {
        struct msg_preflight p = {.device = 1};
        status_beat(page, STATUS_PREFLIGHT);
        send_message(MSG_PREFLIGHT, &p, sizeof(p), NULL, 0);
        return; /* goes on with the verdict */
    }
    run_worker_loaded();
}

static void run_gateway_attached(void)
{
    become_ready();
    if (does("raw")) { /* as a line editor does */
        struct termios t;
        tcgetattr(STDIN_FILENO, &t);
        cfmakeraw(&t);
        tcsetattr(STDIN_FILENO, TCSANOW, &t);
        say("is raw");
    }
    if (does("bulk")) {
        send_bulk();
    }
    if (does("ring") && epoch == 1) {
        usleep(50 * 1000); /* the worker sleeps by now */
        int rc = ring_put(&ring, MSG_CANCEL, &(struct msg_request){.request = 1}, 8, NULL, 0);
        say("rang %d", rc);
    }
    if (does("breach") && epoch == 1) {
        struct msg_breach b = {.epoch = epoch};
        strcpy(b.detail, "tail beyond capacity");
        send_message(MSG_BREACH, &b, sizeof(b), NULL, 0);
    }
    if (does("poison") && epoch == 1) {
        struct msg_poison p = {
            .digest = {7}, .since_unix_s = 5, .until_ms = clock_ms() + 60 * 1000};
        send_message(MSG_POISON, &p, sizeof(p), NULL, 0);
    }
    if (does("dies") || (does("diesonce") && epoch == 1)) {
        raise(SIGSEGV);
    }
}

static void on_verdict(struct channel_msg *m)
{
    struct msg_verdict v;
    memcpy(&v, m->payload, sizeof(v));
    say("verdict %d %s", v.err, v.detail);
    run_worker_loaded();
}

static void run_probe(void)
{
    struct msg_stage st = {.stage = 1, .status = 0, .ns = 1000};
    strcpy(st.name, "environment");
    strcpy(st.detail, "fine");
    if (does("dies")) {
        _exit(9);
    }
    send_message(MSG_STAGE, &st, sizeof(st), NULL, 0);
    struct msg_verdict v = {.err = does("refuses") ? ERR_GPU_ACCESS : 0};
    strcpy(v.detail, "from the probe");
    send_message(MSG_VERDICT, &v, sizeof(v), NULL, 0);
    exit(0);
}

static void on_detach(struct channel_msg *m)
{
    struct msg_detach d;
    memcpy(&d, m->payload, sizeof(d));
    say("detach %llu %s retry %u: %s", (unsigned long long)d.epoch, err_code(d.err),
        d.retry_after_ms, d.detail);
}

static void on_poison(struct channel_msg *m)
{
    struct msg_poison p;
    memcpy(&p, m->payload, sizeof(p));
    uint64_t now_ms = clock_ms();
    bool is_in_time = p.until_ms > now_ms + 30 * 1000 && p.until_ms <= now_ms + 60 * 1000;
    say("poison %d since %lld %s", p.digest[0], (long long)p.since_unix_s,
        is_in_time ? "in time" : "at the wrong time");
}

static void on_drain(struct channel_msg *m)
{
    struct msg_drain d;
    memcpy(&d, m->payload, sizeof(d));
    say("drain %llu", (unsigned long long)d.deadline_ms);
    if (!does("nodrain")) {
        struct msg_empty e = {0};
        send_message(MSG_DRAINED, &e, sizeof(e), NULL, 0);
    }
}

static void handle(struct channel_msg *m)
{
    switch (m->type) {
    case MSG_CONFIG:
        on_config(m);
        if (role == MSG_PROBE) {
            run_probe();
        }
        if (getenv("DUMMY_TERMINAL")) {
            say("terminal done");
            exit(atoi(getenv("DUMMY_TERMINAL")));
        }
        break;
    case MSG_LISTEN:
        for (int i = 0; i < m->n_fds; i++) {
            listeners[n_listeners++] = m->fds[i];
            m->fds[i] = -1;
        }
        say("listen %d", n_listeners);
        break;
    case MSG_ATTACH:
        on_attach(m);
        role == MSG_WORKER ? run_worker_attached() : run_gateway_attached();
        break;
    case MSG_BULK:
        on_bulk(m);
        break;
    case MSG_DETACH:
        on_detach(m);
        break;
    case MSG_POISON:
        on_poison(m);
        break;
    case MSG_PING:
        send_message(MSG_PING, m->payload, m->len, NULL, 0);
        break;
    case MSG_DRAIN:
        on_drain(m);
        break;
    case MSG_VERDICT:
        on_verdict(m);
        break;
    }
}

static void on_int(int sig)
{
    (void)sig;
    say("Ctrl-C");
}

static void on_term(int sig)
{
    (void)sig;
    told_to_end = 1;
}

static void answer_clients(void)
{
    for (int i = 0; i < n_listeners; i++) {
        int fd = accept4(listeners[i], NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            dprintf(fd, "dummy %d\n", (int)getpid());
            close(fd);
        }
    }
}

static int count_fds(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

int main(int argc, char **argv)
{
    role = strstr(argv[0], "worker")    ? MSG_WORKER
           : strstr(argv[0], "gateway") ? MSG_GATEWAY
                                        : MSG_PROBE;
    name = strchr(argv[0], '-') + 1;
    if (getenv("NOTIFY_SOCKET")) {
        say("could speak for the supervisor");
    }
    sigset_t blocked;
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    say("start pid %d fds %d pgrp %s sigint %s%s", (int)getpid(), count_fds(),
        getpgrp() == getpid() ? "own" : "shared",
        signal(SIGINT, SIG_DFL) == SIG_IGN ? "ignored" : "default",
        sigismember(&blocked, SIGTERM) ? " BLOCKED" : "");
    for (int i = 1; i < argc; i++) {
        say("arg %s", argv[i]);
        if (strcmp(argv[i], "--epoch") == 0 && i + 1 < argc) {
            epoch = strtoull(argv[i + 1], NULL, 10);
        }
    }
    struct sigaction sa = {.sa_handler = does("ignoreterm") ? SIG_IGN : on_term};
    sigaction(SIGTERM, &sa, NULL);
    signal(SIGINT, on_int);
    signal(SIGSEGV, SIG_DFL); /* a sanitizer's handler would make an exit of it */
    channel_init(&channel, CHANNEL_CHILD_FD, role, MSG_SUPERVISOR);
    greet();
    static struct channel_msg m;
    while (!told_to_end) {
        struct pollfd polls[1 + LIMIT_CHANNEL_FDS] = {{.fd = channel.fd, .events = POLLIN}};
        for (int i = 0; i < n_listeners; i++) {
            polls[1 + i] = (struct pollfd){.fd = listeners[i], .events = POLLIN};
        }
        if (poll(polls, 1 + (nfds_t)n_listeners, -1) < 0) {
            continue;
        }
        answer_clients();
        int rc;
        while ((rc = channel_recv(&channel, &m)) == 1) {
            handle(&m);
            channel_msg_finish(&m);
        }
        if (rc < 0) {
            say("channel: %s", err_code(rc));
            return 31;
        }
    }
    say("ends");
    return 0;
}
