/* The monitor's loop (see probe_watch.h). One thread; blocks as the driver's files do. */
#include "safety/probe_watch.h"
#include "ipc/channel.h"
#include "safety/probe_sleep.h"
#include "safety/probe_smi.h"
#include "safety/probe_vram.h"
#include "safety/uevent.h"
#include "shared/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PERIOD_MS = 1000, SMI_FRESH_MS = 5000 };
#define FIRST_PID_NAMESPACE 0xEFFFFFFCu /* its inode; the same in all kernels */

struct watch {
    struct channel channel;
    const char *root;
    struct gpu gpu;
    pid_t worker;
    int uevents;            /* -1: not heard */
    struct smi_reading smi; /* the last */
    uint64_t smi_ms;        /* when that came; 0: never */
    bool is_wedged;         /* until the driver has the card again, nothing of ours may hold it */
};

static int greet(struct channel *c)
{
    struct msg_hello m = {.protocol = MSG_PROTOCOL_VERSION, .pid = (uint32_t)getpid()};
    snprintf(m.version, sizeof(m.version), "%s", ROCMFORGE_VERSION);
    channel_init(c, CHANNEL_CHILD_FD, MSG_PROBE, MSG_SUPERVISOR);
    int rc = channel_send(c, MSG_HELLO, 0, &m, sizeof(m), NULL, 0);
    c->state = MSG_STATE_GREETED;
    return rc;
}

/* A supervisor that has no room just now misses a measurement, not the monitor. */
static int put(struct watch *w, uint32_t type, const void *payload, size_t len)
{
    int rc = channel_send(&w->channel, type, 0, payload, len, NULL, 0);
    return rc == -EAGAIN ? 0 : rc;
}

static int say(struct watch *w, enum msg_card_event event, uint32_t pid, const char *detail)
{
    struct msg_card m = {.event = event, .pid = pid};
    snprintf(m.detail, sizeof(m.detail), "%.60s", detail);
    for (char *c = m.detail; *c; c++) { /* it goes into logs */
        *c = (char)(*c >= ' ' && *c <= '~' ? *c : '?');
    }
    return put(w, MSG_CARD, &m, sizeof(m));
}

/* ---- once a second ---- */

static int look(struct watch *w, uint64_t now_ms)
{
    struct vram_sample s;
    int rc = probe_vram_read(w->root, &w->gpu, w->worker, &s);
    bool has_smi = w->smi_ms > 0 && now_ms - w->smi_ms < SMI_FRESH_MS;
    if (rc != 0 && has_smi) { /* an old driver's or a processor's graphics */
        s.total_bytes = w->smi.total_bytes;
        s.used_bytes = w->smi.used_bytes;
    } else if (rc != 0) {
        return say(w, MSG_CARD_UNREAD, 0, strerror(-rc));
    }
    int busy = s.busy_percent < 0 && has_smi ? w->smi.busy_percent : s.busy_percent;
    struct msg_vram m = {.total_bytes = s.total_bytes,
                         .used_bytes = s.used_bytes,
                         .ours_bytes = s.ours_bytes,
                         .gtt_bytes = s.gtt_bytes,
                         .spilled_bytes = s.spilled_bytes,
                         .n_displays = s.n_displays,
                         .busy_percent = busy,
                         .celsius = has_smi ? w->smi.celsius : 0};
    snprintf(m.pci, sizeof(m.pci), "%s", w->gpu.pci);
    snprintf(m.gfx, sizeof(m.gfx), "%s", w->gpu.gfx);
    return put(w, MSG_VRAM, &m, sizeof(m));
}

/* ---- at once ---- */

/* The driver's pids are those of the machine's first namespace: in a container they name nobody. */
static uint32_t known_pid(const struct watch *w, uint32_t pid)
{
    struct stat s;
    bool is_first = *w->root || (stat("/proc/self/ns/pid", &s) == 0 && s.st_ino == FIRST_PID_NAMESPACE);
    return is_first ? pid : 0;
}

static int hear_supervisor(struct watch *w)
{
    static struct channel_msg in;
    int rc;
    while ((rc = channel_recv(&w->channel, &in)) == 1) {
        if (in.type == MSG_SLEEP) {
            sleep_release();
        }
        channel_msg_finish(&in);
    }
    return rc;
}

