/* Files behind the GGUF reader: mapping, split files, and whether they are still what they were.
 * May block on storage. A file that is cut short while mapped raises SIGBUS, which the process
 * handles. */
#include "shared/gguf_index.h"
#include "shared/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int64_t mtime_ns(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

/* The end of a path, which says more than its beginning. */
static const char *path_tail(const char *path)
{
    size_t n = strlen(path);
    return n > 120 ? path + n - 120 : path;
}

/* Puts the file in front of what went wrong in it. */
static void add_path(struct err *e, const char *path)
{
    if (e) {
        const struct err inner = *e;
        (void)err_set(e, inner.code, "%s: %.190s", path_tail(path), inner.detail);
    }
}

/* --- one file --- */

static int map_part(const char *path, struct gguf_part *ret, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO shall not hang us */
    if (fd < 0) {
        return err_set(e, ERR_GGUF_OPEN, "%s: %s", path_tail(path), strerrordesc_np(errno));
    }
    int rc = 0;
    void *map = MAP_FAILED;
    if (fstat(fd, &st) < 0) {
        rc = err_set(e, ERR_GGUF_OPEN, "%s: %s", path_tail(path), strerrordesc_np(errno));
    } else if (!S_ISREG(st.st_mode)) {
        rc = err_set(e, ERR_GGUF_MAGIC, "%s is no regular file", path_tail(path));
    } else if (st.st_size == 0) {
        rc = err_set(e, ERR_GGUF_TRUNCATED, "%s is empty", path_tail(path));
    } else {
        map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) {
            rc = err_set(e, -errno, "cannot map %s", path_tail(path));
        }
    }
    if (map == MAP_FAILED) {
        close(fd);
        return rc;
    }
    char *own = strdup(path);
    if (!own) {
        munmap(map, (size_t)st.st_size);
        close(fd);
        return err_set(e, -ENOMEM, "no memory to open %s", path_tail(path));
    }
    *ret = (struct gguf_part){.path = own,
                              .map = map,
                              .fd = fd,
                              .bytes = (size_t)st.st_size,
                              .mtime_ns = mtime_ns(&st),
                              .ino = st.st_ino};
    return 0;
}

static void unmap_part(struct gguf_part *p)
{
    if (p->map) {
        munmap((void *)(uintptr_t)p->map, p->bytes);
        close(p->fd);
    }
    free(p->path);
    *p = (struct gguf_part){0};
}

/* --- split files --- */

struct split {
    uint64_t no, count, n_tensors;
};

static int read_split(const struct gguf *g, struct split *ret, struct err *e)
{
    int rc = gguf_get_u64(g, "split.count", 0, LIMIT_GGUF_SPLITS, 0, &ret->count, e);
    if (rc == 0) {
        rc = gguf_get_u64(g, "split.no", 0, LIMIT_GGUF_SPLITS, 0, &ret->no, e);
    }
    if (rc == 0) {
        rc = gguf_get_u64(g, "split.tensors.count", 0, LIMIT_GGUF_TENSORS, 0, &ret->n_tensors, e);
    }
    return rc;
}

/* Length of what stands before "-00001-of-00003.gguf" in path; 0 when it does not end so. */
static size_t split_prefix(const char *path, uint64_t no, uint64_t count)
{
    char end[64];
    int n_end = snprintf(end, sizeof(end), "-%05" PRIu64 "-of-%05" PRIu64 ".gguf", no + 1, count);
    size_t n = strlen(path);
    if (n <= (size_t)n_end || strcmp(path + n - (size_t)n_end, end) != 0) {
        return 0;
    }
    return n - (size_t)n_end;
}

/* Maps (unless it is) and parses part i; *where: the file to blame from then on. */
static int open_part(struct gguf *g, uint64_t i, size_t n_prefix, const struct split *whole,
                     struct gguf *ret, const char **where, struct err *e)
{
    struct gguf_part *p = &g->parts[i];
    if (!p->map) {
        char *path;
        if (asprintf(&path, "%.*s-%05" PRIu64 "-of-%05" PRIu64 ".gguf", (int)n_prefix,
                     g->parts[whole->no].path, i + 1, whole->count) < 0) {
            return err_set(e, -ENOMEM, "no memory for a file name");
        }
        int rc = map_part(path, p, e);
        free(path);
        if (rc < 0) {
            return rc != ERR_GGUF_OPEN ? rc
                                       : err_set(e, ERR_GGUF_SPLIT,
                                                 "part %" PRIu64 " of %" PRIu64 " cannot be opened",
                                                 i + 1, whole->count);
        }
    }
    *where = p->path;
    struct split s = {0};
    int rc = gguf_parse_part(p->map, p->bytes, g->index, ret, e);
    if (rc == 0) {
        rc = read_split(ret, &s, e);
    }
    if (rc == 0 && (s.no != i || s.count != whole->count || s.n_tensors != whole->n_tensors)) {
        rc = err_set(e, ERR_GGUF_SPLIT,
                     "it says to be part %" PRIu64 " of %" PRIu64 " with %" PRIu64
                     " tensors in all, expected is part %" PRIu64 " of %" PRIu64 " with %" PRIu64,
                     s.no + 1, s.count, s.n_tensors, i + 1, whole->count, whole->n_tensors);
    }
    return rc;
}

