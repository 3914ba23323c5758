/* The monitor (see probe_vram.h). One thread; blocks as the driver's files do. */
#include "safety/probe_vram.h"
#include "ipc/channel.h"
#include "safety/probe_sleep.h"
#include "shared/clock.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PERIOD_MS = 1000, MAX_CLIENTS = 64 };

/* ---- one look ---- */

/* Connectors of the card (card0-DP-1, ...) on which something hangs. */
static unsigned count_displays(const char *root, const struct gpu *g)
{
    char path[TOPOLOGY_PATH_BYTES], text[32];
    unsigned n = 0;
    snprintf(path, sizeof(path), "%s/sys/class/drm", root);
    DIR *d = opendir(path);
    char card[16] = "", device[TOPOLOGY_PATH_BYTES];
    for (struct dirent *e; d && !*card && (e = readdir(d));) { /* cardN of this PCI device */
        if (strncmp(e->d_name, "card", 4) != 0 || strchr(e->d_name, '-')) {
            continue;
        }
        snprintf(device, sizeof(device), "/sys/class/drm/%.16s/device/drm/renderD%u/dev", e->d_name,
                 g->render_minor);
        if (topology_text(root, device, text, sizeof(text)) == 0) {
            snprintf(card, sizeof(card), "%.15s", e->d_name);
        }
    }
    size_t len = strlen(card);
    if (d) {
        rewinddir(d);
    }
    for (struct dirent *e; len > 0 && (e = readdir(d));) {
        if (strncmp(e->d_name, card, len) != 0 || e->d_name[len] != '-') {
            continue;
        }
        snprintf(device, sizeof(device), "/sys/class/drm/%.64s/status", e->d_name);
        n += topology_text(root, device, text, sizeof(text)) == 0 && strcmp(text, "connected") == 0;
    }
    if (d) {
        closedir(d);
    }
    return n;
}

/* The number in a line "name:\t123 KiB" of fdinfo, in bytes; 0 without one. */
static uint64_t field(const char *text, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, n) == 0 && line[n] == ':') {
            char *end;
            uint64_t v = strtoull(line + n + 1, &end, 10);
            return strncmp(end, " KiB", 4) == 0   ? v << 10
                   : strncmp(end, " MiB", 4) == 0 ? v << 20
                                                  : v;
        }
    }
    return 0;
}

/* What the client has there: the name has changed between versions of the driver, and some give both. */
static uint64_t memory(const char *text, const char *where)
{
    char resident[32], old[32];
    snprintf(resident, sizeof(resident), "drm-resident-%s", where);
    snprintf(old, sizeof(old), "drm-memory-%s", where);
    uint64_t n = field(text, resident);
    return n > 0 ? n : field(text, old);
}

static bool is_of_card(const char *text, const char *pci)
{
    const char *at = strstr(text, "drm-pdev:");
    at = at ? at + strlen("drm-pdev:") : NULL;
    return at && strncmp(at + strspn(at, " \t"), pci, strlen(pci)) == 0;
}

/* Sums over the worker's DRM clients; one client can have several descriptors. */
static void read_clients(const char *root, const struct gpu *g, pid_t worker, struct vram_sample *s)
{
    char path[TOPOLOGY_PATH_BYTES], text[4096];
    uint64_t seen[MAX_CLIENTS];
    size_t n_seen = 0;
    snprintf(path, sizeof(path), "%s/proc/%d/fdinfo", root, (int)worker);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof(path), "/proc/%d/fdinfo/%.16s", (int)worker, e->d_name);
        if (e->d_name[0] == '.' || topology_text(root, path, text, sizeof(text)) != 0 ||
            !is_of_card(text, g->pci)) {
            continue;
        }
        uint64_t id = field(text, "drm-client-id");
        bool is_known = n_seen == MAX_CLIENTS;
        for (size_t i = 0; i < n_seen; i++) {
            is_known = is_known || seen[i] == id;
        }
        if (is_known) {
            continue;
        }
        seen[n_seen++] = id;
        s->ours_bytes += memory(text, "vram");
        s->gtt_bytes += memory(text, "gtt");
        s->spilled_bytes += field(text, "amd-evicted-vram");
    }
    if (d) {
        closedir(d);
    }
}

