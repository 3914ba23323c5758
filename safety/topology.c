/* Reading the KFD topology. Runs in the probe and the worker; may block like any amdgpu sysfs read.
 */
#include "safety/topology.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NODES "/sys/class/kfd/kfd/topology/nodes"

/* Targets with a code object in our builds. */
static const char *const supported[] = {"gfx1030", "gfx1031", "gfx1032", "gfx1034", "gfx1035",
                                        "gfx1036", "gfx1100", "gfx1101", "gfx1102", "gfx1103",
                                        "gfx1150", "gfx1151", "gfx1152", "gfx1200", "gfx1201"};

const char *topology_root(void)
{
    const char *root = getenv("ROCMFORGE_MACHINE_ROOT");
    return root ? root : "";
}

int topology_text(const char *root, const char *path, char *ret, size_t bytes)
{
    char full[TOPOLOGY_PATH_BYTES];
    snprintf(full, sizeof(full), "%s%s", root, path);
    int fd = open(full, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    ssize_t n = read(fd, ret, bytes - 1);
    int rc = n < 0 ? -errno : 0;
    close(fd);
    if (rc == 0) {
        n -= n > 0 && ret[n - 1] == '\n';
        ret[n] = '\0';
    }
    return rc;
}

int topology_number(const char *root, const char *path, uint64_t *ret)
{
    char text[32], *end;
    int rc = topology_text(root, path, text, sizeof(text));
    if (rc != 0) {
        return rc;
    }
    errno = 0;
    uint64_t n = strtoull(text, &end, 0);
    if (errno != 0 || end == text || *end != '\0') {
        return -EINVAL;
    }
    *ret = n;
    return 0;
}

/* The value in a "name value" line; 0 without one. */
static uint64_t property(const char *text, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, n) == 0 && line[n] == ' ') {
            return strtoull(line + n, NULL, 10);
        }
    }
    return 0;
}

static bool read_node(const char *root, unsigned node, struct gpu *g)
{
    char path[128], text[4096] = "";
    snprintf(path, sizeof(path), NODES "/%u/properties", node);
    if (topology_text(root, path, text, sizeof(text)) != 0 || property(text, "simd_count") == 0) {
        return false; /* a processor */
    }
    unsigned version = (unsigned)property(text, "gfx_target_version");
    unsigned location = (unsigned)property(text, "location_id");
    uint64_t per_cu = property(text, "simd_per_cu");
    *g = (struct gpu){.render_minor = (unsigned)property(text, "drm_render_minor")};
    snprintf(g->gfx, sizeof(g->gfx), "gfx%u%u%x", version / 10000 % 100, version / 100 % 100,
             version % 100);
    snprintf(g->pci, sizeof(g->pci), "%04x:%02x:%02x.%u",
             (unsigned)property(text, "domain") & 0xffff, location >> 8 & 0xff,
             location >> 3 & 0x1f, location & 7);
    g->n_cus = (unsigned)(property(text, "simd_count") / (per_cu ? per_cu : 2));
    for (size_t i = 0; i < COUNT_OF(supported); i++) {
        g->is_supported = g->is_supported || strcmp(g->gfx, supported[i]) == 0;
    }
    /* Integrated graphics may lack these; they stay 0. */
    snprintf(path, sizeof(path), "/sys/class/drm/renderD%u/device/mem_info_vram_total",
             g->render_minor);
    (void)!topology_number(root, path, &g->vram_bytes);
    snprintf(path, sizeof(path), "/sys/class/drm/renderD%u/device/mem_info_vram_used",
             g->render_minor);
    (void)!topology_number(root, path, &g->vram_used_bytes);
    return true;
}

int topology_read(const char *root, struct gpu ret[TOPOLOGY_MAX_GPUS])
{
    char full[TOPOLOGY_PATH_BYTES];
    snprintf(full, sizeof(full), "%s" NODES, root);
    DIR *d = opendir(full);
    if (!d) {
        return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
    }
    unsigned n_nodes = 0;
    for (struct dirent *e; (e = readdir(d));) {
        n_nodes += e->d_name[0] >= '0' && e->d_name[0] <= '9';
    }
    closedir(d);
    int n = 0;
    for (unsigned i = 0; i < n_nodes && n < TOPOLOGY_MAX_GPUS; i++) { /* numbered without gaps */
        n += read_node(root, i, &ret[n]);
    }
    return n;
}

int topology_choose(const struct gpu *gpus, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++) {
        if (gpus[i].vram_bytes > gpus[best].vram_bytes) {
            best = i;
        }
    }
    return best;
}

void topology_find_pci(const char *root, char ret[16])
{
    char full[TOPOLOGY_PATH_BYTES];
    snprintf(full, sizeof(full), "%s/sys/bus/pci/devices", root);
    ret[0] = '\0';
    DIR *d = opendir(full);
    for (struct dirent *e; d && !*ret && (e = readdir(d));) {
        char path[TOPOLOGY_PATH_BYTES];
        uint64_t vendor, class;
        snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.32s/vendor", e->d_name);
        if (topology_number(root, path, &vendor) != 0 || vendor != 0x1002) {
            continue;
        }
        snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.32s/class", e->d_name);
        if (topology_number(root, path, &class) == 0 && class >> 16 == 0x03) {
            snprintf(ret, 16, "%.15s", e->d_name);
        }
    }
    if (d) {
        closedir(d);
    }
}