static int hear_logind(struct watch *w)
{
    enum sleep_news news = sleep_process();
    struct msg_sleep m = {.begins = news == SLEEP_BEGINS};
    return news == SLEEP_NONE ? 0 : channel_send(&w->channel, MSG_SLEEP, 0, &m, sizeof(m), NULL, 0);
}

static int hear_kernel(struct watch *w)
{
    static const enum msg_card_event events[] = {[UEVENT_RECOVERED] = MSG_CARD_RECOVERED,
                                                 [UEVENT_WEDGED] = MSG_CARD_WEDGED,
                                                 [UEVENT_BACK] = MSG_CARD_BACK};
    struct uevent e;
    int rc = 0;
    while (rc == 0 && w->uevents >= 0 && uevent_read(w->uevents, w->gpu.pci, &e) == 1) {
        w->is_wedged = e.kind == UEVENT_WEDGED || (w->is_wedged && e.kind != UEVENT_BACK);
        rc = say(w, events[e.kind], known_pid(w, e.pid), e.remedy);
    }
    return rc;
}

static int tell_event(struct watch *w, const struct smi_event *e)
{
    switch (e->kind) {
    case SMI_VM_FAULT:
        return say(w, MSG_CARD_FAULT, known_pid(w, (uint32_t)strtoul(e->message, NULL, 16)), e->message);
    case SMI_THROTTLE:
        return say(w, MSG_CARD_THROTTLED, 0, e->message);
    case SMI_PRE_RESET:
        return say(w, MSG_CARD_RESET_BEGINS, 0, e->message);
    case SMI_POST_RESET:
        return say(w, MSG_CARD_RESET_ENDS, 0, e->message);
    default:
        return 0;
    }
}

static int hear_smi(struct watch *w, uint64_t now_ms)
{
    struct probe_smi_news news;
    int rc = 0;
    while (rc == 0 && probe_smi_next(&news, now_ms) == 1) {
        if (news.kind == PROBE_SMI_READING) {
            w->smi = news.reading;
            w->smi_ms = now_ms;
        } else if (news.kind == PROBE_SMI_EVENT) {
            rc = tell_event(w, &news.event);
        }
    }
    return rc;
}

/* Until then; 0, or the supervisor is gone. */
static int wait_until(struct watch *w, uint64_t until_ms)
{
    int rc = 0;
    for (uint64_t now_ms = clock_ms(); rc == 0 && now_ms < until_ms; now_ms = clock_ms()) {
        probe_smi_tend(w->is_wedged ? NULL : w->gpu.pci, now_ms);
        struct pollfd p[] = {{.fd = w->channel.fd, .events = POLLIN},
                             {.fd = sleep_fd(), .events = POLLIN},
                             {.fd = w->uevents, .events = POLLIN},
                             {.fd = probe_smi_fd(), .events = POLLIN}};
        (void)poll(p, COUNT_OF(p), (int)(until_ms - now_ms));
        rc = hear_supervisor(w);
        rc = rc == 0 ? hear_logind(w) : rc;
        rc = rc == 0 ? hear_kernel(w) : rc;
        rc = rc == 0 ? hear_smi(w, clock_ms()) : rc;
    }
    return rc;
}

int probe_watch(const char *root, pid_t worker, bool is_wedged)
{
    static struct watch w;
    struct gpu gpus[TOPOLOGY_MAX_GPUS];
    int n = topology_read(root, gpus);
    if (greet(&w.channel) != 0) {
        return EXIT_PARENT_DIED;
    }
    if (n <= 0) {
        return EXIT_GPU_DEVICE;
    }
    w.root = root;
    w.worker = worker;
    w.is_wedged = is_wedged;
    w.gpu = gpus[topology_choose(gpus, n)];
    w.uevents = MAX(uevent_open(root), -1); /* without them, and without logind, nothing is announced */
    (void)!sleep_open();
    for (uint64_t due_ms = clock_ms();; due_ms += PERIOD_MS) {
        due_ms = MAX(due_ms, clock_ms()); /* after a sleep of the machine: once, not for every second */
        if (look(&w, clock_ms()) != 0 || wait_until(&w, due_ms + PERIOD_MS) != 0) {
            return EXIT_PARENT_DIED;
        }
    }
}
