/* Measuring the card's memory (see probe_vram.h). Blocks as the driver's files do. */
#include "safety/probe_vram.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CLIENTS = 64 };

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

/* What the client has there: the name has changed between versions of the driver, and some give
 * both. */
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
    uint64_t busy = 0;
    snprintf(path, sizeof(path), "/sys/class/drm/renderD%u/device/gpu_busy_percent",
             g->render_minor);
    s.busy_percent = topology_number(root, path, &busy) == 0 ? (int)MIN(busy, (uint64_t)100) : -1;
    if (worker > 0) {
        read_clients(root, g, worker, &s);
    }
    s.n_displays = count_displays(root, g);
    if (rc != 0) {
        s.total_bytes = s.used_bytes = 0;
    }
    *ret = s;
    return rc;
}