int probe_vram_read(const char *root, const struct gpu *g, pid_t worker, struct vram_sample *ret)
{
    struct vram_sample s = {0};
    char path[128];
    snprintf(path, sizeof(path), "/sys/class/drm/renderD%u/device/mem_info_vram_total",
             g->render_minor);
    int rc = topology_number(root, path, &s.total_bytes);
    if (rc == 0) {
        snprintf(path, sizeof(path), "/sys/class/drm/renderD%u/device/mem_info_vram_used",
                 g->render_minor);
        rc = topology_number(root, path, &s.used_bytes);
    }
    if (rc != 0) {
        return rc;
    }
    if (worker > 0) {
        read_clients(root, g, worker, &s);
    }
    s.n_displays = count_displays(root, g);
    *ret = s;
    return 0;
}

/* ---- once a second ---- */

static int greet(struct channel *c)
{
    struct msg_hello m = {.protocol = MSG_PROTOCOL_VERSION, .pid = (uint32_t)getpid()};
    snprintf(m.version, sizeof(m.version), "%s", ROCMFORGE_VERSION);
    channel_init(c, CHANNEL_CHILD_FD, MSG_PROBE, MSG_SUPERVISOR);
    int rc = channel_send(c, MSG_HELLO, 0, &m, sizeof(m), NULL, 0);
    c->state = MSG_STATE_GREETED;
    return rc;
}

/* What the supervisor and logind have to say. */
static int listen_to(struct channel *c)
{
    static struct channel_msg in;
    int rc;
    while ((rc = channel_recv(c, &in)) == 1) {
        if (in.type == MSG_SLEEP) {
            sleep_release();
        }
        channel_msg_finish(&in);
    }
    enum sleep_news news = rc == 0 ? sleep_process() : SLEEP_NONE;
    if (news != SLEEP_NONE) {
        struct msg_sleep m = {.begins = news == SLEEP_BEGINS};
        rc = channel_send(c, MSG_SLEEP, 0, &m, sizeof(m), NULL, 0);
    }
    return rc;
}

int probe_vram_watch(const char *root, pid_t worker)
{
    struct gpu gpus[TOPOLOGY_MAX_GPUS];
    struct channel c;
    int n = topology_read(root, gpus);
    if (greet(&c) != 0) {
        return EXIT_PARENT_DIED;
    }
    if (n <= 0) {
        return EXIT_GPU_DEVICE;
    }
    const struct gpu *g = &gpus[topology_choose(gpus, n)];
    (void)!sleep_open(); /* without it nothing is announced */
    for (uint64_t due_ms = clock_ms();; due_ms += PERIOD_MS) {
        struct vram_sample s;
        if (probe_vram_read(root, g, worker, &s) != 0) {
            return EXIT_GPU_DEVICE;
        }
        struct msg_vram m = {.total_bytes = s.total_bytes,
                             .used_bytes = s.used_bytes,
                             .ours_bytes = s.ours_bytes,
                             .gtt_bytes = s.gtt_bytes,
                             .spilled_bytes = s.spilled_bytes,
                             .n_displays = s.n_displays};
        snprintf(m.pci, sizeof(m.pci), "%s", g->pci);
        snprintf(m.gfx, sizeof(m.gfx), "%s", g->gfx);
        int rc = channel_send(&c, MSG_VRAM, 0, &m, sizeof(m), NULL, 0);
        if (rc != 0 && rc != -EAGAIN) {
            return EXIT_PARENT_DIED;
        }
        uint64_t now_ms = clock_ms();
        due_ms = MAX(due_ms, now_ms); /* after a sleep of the machine: once, not for every second */
        while (now_ms < due_ms + PERIOD_MS) {
            struct pollfd p[] = {{.fd = c.fd, .events = POLLIN},
                                 {.fd = sleep_fd(), .events = POLLIN}};
            (void)poll(p, COUNT_OF(p), (int)(due_ms + PERIOD_MS - now_ms));
            if (listen_to(&c) != 0) {
                return EXIT_PARENT_DIED;
            }
            now_ms = clock_ms();
        }
    }
}
