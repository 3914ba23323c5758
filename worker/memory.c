/* Memory of the machine and of this process's cgroup. Blocks only for reads of kernel files. */
#include "worker/memory.h"

#include "shared/num.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static uint64_t meminfo_available(void)
{
    char line[128];
    unsigned long long kb = 0;
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f) {
        return 0;
    }
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "MemAvailable: %llu kB", &kb) == 1) {
            break;
        }
    }
    fclose(f);
    return (uint64_t)kb * 1024;
}

/* One number of a cgroup file; false for "max" and for what is not there. */
static bool read_number(const char *group, const char *file, uint64_t *ret)
{
    char path[512], text[64];
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", group, file);
    FILE *f = fopen(path, "re");
    if (!f) {
        return false;
    }
    bool ok = fgets(text, sizeof text, f) != NULL;
    fclose(f);
    text[ok ? strcspn(text, "\n") : 0] = 0;
    return ok && num_parse_u64(text, ret);
}

/* The tightest room of the cgroup (version 2) and its parents. */
static uint64_t cgroup_room(void)
{
    char line[400], group[400] = "";
    uint64_t room = UINT64_MAX;
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f) {
        return room;
    }
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::", 3) == 0) {
            line[strcspn(line, "\n")] = 0;
            memcpy(group, line + 3, strlen(line + 3) + 1);
        }
    }
    fclose(f);
    for (char *slash = group + strlen(group); slash; slash = strrchr(group, '/')) {
        uint64_t max, now;
        *slash = 0;
        if (read_number(group, "memory.max", &max) && read_number(group, "memory.current", &now)) {
            room = MIN(room, max > now ? max - now : 0);
        }
    }
    return room;
}

uint64_t memory_available(void)
{
    uint64_t system = meminfo_available(), group = cgroup_room();
    return MIN(system, group);
}

void *memory_map(size_t bytes)
{
    void *p = mmap(NULL, MAX(bytes, (size_t)1), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void memory_unmap(void *p, size_t bytes)
{
    if (p) {
        munmap(p, MAX(bytes, (size_t)1));
    }
}

void *memory_map_fd(int fd, size_t bytes, bool is_writable)
{
    /* Huge pages can be mapped only where address and offset agree in their lower bits. */
    size_t room = bytes + MEMORY_HUGE_BYTES;
    char *at = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        return NULL;
    }
    size_t before = -(uintptr_t)at & (MEMORY_HUGE_BYTES - 1);
    size_t mapped = num_pad(bytes, (size_t)sysconf(_SC_PAGESIZE));
    void *map = mmap(at + before, bytes, is_writable ? PROT_READ | PROT_WRITE : PROT_READ,
                     (is_writable ? MAP_SHARED : MAP_PRIVATE) | MAP_FIXED, fd, 0);
    if (map == MAP_FAILED) {
        munmap(at, room);
        return NULL;
    }
    if (before > 0) {
        munmap(at, before);
    }
    munmap(at + before + mapped, room - before - mapped);
    return map;
}

size_t memory_make_huge(char *map, size_t bytes)
{
    madvise(map, bytes, MADV_HUGEPAGE);
    for (size_t at = 0; at < bytes; at += MEMORY_HUGE_BYTES) {
        map[at] = 0; /* what is wholly empty cannot be collapsed */
    }
    return madvise(map, bytes, MADV_COLLAPSE) == 0 ? bytes : 0;
}

void memory_collapse(char *at)
{
    (void)*(volatile char *)at; /* what is wholly empty cannot be collapsed */
    madvise(at, MEMORY_HUGE_BYTES, MADV_COLLAPSE);
}

void memory_let_go(const void *map, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)map;
    uintptr_t first = num_pad(from, page), end = (from + bytes) & ~(page - 1);
    if (first < end) { /* advice; it may fail for locked pages */
        madvise((void *)first, end - first, MADV_DONTNEED);
    }
}

int memory_check(const void *map, size_t bytes, const void **ret_bad)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)map & ~(page - 1);
    uintptr_t end = num_pad((uintptr_t)map + bytes, page);
    bool is_bad = at < end && madvise((void *)at, end - at, MADV_POPULATE_READ) != 0 &&
                  (errno == EFAULT || errno == EIO);
    for (; is_bad && at < end; at += page) { /* which one is it? */
        if (madvise((void *)at, page, MADV_POPULATE_READ) != 0) {
            *ret_bad = (const void *)MAX(at, (uintptr_t)map);
            return -EIO;
        }
    }
    return 0;
}

void memory_file_at(const void *at, struct memory_file *ret)
{
    char text[8 * 1024]; /* a line is shorter: a path has 4096 bytes at most */
    size_t n = 0;
    *ret = (struct memory_file){0};
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    for (ssize_t got; fd >= 0 && (got = read(fd, text + n, sizeof text - 1 - n)) > 0;) {
        n += (size_t)got;
        text[n] = 0;
        char *line = text, *end;
        for (; (end = strchr(line, '\n'));
             line = end + 1) { /* "from-to rwxp offset dev inode path" */
            char *next;
            uintptr_t from = strtoul(line, &next, 16), to = strtoul(next + 1, &next, 16);
            const char *path = memchr(line, '/', (size_t)(end - line));
            if ((uintptr_t)at < from || (uintptr_t)at >= to || !path) {
                continue;
            }
            ret->offset = strtoull(next + 6, &next, 16) + ((uintptr_t)at - from);
            (void)strtoul(next, &next, 16); /* the device, and behind its colon */
            (void)strtoul(next + 1, &next, 16);
            ret->inode = strtoull(next, NULL, 10);
            snprintf(ret->path, sizeof ret->path, "%.*s", (int)(end - path), path);
        }
        n -= (size_t)(line - text);
        memmove(text, line, n);
    }
    if (fd >= 0) {
        close(fd);
    }
}

int memory_file_error(const struct memory_file *f)
{
    struct stat st;
    bool is_whole = stat(f->path, &st) == 0 && st.st_ino == f->inode &&
                    f->offset < (uint64_t)st.st_size;
    return is_whole ? ERR_MODEL_IO : ERR_MODEL_CHANGED;
}

int memory_check_file(const void *map, size_t bytes, struct err *e)
{
    const void *bad;
    struct memory_file f;
    if (memory_check(map, bytes, &bad) == 0) {
        return 0;
    }
    memory_file_at(bad, &f);
    return err_set(e, memory_file_error(&f), "byte %llu of %.200s", (unsigned long long)f.offset,
                   f.path);
}
