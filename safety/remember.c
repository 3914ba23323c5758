/* The ladder's file (see remember.h). Blocks on disk: at the supervisor's start, and in a helper.
 */
#include "safety/remember.h"
#include "shared/buf.h"
#include "shared/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FILE_BYTES = 2 * REMEMBER_LINES * REMEMBER_LINE_BYTES };

void remember_key(const struct config *c, char ret[REMEMBER_KEY_BYTES])
{
    struct buf b;
    uint8_t digest[HASH_SHA256_BYTES];
    const struct config_list *models = &c->v[CONFIG_model].list;
    buf_init(&b, 0);
    buf_str(&b, ROCMFORGE_VERSION " ");
    buf_str(&b, c->v[CONFIG_device].str);
    for (size_t i = 0; i < models->n; i++) {
        buf_char(&b, '\n');
        buf_str(&b, models->items[i]);
    }
    hash_sha256(b.data, b.len, digest);
    buf_finish(&b);
    for (size_t i = 0; i < REMEMBER_KEY_BYTES / 2; i++) {
        snprintf(ret + 2 * i, 3, "%02x", digest[i]);
    }
}

void remember_line(const char *key, const struct ladder *l, int64_t unix_s,
                   char ret[REMEMBER_LINE_BYTES])
{
    snprintf(ret, REMEMBER_LINE_BYTES, "%s %s %u %lld", key, ladder_name(l->rung), l->n_doublings,
             (long long)unix_s);
}

/* LADDER_RUNGS: there is none of that name. Numbers, which older files hold, were those of another
 * table. */
static uint32_t rung_of(const char *name)
{
    uint32_t rung = 0;
    while (rung < LADDER_RUNGS && strcmp(ladder_name(rung), name) != 0) {
        rung++;
    }
    return rung;
}

static size_t read_text(const char *dir, char text[FILE_BYTES])
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/ladder", dir);
    int fd = *dir ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    ssize_t n = fd < 0 ? 0 : read(fd, text, FILE_BYTES - 1);
    if (fd >= 0) {
        close(fd);
    }
    text[MAX(n, 0)] = '\0';
    return (size_t)MAX(n, 0);
}

void remember_read(const char *dir, const char *key, struct ladder *ret, uint64_t now_ms)
{
    char text[FILE_BYTES];
    ladder_init(ret, LADDER_FULL, 0, now_ms);
    read_text(dir, text);
    size_t n = strlen(key);
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        char name[16];
        unsigned n_doublings;
        if (strncmp(line, key, n) == 0 && sscanf(line + n, " %15s %u", name, &n_doublings) == 2) {
            ladder_init(ret, rung_of(name), n_doublings, now_ms); /* out of range: nothing */
            return;
        }
    }
}

int remember_write(const char *dir, const char *line)
{
    char old[FILE_BYTES], path[4096], part[4096];
    struct buf b;
    size_t n_key = strcspn(line, " "), n_lines = 1;
    read_text(dir, old);
    buf_init(&b, 0);
    buf_printf(&b, "%s\n", line);
    for (char *at = old; *at && n_lines < REMEMBER_LINES;) {
        size_t n = strcspn(at, "\n");
        if (n > 0 && n < REMEMBER_LINE_BYTES && strncmp(at, line, n_key + 1) != 0) {
            buf_add(&b, at, n);
            buf_char(&b, '\n');
            n_lines++;
        }
        at += n + (at[n] == '\n');
    }
    snprintf(path, sizeof(path), "%s/ladder", dir);
    snprintf(part, sizeof(part), "%s/.ladder.part", dir);
    int fd =
        b.failed ? -1 : open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc = b.failed ? -ENOMEM : fd < 0 ? -errno : 0;
    rc = rc == 0 && write(fd, b.data, b.len) != (ssize_t)b.len ? -EIO : rc;
    rc = rc == 0 && fsync(fd) != 0 ? -errno : rc;
    if (fd >= 0) {
        close(fd);
    }
    buf_finish(&b);
    return rc == 0 && rename(part, path) != 0 ? -errno : rc;
}
