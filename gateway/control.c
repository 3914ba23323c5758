/* The control channel (see control.h). Runs on the gateway's loop. Invariant: no byte from a client
 * is read before the sandbox stands. */
#include "gateway/control.h"
#include "gateway/epoch.h"
#include "gateway/sandbox.h"
#include "ipc/settings.h"
#include "shared/clock.h"
#include "shared/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void stop(struct control *c, int exit_code)
{
    c->exit_code = exit_code;
    c->is_over = true;
    uv_stop(c->loop);
}

static void complain(const char *what, const struct err *e)
{
    char text[ERR_DETAIL_BYTES + 256];
    log_error("%s: %s", what, err_format(e, text, sizeof(text)));
}

static int take_config(struct control *c, struct channel_msg *m, struct err *e)
{
    struct config config;
    int rc = settings_read(m->fds[0], &config, e);
    if (rc == 0) {
        log_init(c->front->role, (enum log_level)config.v[CONFIG_log_level].i,
                 (enum log_format)config.v[CONFIG_log_format].i);
        c->drain_ms = (uint64_t)(config.v[CONFIG_drain_timeout].num * 1000);
        rc = c->front->configure(c->front_state, &config, m->n_fds > 1 ? m->fds[1] : -1, e);
        config_finish(&config);
    }
    return rc;
}

static int take_listen(struct control *c, struct channel_msg *m, struct err *e)
{
    struct msg_listen l;
    memcpy(&l, m->payload, sizeof(l));
    if (l.n_tcp > LIMIT_CHANNEL_FDS || l.n_unix > LIMIT_CHANNEL_FDS ||
        l.n_tcp + l.n_unix != (uint32_t)m->n_fds || !c->front->listen || !c->has_config) {
        return err_set(e, ERR_PROTOCOL, "LISTEN does not fit");
    }
    int rc = c->front->listen(c->front_state, m->fds, l.n_tcp, l.n_unix, e);
    if (rc == 0 && c->is_sandboxed) {
        rc = sandbox_enter(c->loop, e);
    } else if (rc == 0) {
        log_warn("running without the sandbox");
    }
    return rc;
}

static void take_attach(struct control *c, struct channel_msg *m)
{
    struct msg_attach a;
    memcpy(&a, m->payload, sizeof(a));
    c->channel.state = MSG_STATE_GREETED | MSG_STATE_RUNNING;
    int rc = epoch_attach(&c->link, &a, m->fds);
    if (rc < 0) {
        log_error("epoch %llu cannot be attached: %s", (unsigned long long)a.epoch, err_text(rc));
        struct msg_breach b = {.epoch = a.epoch};
        snprintf(b.detail, sizeof(b.detail), "its rings cannot be attached");
        notice_send(&c->link.notice, MSG_BREACH, a.epoch, &b, sizeof(b));
    }
}

/* A wrong configuration at the start is the end; at a reload the old one stays. */
static void take(struct control *c, struct channel_msg *m)
{
    struct err e;
    union {
        struct msg_detach detach;
        struct msg_drain drain;
        struct msg_poison poison;
        struct msg_told told;
    } p;
    switch (m->type) {
    case MSG_CONFIG:
        if (take_config(c, m, &e) == 0) {
            c->has_config = true;
        } else {
            complain(c->has_config ? "the old configuration stays" : "configuration", &e);
            if (!c->has_config) {
                stop(c, err_exit_code(e.code));
            }
        }
        break;
    case MSG_LISTEN:
        if (take_listen(c, m, &e) < 0) {
            complain("start", &e);
            stop(c, err_exit_code(e.code));
        }
        break;
    case MSG_ATTACH:
        take_attach(c, m);
        break;
    case MSG_DETACH:
        memcpy(&p.detach, m->payload, sizeof(p.detach));
        epoch_detach(&c->link, &p.detach);
        break;
    case MSG_PING:
        notice_send(&c->link.notice, MSG_PING, c->link.epoch, m->payload, m->len);
        break;
    case MSG_POISON:
        memcpy(&p.poison, m->payload, sizeof(p.poison));
        link_poison(&c->link, &p.poison);
        break;
    case MSG_VRAM:
        memcpy(&c->link.vram, m->payload, sizeof(c->link.vram));
        c->link.vram_ms = clock_ms();
        break;
    case MSG_TALLY:
        memcpy(&c->link.tally, m->payload, sizeof(c->link.tally));
        break;
    case MSG_TOLD:
        memcpy(&p.told, m->payload, sizeof(p.told));
        if (c->front->told) {
            c->front->told(c->front_state, &p.told, m->n_fds > 0 ? m->fds[0] : -1);
        }
        break;
    case MSG_DRAIN:
        memcpy(&p.drain, m->payload, sizeof(p.drain));
        c->front->drain(c->front_state, p.drain.deadline_ms);
        break;
    default: /* the table lets nothing else through */
        break;
    }
}