/* The tensors of all parts in one list and one table. */
static int join_tensors(struct gguf *g, const struct gguf *parts, struct err *e)
{
    uint64_t n = 0;
    for (size_t i = 0; i < g->n_parts; i++) {
        n += parts[i].n_tensors; /* limits of limits.h multiplied at most */
    }
    struct gguf_names *names = &g->index->tensors;
    g->tensors = arena_alloc(&g->index->arena, n * sizeof(*g->tensors));
    if (!g->tensors || gguf_names_init(names, &g->index->arena, n) < 0) {
        return err_set(e, -ENOMEM, "no memory for %" PRIu64 " tensors", n);
    }
    g->n_tensors = 0;
    for (size_t i = 0; i < g->n_parts; i++) {
        for (size_t j = 0; j < parts[i].n_tensors; j++) {
            struct gguf_tensor *t = &g->tensors[g->n_tensors++];
            *t = parts[i].tensors[j];
            t->part = (uint32_t)i;
            struct gguf_str name = {t->name, strlen(t->name)};
            if (gguf_names_add(names, name) < 0) {
                char printable[64];
                return err_set(e, ERR_GGUF_SPLIT, "tensor '%s' stands in two parts",
                               gguf_printable(name, printable));
            }
        }
    }
    return 0;
}

static int open_parts(struct gguf *g, const struct split *whole, struct gguf *parts,
                      const char **where, struct err *e)
{
    const char *named = *where;
    size_t n_prefix = split_prefix(named, whole->no, whole->count);
    uint64_t n = 0;
    for (uint64_t i = whole->count; i-- > 0;) { /* the first last: its keys stay in the index */
        int rc = open_part(g, i, n_prefix, whole, &parts[i], where, e);
        if (rc < 0) {
            return rc;
        }
        n += parts[i].n_tensors;
    }
    *where = named;
    if (n != whole->n_tensors) {
        return err_set(e, ERR_GGUF_SPLIT,
                       "the parts hold %" PRIu64 " tensors, expected are %" PRIu64, n,
                       whole->n_tensors);
    }
    g->version = parts[0].version;
    g->alignment = parts[0].alignment;
    g->kv = parts[0].kv;
    g->n_kv = parts[0].n_kv;
    return join_tensors(g, parts, e);
}

/* Replaces g, which holds the one part that was named, by all parts. */
static int open_split(struct gguf *g, const struct split *whole, const char **where, struct err *e)
{
    if (whole->no >= whole->count || split_prefix(*where, whole->no, whole->count) == 0) {
        return err_set(e, ERR_GGUF_SPLIT,
                       "it is part %" PRIu64 " of %" PRIu64 ", but not named so (-%05" PRIu64
                       "-of-%05" PRIu64 ".gguf)",
                       whole->no + 1, whole->count, whole->no + 1, whole->count);
    }
    int rc;
    struct gguf_part *maps = calloc(whole->count, sizeof(*maps));
    struct gguf *parts = calloc(whole->count, sizeof(*parts));
    if (!maps || !parts) {
        rc = err_set(e, -ENOMEM, "no memory for %" PRIu64 " parts", whole->count);
    } else {
        maps[whole->no] = g->parts[0];
        free(g->parts);
        g->parts = maps;
        g->n_parts = whole->count;
        maps = NULL;
        rc = open_parts(g, whole, parts, where, e);
    }
    free(maps);
    free(parts);
    return rc;
}

/* --- whole models --- */

int gguf_open(const char *path, struct gguf *ret, struct err *e)
{
    struct gguf_part first = {0};
    int rc = map_part(path, &first, e);
    if (rc < 0) {
        return rc;
    }
    struct gguf g = {0};
    struct gguf_part *parts = malloc(sizeof(*parts));
    if (!parts) {
        unmap_part(&first);
        return err_set(e, -ENOMEM, "no memory to open %s", path_tail(path));
    }
    *parts = first;
    rc = gguf_parse(first.map, first.bytes, &g, e);
    g.parts = parts;
    g.n_parts = 1;
    const char *where = path;
    struct split split = {0};
    if (rc == 0) {
        rc = read_split(&g, &split, e);
    }
    if (rc == 0 && split.count > 1) {
        rc = open_split(&g, &split, &where, e);
    }
    if (rc < 0) {
        add_path(e, where);
        gguf_close(&g);
        return rc;
    }
    *ret = g;
    return 0;
}

void gguf_close(struct gguf *g)
{
    for (size_t i = 0; i < g->n_parts; i++) {
        unmap_part(&g->parts[i]);
    }
    free(g->parts);
    if (g->index) {
        arena_finish(&g->index->arena);
        free(g->index);
    }
    *g = (struct gguf){0};
}

void gguf_let_go(const struct gguf *g)
{
    for (size_t i = 0; i < g->n_parts; i++) { /* advice; it may fail for locked pages */
        (void)madvise((void *)(uintptr_t)g->parts[i].map, g->parts[i].bytes, MADV_DONTNEED);
    }
}

bool gguf_read(const struct gguf *g, const struct gguf_tensor *t, uint64_t offset, size_t bytes,
               void *to)
{
    if (t->part >= g->n_parts) {
        return false;
    }
    const struct gguf_part *p = &g->parts[t->part];
    uint64_t at = (uint64_t)((const uint8_t *)t->data - p->map) + offset;
    ssize_t n;
    do {
        n = pread(p->fd, to, bytes, (off_t)at);
    } while (n < 0 && errno == EINTR);
    return n == (ssize_t)bytes;
}

int gguf_check_unchanged(const struct gguf *g, struct err *e)
{
    for (size_t i = 0; i < g->n_parts; i++) {
        const struct gguf_part *p = &g->parts[i];
        struct stat st;
        if (stat(p->path, &st) < 0) {
            return err_set(e, ERR_MODEL_CHANGED, "%s cannot be found any more: %s",
                           path_tail(p->path), strerrordesc_np(errno));
        }
        if (st.st_ino != p->ino || mtime_ns(&st) != p->mtime_ns || (size_t)st.st_size != p->bytes) {
            return err_set(e, ERR_MODEL_CHANGED, "%s", path_tail(p->path));
        }
    }
    return 0;
}
