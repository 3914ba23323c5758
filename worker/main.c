/* rocmforge-worker: the process that computes. As a child of the supervisor (`--epoch N`, control
 * channel at descriptor 3) it greets, takes configuration and shared memory, loads the models and
 * runs the token loop until it is drained; `rocmforge-worker NAME ...` runs an offline tool.
 *
 * It lives and dies with the supervisor (parent-death signal), leaves no core (GPU memory is mapped
 * in it), and leaves the terminal's signals to the supervisor, whose SIGTERM ends it at once. What
 * else ends it is told three times: in the status page's last words, in the log, in the exit
 * code. */
#include "ipc/settings.h"
#include "shared/clock.h"
#include "shared/log.h"
#include "shared/num.h"
#include "worker/bus.h"
#include "worker/loop.h"
#include "worker/sandbox.h"
#include "worker/stores.h"
#include "worker/tool.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

struct server {
    uint64_t epoch, start_ns;
    bool is_told; /* what ends it came from the supervisor, which has logged it */
    struct channel channel;
    struct channel_msg msg; /* scratch */
    struct config config;
    struct attach attach;
    struct stores *stores; /* owned */
    struct device device;
    struct models models;
};

/* ---- the handshake ---- */

static int say(struct server *s, enum msg_type type, const void *payload, size_t len)
{
    return channel_send(&s->channel, type, s->epoch, payload, len, NULL, 0);
}

static int say_hello(struct server *s, struct err *e)
{
    struct msg_hello m = {
        .protocol = MSG_PROTOCOL_VERSION, .pid = (uint32_t)getpid(), .epoch = s->epoch};
    snprintf(m.version, sizeof(m.version), "%s", ROCMFORGE_VERSION);
    int err = say(s, MSG_HELLO, &m, sizeof(m));
    s->channel.state = MSG_STATE_GREETED;
    return err < 0 ? err_set(e, err, "HELLO") : 0;
}

static int take_config(struct server *s, struct err *e)
{
    struct config fresh;
    int err = settings_read(s->msg.fds[0], &fresh, e);
    if (err == 0) {
        config_finish(&s->config);
        s->config = fresh;
        log_init("worker", (enum log_level)fresh.v[CONFIG_log_level].i,
                 (enum log_format)fresh.v[CONFIG_log_format].i);
    }
    return err;
}

enum { GOT_CONFIG = 1, GOT_ATTACH = 2, GOT_ALL = 3, GOT_DRAIN = 4 };

/* Takes one message of the handshake. Returns the bit of what came. */
static int take_message(struct server *s, struct err *e)
{
    int err;
    switch (s->msg.type) {
    case MSG_CONFIG:
        err = take_config(s, e);
        return err < 0 ? err : GOT_CONFIG;
    case MSG_ATTACH:
        if (s->attach.status) {
            return err_set(e, ERR_PROTOCOL, "ATTACH before READY");
        }
        err = attach_open(&s->attach, &s->msg);
        s->channel.state = MSG_STATE_RUNNING;
        return err < 0 ? err_set(e, err, "ATTACH") : GOT_ATTACH;
    case MSG_STORE:
        err = stores_receive(s->stores, &s->msg);
        return err < 0 ? err_set(e, err, "STORE") : 0;
    case MSG_DRAIN:
        return GOT_DRAIN;
    default:
        return err_set(e, ERR_PROTOCOL, "control message %s before READY",
                       msg_info(s->msg.type)->name);
    }
}

/* Until configuration and shared memory are there. 1: drained instead. */
static int shake_hands(struct server *s, struct err *e)
{
    int got = 0;
    int err = say_hello(s, e);
    while (err == 0 && got != GOT_ALL) {
        struct pollfd p = {.fd = s->channel.fd, .events = POLLIN};
        poll(&p, 1, -1);
        int n = channel_recv(&s->channel, &s->msg);
        if (n < 0) {
            return err_set(e, n, "the control channel");
        }
        if (n == 1) {
            int what = take_message(s, e);
            channel_msg_finish(&s->msg);
            if (what < 0 || what == GOT_DRAIN) {
                return what < 0 ? what : 1;
            }
            got |= what;
        }
    }
    return err;
}

static void say_drained(struct server *s)
{
    struct msg_empty m = {0};
    if (say(s, MSG_DRAINED, &m, sizeof(m)) < 0) {
        log_warn("the supervisor did not take DRAINED");
    }
}

/* ---- loading ---- */

static void show_progress(void *arg, uint64_t done, uint64_t total)
{
    struct server *s = arg;
    struct status_page *page = s->attach.status;
    atomic_store_explicit(&page->load_total_bytes, total, memory_order_relaxed);
    atomic_store_explicit(&page->load_done_bytes, done, memory_order_relaxed);
    status_beat(page, STATUS_LOADING);
    /* A shutdown need not wait for a large model. */
    if (channel_recv(&s->channel, &s->msg) == 1) {
        bool is_drain = s->msg.type == MSG_DRAIN;
        channel_msg_finish(&s->msg);
        if (is_drain) {
            say_drained(s);
            _exit(EXIT_OK);
        }
    }
}

