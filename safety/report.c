/* Crash reports on disk (see report.h); runs in rocmforge-probe, which may block. Invariant: only
 * folders whose names we could have given are ever read or removed, and nothing is followed out of
 * them. */
#include "safety/report.h"
#include "shared/json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TIME_CHARS = 20, LIST_BYTES = 8 * 1024 * 1024 }; /* 20261120T112233.444Z */

/* ---- names ---- */

static bool is_name(const char *name)
{
    static const char pattern[] = "00000000T000000.000Z-"; /* 0: a digit */
    static const char more[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    for (size_t i = 0; pattern[i]; i++) {
        bool fits = pattern[i] == '0' ? name[i] >= '0' && name[i] <= '9' : name[i] == pattern[i];
        if (!fits) {
            return false;
        }
    }
    size_t n = strlen(name);
    return n < MSG_NAME_BYTES && strspn(name + TIME_CHARS, more) == n - TIME_CHARS;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* To read what is in a folder, from its beginning; the descriptor stays the caller's. NULL: errno
 * says why. */
static DIR *open_folder(int folder_fd)
{
    int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d && fd >= 0) {
        close(fd);
    }
    return d;
}

/* The names of the newest REPORT_MAX reports, oldest first; owned by the caller. Returns how many.
 * A folder gives its names in no order: when twice as many are there, the older half goes. */
static size_t read_names(int crashes_fd, char (**ret)[MSG_NAME_BYTES])
{
    char(*names)[MSG_NAME_BYTES] = base_alloc(2 * REPORT_MAX * sizeof(*names));
    size_t n = 0;
    DIR *d = open_folder(crashes_fd);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (is_name(e->d_name)) {
            snprintf(names[n++], MSG_NAME_BYTES, "%.63s", e->d_name);
        }
        if (n == 2 * REPORT_MAX) {
            qsort(names, n, sizeof(*names), compare_names);
            n = REPORT_MAX;
            memcpy(names, names + REPORT_MAX, n * sizeof(*names));
        }
    }
    if (d) {
        closedir(d);
    }
    qsort(names, n, sizeof(*names), compare_names);
    size_t n_old = n > REPORT_MAX ? n - REPORT_MAX : 0;
    memmove(names, names + n_old, (n - n_old) * sizeof(*names));
    *ret = names;
    return n - n_old;
}

/* ---- writing ---- */

/* mkdir -p */
static int make_path(const char *path)
{
    char copy[4096];
    if (strlen(path) >= sizeof(copy)) {
        return -ENAMETOOLONG;
    }
    snprintf(copy, sizeof(copy), "%s", path);
    for (char *p = copy + 1; *p; p++) {
        if (*p == '/') {
            *p = '\0';
            if (mkdir(copy, 0700) != 0 && errno != EEXIST) {
                return -errno;
            }
            *p = '/';
        }
    }
    return mkdir(copy, 0700) != 0 && errno != EEXIST ? -errno : 0;
}

int report_open_dir(const char *dir)
{
    int rc = make_path(dir);
    if (rc != 0) {
        return rc;
    }
    int top = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (top < 0) {
        return -errno;
    }
    rc = mkdirat(top, "crashes", 0700) != 0 && errno != EEXIST ? -errno : 0;
    int fd = rc != 0 ? -1 : openat(top, "crashes", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    rc = rc != 0 ? rc : fd < 0 ? -errno : fd;
    close(top);
    return rc;
}

int report_create(int crashes_fd, int64_t unix_ms, const char *who, uint64_t epoch,
                  char ret_name[MSG_NAME_BYTES])
{
    char when[32];
    struct tm tm;
    time_t t = (time_t)(unix_ms / 1000);
    gmtime_r(&t, &tm);
    strftime(when, sizeof(when), "%Y%m%dT%H%M%S", &tm);
    for (int i = 0; i < 1000; i++) { /* two at once, or the clock was set back */
        char again[16] = "";
        if (i > 0) {
            snprintf(again, sizeof(again), "-%d", i + 1);
        }
        snprintf(ret_name, MSG_NAME_BYTES, "%.15s.%03dZ-%.12s-%llu%s", when, (int)(unix_ms % 1000),
                 who, (unsigned long long)epoch, again);
        if (mkdirat(crashes_fd, ret_name, 0700) == 0) {
            int fd = openat(crashes_fd, ret_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
            return fd < 0 ? -errno : fd;
        }
        if (errno != EEXIST) {
            return -errno;
        }
    }
    return -EEXIST;
}

static int write_all(int fd, const char *data, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t w = write(fd, data + done, n - done);
        if (w < 0 && errno != EINTR) {
            return -errno;
        }
        done += w > 0 ? (size_t)w : 0;
    }
    return 0;
}

int report_write(int report_fd, const char *file, const void *data, size_t n)
{
    char part[64];
    snprintf(part, sizeof(part), ".%s.part", file);
    int fd = openat(report_fd, part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -errno;
    }
    int rc = write_all(fd, data, n);
    rc = rc == 0 && fsync(fd) != 0 ? -errno : rc;
    close(fd);
    rc = rc == 0 && renameat(report_fd, part, report_fd, file) != 0 ? -errno : rc;
    if (rc != 0) {
        (void)unlinkat(report_fd, part, 0);
    }
    return rc == 0 && fsync(report_fd) != 0 ? -errno : rc;
}

/* ---- room ---- */

/* What the regular files of a report take; removes them if asked. */
static uint64_t walk(int report_fd, bool removes)
{
    uint64_t bytes = 0;
    DIR *d = open_folder(report_fd);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        if (fstatat(report_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode)) {
            bytes += (uint64_t)st.st_blocks * 512;
            if (removes) {
                (void)unlinkat(report_fd, e->d_name, 0);
            }
        }
    }
    if (d) {
        closedir(d);
    }
    return bytes;
}

