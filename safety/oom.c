/* Reading memory.events, and memory.oom_control of version 1; runs in the supervisor. cgroupfs
 * does not block. */
#include "safety/oom.h"
#include "shared/num.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { OOM_TEXT_BYTES = 4096 };

static bool read_text(const char *path, char text[OOM_TEXT_BYTES])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, OOM_TEXT_BYTES - 1);
    if (fd >= 0) {
        close(fd);
    }
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

/* The rest of the line that begins with prefix, terminated in place; NULL without one. */
static char *find_line(char *text, const char *prefix)
{
    size_t n = strlen(prefix);
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, prefix, n) == 0) {
            line[strcspn(line, "\n")] = '\0';
            return line + n;
        }
    }
    return NULL;
}

/* The group of the hierarchy whose line in /proc/self/cgroup holds this ("0::", ":memory:"),
 * terminated in place. */
static const char *find_group(char *text, const char *hierarchy)
{
    for (char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        char *at = strstr(line, hierarchy);
        if (at && at < line + strcspn(line, "\n") && (*hierarchy == ':' || at == line)) {
            at[strcspn(at, "\n")] = '\0';
            return at + strlen(hierarchy);
        }
    }
    return NULL;
}

uint64_t oom_kills(const char *root)
{
    static const struct {
        const char *hierarchy, *mount, *file;
    } places[] = {
        {"0::", "", "memory.events"},
        {"0::", "/unified", "memory.events"}, /* version 2 beside version 1 */
        {":memory:", "/memory", "memory.oom_control"},
    };
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        char text[OOM_TEXT_BYTES], path[2 * OOM_TEXT_BYTES];
        snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
        const char *group = read_text(path, text) ? find_group(text, places[i].hierarchy) : NULL;
        if (!group) {
            continue;
        }
        snprintf(path, sizeof(path), "%s/sys/fs/cgroup%s%s/%s", root, places[i].mount, group,
                 places[i].file);
        const char *count = read_text(path, text) ? find_line(text, "oom_kill ") : NULL;
        uint64_t n;
        if (count && num_parse_u64(count, &n)) {
            return n;
        }
    }
    return 0;
}