/* The probe's verdict, by way of the supervisor. */
static int preflight(void *arg, uint32_t index, struct err *e)
{
    struct server *s = arg;
    struct msg_preflight question = {.device = index};
    int err = say(s, MSG_PREFLIGHT, &question, sizeof(question));
    if (err < 0) {
        return err_set(e, err, "PREFLIGHT");
    }
    for (;;) {
        struct pollfd p = {.fd = s->channel.fd, .events = POLLIN};
        poll(&p, 1, -1);
        int n = channel_recv(&s->channel, &s->msg);
        if (n < 0) {
            return err_set(e, n, "the control channel");
        }
        enum msg_type type = n == 1 ? s->msg.type : 0;
        struct msg_verdict verdict = {0};
        if (type == MSG_VERDICT) {
            memcpy(&verdict, s->msg.payload, sizeof(verdict));
            verdict.detail[sizeof(verdict.detail) - 1] = 0;
        }
        if (n == 1) {
            channel_msg_finish(&s->msg);
        }
        if (type == MSG_DRAIN) {
            say_drained(s);
            _exit(EXIT_OK);
        }
        if (type == MSG_VERDICT) {
            s->is_told = verdict.err < 0;
            return verdict.err < 0 ? err_set(e, verdict.err, "%.200s", verdict.detail) : 0;
        }
    }
}

static int serve(struct server *s, struct err *e)
{
    int err = shake_hands(s, e);
    if (err != 0) {
        return err; /* 1: drained */
    }
    char lock_dir[DEVICE_PATH_BYTES];
    err = sandbox_enter(device_lock_dir(&s->config, lock_dir) ? lock_dir : NULL, e);
    if (err < 0) {
        return err;
    }
    status_beat(s->attach.status, STATUS_PREFLIGHT);
    char purpose[40];
    snprintf(purpose, sizeof(purpose), "worker, epoch %llu", (unsigned long long)s->epoch);
    err = device_open(&s->device, &s->config, purpose, s->attach.status, preflight, s, e);
    if (err < 0) {
        return err;
    }
    status_beat(s->attach.status, STATUS_LOADING);
    err = models_load(&s->models, &s->config, &s->device, s->stores, show_progress, s, e);
    if (err < 0) {
        return err;
    }
    struct loop *loop;
    err = loop_create(&s->models, &s->channel, &s->attach, (size_t)s->config.v[CONFIG_queue_size].i,
                      s->config.v[CONFIG_model_idle].num, &loop);
    if (err < 0) {
        return err_set(e, err, "starting the token loop");
    }
    struct msg_ready ready = {.epoch = s->epoch, .load_ns = clock_ns() - s->start_ns};
    err = say(s, MSG_READY, &ready, sizeof(ready));
    if (err < 0) {
        err_set(e, err, "READY");
    } else {
        log_info("ready in %.0f ms", (double)ready.load_ns / 1e6);
        err = loop_run(loop, e);
    }
    loop_destroy(&loop);
    return err;
}

/* What ended it, in every place where somebody looks. */
static int report(struct server *s, const struct err *e)
{
    if (e->code == ERR_PEER_GONE) {
        return EXIT_PARENT_DIED;
    }
    char text[2 * ERR_DETAIL_BYTES];
    err_format(e, text, sizeof(text));
    if (!s->is_told) {
        log_error("%s", text);
    }
    if (s->attach.status) {
        status_last_words(s->attach.status, "%s", text);
    }
    return err_exit_code(e->code);
}

static int run_server(uint64_t epoch)
{
    static struct server s;
    struct err e = {0};
    s.epoch = epoch;
    s.start_ns = clock_ns();
    log_init("worker", LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    static const int ignored[] = {SIGINT, SIGHUP, SIGPIPE};
    for (size_t i = 0; i < COUNT_OF(ignored); i++) {
        signal(ignored[i], SIG_IGN);
    }
    config_init(&s.config);
    attach_init(&s.attach);
    bus_guard(&s.attach);
    device_init(&s.device);
    channel_init(&s.channel, CHANNEL_CHILD_FD, MSG_WORKER, MSG_SUPERVISOR);
    s.stores = stores_create(&s.channel, epoch);
    int err = serve(&s, &e);
    if (err > 0) {
        say_drained(&s);
    } else if (err < 0) {
        e.code = err;
    }
    int code = err < 0 ? report(&s, &e) : EXIT_OK;
    models_finish(&s.models);
    device_close(&s.device);
    stores_destroy(&s.stores);
    attach_close(&s.attach);
    config_finish(&s.config);
    channel_close(&s.channel);
    return code;
}

/* ---- the command line ---- */

static const struct {
    const char *name, *summary;
    tool_fn *run;
} tools[] = {
#define TOOL(name, function, summary) {#name, summary, function},
#include "worker/tool.def"
#undef TOOL
};

static void usage(FILE *to)
{
    fprintf(to,
            "rocmforge-worker %s: started by rocmforge; by hand it runs a tool\n\n"
            "usage: rocmforge-worker TOOL [options]\n\n",
            ROCMFORGE_VERSION);
    for (size_t i = 0; i < COUNT_OF(tools); i++) {
        fprintf(to, "  %-15s %s\n", tools[i].name, tools[i].summary);
    }
}

int main(int argc, char **argv)
{
    uint64_t epoch;
    if (argc == 3 && strcmp(argv[1], "--epoch") == 0 && num_parse_u64(argv[2], &epoch)) {
        return run_server(epoch);
    }
    for (size_t i = 0; argc >= 2 && i < COUNT_OF(tools); i++) {
        if (strcmp(argv[1], tools[i].name) == 0) {
            return tools[i].run(argc - 1, argv + 1);
        }
    }
    bool is_asked = argc == 2 && strcmp(argv[1], "--help") == 0;
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        printf("rocmforge-worker %s\n", ROCMFORGE_VERSION);
        return EXIT_OK;
    }
    usage(is_asked ? stdout : stderr);
    return is_asked ? EXIT_OK : EXIT_USAGE;
}