static int open_report(int crashes_fd, const char *name)
{
    int fd = openat(crashes_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? -errno : fd;
}

void report_prune(int crashes_fd, size_t n_max, uint64_t bytes_max)
{
    char(*names)[MSG_NAME_BYTES];
    size_t n = read_names(crashes_fd, &names);
    uint64_t bytes = 0;
    for (size_t i = n; i-- > 0;) {
        int fd = open_report(crashes_fd, names[i]);
        bytes += fd < 0 ? 0 : walk(fd, false);
        bool stays = i == n - 1 || (n - i <= n_max && bytes <= bytes_max);
        if (!stays && fd >= 0) {
            bytes -= walk(fd, true);
            (void)unlinkat(crashes_fd, names[i], AT_REMOVEDIR);
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    free(names);
}

/* ---- reading ---- */

/* Appends a file's bytes; false where there is none. */
static bool read_file(int report_fd, const char *file, struct buf *ret)
{
    int fd = openat(report_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return false;
    }
    char chunk[16 * 1024];
    ssize_t n;
    while ((n = read(fd, chunk, sizeof(chunk))) > 0) {
        buf_add(ret, chunk, (size_t)n);
    }
    close(fd);
    return n == 0;
}

static int open_existing(const char *dir)
{
    char path[4096 + 16];
    snprintf(path, sizeof(path), "%s/crashes", dir);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 ? fd : errno == ENOENT ? ERR_NO_REPORTS : -errno;
}

int report_list(const char *dir, struct buf *ret)
{
    char(*names)[MSG_NAME_BYTES] = NULL;
    int crashes = open_existing(dir);
    if (crashes < 0 && crashes != ERR_NO_REPORTS) {
        return crashes;
    }
    size_t n = crashes < 0 ? 0 : read_names(crashes, &names);
    buf_str(ret, "{\"dir\":");
    json_put_string(ret, dir, strlen(dir));
    buf_str(ret, ",\"crashes\":[");
    bool is_first = true;
    for (size_t i = n; i-- > 0;) {
        struct buf one;
        buf_init(&one, LIST_BYTES);
        int fd = open_report(crashes, names[i]);
        json_t *summary = NULL;
        if (fd >= 0 && read_file(fd, "summary.json", &one) && one.len > 0) {
            bool is_whole = !one.failed && json_parse(one.data, one.len, &summary, NULL) == 0 &&
                            json_is_object(summary);
            buf_str(ret, is_first ? "" : ",");
            is_first = false;
            if (is_whole) {
                buf_add(ret, one.data, one.len);
            } else { /* the others are listed all the same */
                buf_printf(ret, "{\"name\":\"%s\",\"is_damaged\":true}", names[i]);
            }
            json_decref(summary);
        }
        if (fd >= 0) {
            close(fd);
        }
        buf_finish(&one);
    }
    buf_str(ret, "]}");
    free(names);
    if (crashes >= 0) {
        close(crashes);
    }
    return ret->failed ? -ENOMEM : 0;
}

static int find(const char *dir, const char *name, char ret_name[MSG_NAME_BYTES])
{
    int crashes = open_existing(dir);
    if (crashes < 0) {
        return crashes;
    }
    snprintf(ret_name, MSG_NAME_BYTES, "%s", name);
    if (!*name) {
        char(*names)[MSG_NAME_BYTES];
        size_t n = read_names(crashes, &names);
        snprintf(ret_name, MSG_NAME_BYTES, "%s", n > 0 ? names[n - 1] : "");
        free(names);
    }
    int fd = is_name(ret_name) ? open_report(crashes, ret_name) : -ENOENT;
    close(crashes);
    return fd == -ENOENT ? ERR_REPORT_NOT_FOUND : fd;
}

int report_find(const char *dir, const char *name, char ret_name[MSG_NAME_BYTES])
{
    int fd = find(dir, name, ret_name);
    if (fd >= 0) {
        close(fd);
    }
    return MIN(fd, 0);
}

int report_show(const char *dir, const char *name, struct buf *ret)
{
    static const char *const texts[] = {"stderr", "kernel", "process", "system", "config"};
    char found[MSG_NAME_BYTES];
    int fd = *name ? find(dir, name, found) : ERR_REPORT_NOT_FOUND;
    if (fd < 0) {
        return fd;
    }
    struct buf part;
    buf_init(&part, LIST_BYTES);
    bool has = read_file(fd, "report.json", &part);
    buf_str(ret, "{\"report\":");
    buf_add(ret, has && part.len ? part.data : "null", has && part.len ? part.len : 4);
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        char file[32];
        snprintf(file, sizeof(file), "%s.txt", texts[i]);
        buf_clear(&part);
        if (read_file(fd, file, &part)) {
            buf_printf(ret, ",\"%s\":", texts[i]);
            json_put_string(ret, part.data ? part.data : "", part.len);
        }
    }
    buf_char(ret, '}');
    buf_finish(&part);
    close(fd);
    return ret->failed ? -ENOMEM : 0;
}

/* ---- tar (POSIX.1-1988 ustar) ---- */

struct tar_header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type;
    char link[100], magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155];
    char pad[12];
};
_Static_assert(sizeof(struct tar_header) == 512, "a tar block");