static void on_channel(uv_poll_t *poll, int status, int events)
{
    struct control *c = poll->data;
    static struct channel_msg m;
    (void)events;
    int rc = status < 0 ? ERR_PEER_GONE : 1;
    while (rc == 1 && !c->is_over && (rc = channel_recv(&c->channel, &m)) == 1) {
        take(c, &m);
        channel_msg_finish(&m);
    }
    if (rc == ERR_PEER_GONE) {
        stop(c, EXIT_OK); /* the supervisor ended: so do we */
    } else if (rc < 0) {
        log_error("the supervisor sent what it may not send now");
        stop(c, EXIT_PROTOCOL);
    }
}

static void on_link_change(void *arg)
{
    struct control *c = arg;
    static const char *const words[] = {"no worker yet", "worker is loading", "worker is ready",
                                        "worker is down"};
    log_info("epoch %llu: %s", (unsigned long long)c->link.epoch, words[c->link.state]);
    c->front->worker_changed(c->front_state);
}

static void on_drained(void *arg)
{
    struct control *c = arg;
    struct msg_empty m = {0};
    notice_send(&c->link.notice, MSG_DRAINED, c->link.epoch, &m, sizeof(m));
    c->is_drained = true;
    if (c->leaves_when_drained) {
        stop(c, EXIT_OK);
    }
}

/* From the supervisor, which has drained us before; or from a service manager that signals the
 * whole unit, which must not cut off answers. */
static void on_term(uv_signal_t *h, int number)
{
    struct control *c = h->data;
    (void)number;
    c->leaves_when_drained = true;
    if (c->is_drained) {
        stop(c, EXIT_OK);
    } else {
        c->front->drain(c->front_state, c->drain_ms);
    }
}

static void on_end(void *arg, int exit_code)
{
    stop(arg, exit_code);
}

int control_open(struct control *c, uv_loop_t *loop, int fd, const struct front *front,
                 size_t n_files, bool is_sandboxed)
{
    *c = (struct control){.loop = loop, .front = front, .is_sandboxed = is_sandboxed};
    channel_init(&c->channel, fd, MSG_GATEWAY, MSG_SUPERVISOR);
    int rc = uv_poll_init(loop, &c->poll, fd);
    if (rc < 0) {
        return rc;
    }
    c->poll.data = c;
    rc = uv_signal_init(loop, &c->term);
    c->term.data = c;
    if (rc == 0) {
        rc = uv_signal_start(&c->term, on_term, SIGTERM);
    }
    if (rc < 0) {
        return rc;
    }
    rc = link_open(&c->link, loop, &c->channel, on_link_change, c);
    if (rc < 0) {
        return rc;
    }
    const struct front_host host = {.drained = on_drained, .end = on_end, .arg = c};
    c->front_state = front->open(loop, &c->link, n_files, &host);
    struct msg_hello hello = {.protocol = MSG_PROTOCOL_VERSION, .pid = (uint32_t)getpid()};
    snprintf(hello.version, sizeof(hello.version), "%s", ROCMFORGE_VERSION);
    rc = channel_send(&c->channel, MSG_HELLO, 0, &hello, sizeof(hello), NULL, 0);
    c->channel.state = MSG_STATE_GREETED;
    return rc < 0 ? rc : uv_poll_start(&c->poll, UV_READABLE, on_channel);
}

void control_close(struct control *c)
{
    c->front->close(c->front_state);
    link_close(&c->link);
    uv_close((uv_handle_t *)&c->poll, NULL);
    uv_close((uv_handle_t *)&c->term, NULL);
    channel_close(&c->channel);
}
