/* Reading memory.events; runs in the supervisor. cgroupfs does not block. */
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

uint64_t oom_kills(const char *root)
{
    char text[OOM_TEXT_BYTES], path[OOM_TEXT_BYTES + 64];
    snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    const char *group = read_text(path, text) ? find_line(text, "0::") : NULL; /* version 2 */
    if (!group) {
        return 0;
    }
    snprintf(path, sizeof(path), "%s/sys/fs/cgroup%s/memory.events", root, group);
    const char *count = read_text(path, text) ? find_line(text, "oom_kill ") : NULL;
    uint64_t n = 0;
    return count && num_parse_u64(count, &n) ? n : 0;
}