static int put_entry(int out_fd, const char *name, const struct buf *b, int64_t mtime)
{
    static const char zeros[512];
    struct tar_header h = {.type = '0', .magic = "ustar", .version = {'0', '0'}};
    snprintf(h.name, sizeof(h.name), "%s", name);
    snprintf(h.mode, sizeof(h.mode), "%07o", 0644u);
    snprintf(h.uid, sizeof(h.uid), "%07o", 0u);
    snprintf(h.gid, sizeof(h.gid), "%07o", 0u);
    snprintf(h.size, sizeof(h.size), "%011llo", (unsigned long long)b->len);
    snprintf(h.mtime, sizeof(h.mtime), "%011llo", (unsigned long long)mtime);
    memset(h.checksum, ' ', sizeof(h.checksum));
    unsigned sum = 0;
    unsigned char bytes[sizeof(h)];
    memcpy(bytes, &h, sizeof(h));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        sum += bytes[i];
    }
    snprintf(h.checksum, sizeof(h.checksum), "%06o", sum);
    int rc = write_all(out_fd, (const char *)&h, sizeof(h));
    rc = rc == 0 && b->len ? write_all(out_fd, b->data, b->len) : rc;
    return rc == 0 ? write_all(out_fd, zeros, (512 - b->len % 512) % 512) : rc;
}

static int pack(int report_fd, DIR *d, const char *name, int out_fd)
{
    static const char end[1024];
    int rc = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(d));) {
        char path[100];
        struct stat st;
        struct buf b;
        if (e->d_name[0] == '.' || fstatat(report_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(st.st_mode) || strlen(name) + strlen(e->d_name) + 2 > sizeof(path)) {
            continue;
        }
        snprintf(path, sizeof(path), "%.63s/%.35s", name, e->d_name);
        buf_init(&b, REPORT_FILE_BYTES);
        if (read_file(report_fd, e->d_name, &b) && !b.failed) {
            rc = put_entry(out_fd, path, &b, st.st_mtime);
        }
        buf_finish(&b);
    }
    return rc == 0 ? write_all(out_fd, end, sizeof(end)) : rc;
}

int report_pack(const char *dir, const char *name, int out_fd, char ret_name[MSG_NAME_BYTES])
{
    int fd = find(dir, name, ret_name);
    if (fd < 0) {
        return fd;
    }
    DIR *d = open_folder(fd);
    int rc = d ? pack(fd, d, ret_name, out_fd) : -errno;
    if (d) {
        closedir(d);
    }
    close(fd);
    return rc;
}
