/* GGUF writer. Offline tools only; blocks on storage. Metadata is collected in memory, tensor data
 * goes straight to the file. Invariant: path holds a whole file or what it held before. */
#include "shared/ggufw.h"
#include "shared/buf.h"
#include "shared/num.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GGUFW_ALIGNMENT = 32, GGUFW_BUFFER_BYTES = 1024 * 1024 };

struct ggufw {
    char *path, *part; /* owned; part is NULL until it is there and once it is renamed */
    int folder;        /* that holds them */
    FILE *file;
    struct buf kv, infos;     /* the two lists as they stand in the format */
    struct buf keys, tensors; /* names, each with its terminator */
    struct buf sizes;         /* u64 bytes of each tensor */
    uint64_t n_kv, n_tensors, alignment;
    uint64_t offset; /* of the next tensor declared, in the data */
    size_t current;  /* tensor being written */
    uint64_t left;   /* bytes it still needs */
    bool has_begun;
    struct err failed; /* first failure of a call that returns nothing */
};

static uint64_t padding(const struct ggufw *w, uint64_t n)
{
    return (w->alignment - n % w->alignment) % w->alignment;
}

static int open_files(struct ggufw *w, char *part, struct err *e)
{
    char *folder = strdup(w->path);
    if (!folder) {
        return err_set(e, -ENOMEM, "no memory to write %.200s", w->path);
    }
    w->folder = open(dirname(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(folder);
    const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
    int fd = w->folder < 0 ? -1 : open(part, flags, 0666);
    if (fd < 0) {
        return err_set(e, -errno, "cannot create %.200s", part);
    }
    w->part = part;
    w->file = fdopen(fd, "w");
    if (!w->file) {
        int rc = err_set(e, -errno, "cannot create %.200s", part);
        close(fd);
        return rc;
    }
    (void)setvbuf(w->file, NULL, _IOFBF, GGUFW_BUFFER_BYTES);
    return 0;
}

int ggufw_create(const char *path, struct ggufw **ret, struct err *e)
{
    char *part = NULL;
    struct ggufw *w = calloc(1, sizeof(*w));
    if (!w || !(w->path = strdup(path)) || asprintf(&part, "%s.part", path) < 0) {
        if (w) {
            free(w->path);
        }
        free(w);
        return err_set(e, -ENOMEM, "no memory to write %.200s", path);
    }
    w->alignment = GGUFW_ALIGNMENT;
    w->folder = -1;
    int rc = open_files(w, part, e);
    if (rc < 0) {
        if (!w->part) {
            free(part);
        }
        ggufw_destroy(&w);
        return rc;
    }
    *ret = w;
    return 0;
}

void ggufw_destroy(struct ggufw **pw)
{
    struct ggufw *w = *pw;
    if (!w) {
        return;
    }
    if (w->file) {
        (void)fclose(w->file);
    }
    if (w->part) {
        (void)unlink(w->part);
    }
    if (w->folder >= 0) {
        close(w->folder);
    }
    free(w->path);
    free(w->part);
    buf_finish(&w->kv);
    buf_finish(&w->infos);
    buf_finish(&w->keys);
    buf_finish(&w->tensors);
    buf_finish(&w->sizes);
    free(w);
    *pw = NULL;
}

/* --- metadata --- */

static void put_u32(struct buf *b, uint32_t v)
{
    buf_add(b, &v, sizeof(v));
}

static void put_u64(struct buf *b, uint64_t v)
{
    buf_add(b, &v, sizeof(v));
}

static void put_str(struct buf *b, const char *s, size_t n)
{
    put_u64(b, n);
    buf_add(b, s, n);
}

/* Remembers a name; a second one of its kind is a failure, since readers refuse the file. */
static void add_name(struct ggufw *w, struct buf *names, const char *what, const char *name,
                     size_t n)
{
    for (size_t i = 0; i < names->len; i += strlen(names->data + i) + 1) {
        if (strlen(names->data + i) == n && memcmp(names->data + i, name, n) == 0 &&
            w->failed.code == 0) {
            (void)err_set(&w->failed, ERR_GGUF_BAD, "%s '%.*s' is written twice", what,
                          (int)MIN(n, (size_t)100), name);
        }
    }
    buf_add(names, name, n);
    buf_char(names, 0);
}

static void begin_kv(struct ggufw *w, const char *key, size_t n, enum gguf_kind kind)
{
    ASSERT(!w->has_begun);
    add_name(w, &w->keys, "key", key, n);
    put_str(&w->kv, key, n);
    put_u32(&w->kv, kind);
    w->n_kv++;
}

static void set_alignment(struct ggufw *w, uint32_t v)
{
    ASSERT(w->n_tensors == 0); /* offsets of tensors already declared would be wrong */
    if ((v < 8 || v > 65536 || (v & (v - 1)) != 0) && w->failed.code == 0) {
        (void)err_set(&w->failed, ERR_GGUF_BAD,
                      "general.alignment is %" PRIu32 ", allowed are powers of two from 8 to 65536",
                      v);
        return;
    }
    w->alignment = v;
}

void ggufw_put_u32(struct ggufw *w, const char *key, uint32_t v)
{
    begin_kv(w, key, strlen(key), GGUF_U32);
    put_u32(&w->kv, v);
    if (strcmp(key, "general.alignment") == 0) {
        set_alignment(w, v);
    }
}

void ggufw_put_u64(struct ggufw *w, const char *key, uint64_t v)
{
    begin_kv(w, key, strlen(key), GGUF_U64);
    put_u64(&w->kv, v);
}

void ggufw_put_f32(struct ggufw *w, const char *key, float v)
{
    begin_kv(w, key, strlen(key), GGUF_F32);
    buf_add(&w->kv, &v, sizeof(v));
}

void ggufw_put_bool(struct ggufw *w, const char *key, bool v)
{
    begin_kv(w, key, strlen(key), GGUF_BOOL);
    buf_char(&w->kv, (char)v);
}

void ggufw_put_str(struct ggufw *w, const char *key, const char *s, size_t n)
{
    begin_kv(w, key, strlen(key), GGUF_STRING);
    put_str(&w->kv, s, n);
}

void ggufw_put_kv(struct ggufw *w, const struct gguf_kv *kv)
{
    begin_kv(w, kv->key.data, kv->key.len, kv->kind);
    if (kv->kind == GGUF_ARRAY) {
        put_u32(&w->kv, kv->elem_kind);
        put_u64(&w->kv, kv->n);
    }
    buf_add(&w->kv, kv->data, kv->bytes);
    static const char alignment[] = "general.alignment";
    if (kv->kind == GGUF_U32 && kv->key.len == sizeof(alignment) - 1 &&
        memcmp(kv->key.data, alignment, kv->key.len) == 0) {
        set_alignment(w, (uint32_t)gguf_elem_i64(kv, 0));
    }
}

void ggufw_put_array(struct ggufw *w, const char *key, enum gguf_kind elem, const void *data,
                     uint64_t n)
{
    ASSERT(gguf_kind_bytes(elem) != 0);
    begin_kv(w, key, strlen(key), GGUF_ARRAY);
    put_u32(&w->kv, elem);
    put_u64(&w->kv, n);
    buf_add(&w->kv, data, (size_t)n * gguf_kind_bytes(elem));
}

void ggufw_put_str_array(struct ggufw *w, const char *key, const struct gguf_str *s, uint64_t n)
{
    begin_kv(w, key, strlen(key), GGUF_ARRAY);
    put_u32(&w->kv, GGUF_STRING);
    put_u64(&w->kv, n);
    for (uint64_t i = 0; i < n; i++) {
        put_str(&w->kv, s[i].data, s[i].len);
    }
}

void ggufw_declare(struct ggufw *w, const char *name, enum type type, uint32_t n_dims,
                   const uint64_t *ne)
{
    ASSERT(!w->has_begun && n_dims >= 1 && n_dims <= 4);
    const struct type_info *info = type_info(type);
    ASSERT(info->name && ne[0] % info->block_elems == 0);
    uint64_t bytes = ne[0] / info->block_elems * info->block_bytes;
    add_name(w, &w->tensors, "tensor", name, strlen(name));
    put_str(&w->infos, name, strlen(name));
    put_u32(&w->infos, n_dims);
    bool ok = true;
    for (uint32_t i = 0; i < n_dims; i++) {
        ASSERT(ne[i] > 0);
        put_u64(&w->infos, ne[i]);
        ok = ok && (i == 0 || num_mul(bytes, ne[i], &bytes));
    }
    put_u32(&w->infos, type);
    put_u64(&w->infos, w->offset);
    put_u64(&w->sizes, bytes);
    w->n_tensors++;
    if (!(ok && num_add(w->offset, bytes, &w->offset) &&
          num_add(w->offset, padding(w, w->offset), &w->offset)) &&
        w->failed.code == 0) {
        (void)err_set(&w->failed, ERR_GGUF_BAD, "tensor '%.64s' is too large", name);
    }
}

/* --- data --- */

static int put(struct ggufw *w, const void *data, size_t n, struct err *e)
{
    if (n && fwrite(data, 1, n, w->file) != n) {
        return err_set(e, -errno, "while writing %.200s", w->part);
    }
    return 0;
}

static int put_padding(struct ggufw *w, uint64_t n, struct err *e)
{
    static const char zeros[4096];
    int rc = 0;
    for (uint64_t left = padding(w, n); left && rc == 0;) {
        size_t now = (size_t)MIN(left, sizeof(zeros));
        rc = put(w, zeros, now, e);
        left -= now;
    }
    return rc;
}

static uint64_t tensor_bytes(const struct ggufw *w, size_t i)
{
    uint64_t bytes;
    memcpy(&bytes, w->sizes.data + i * sizeof(bytes), sizeof(bytes));
    return bytes;
}

int ggufw_begin_data(struct ggufw *w, struct err *e)
{
    ASSERT(!w->has_begun);
    if (w->failed.code) {
        return err_set(e, w->failed.code, "%s", w->failed.detail);
    }
    if (w->kv.failed || w->infos.failed || w->keys.failed || w->tensors.failed || w->sizes.failed) {
        return err_set(e, -ENOMEM, "no memory for the metadata of %.200s", w->path);
    }
    struct buf head;
    buf_init(&head, 0);
    buf_str(&head, "GGUF");
    put_u32(&head, 3);
    put_u64(&head, w->n_tensors);
    put_u64(&head, w->n_kv);
    int rc = head.failed ? err_set(e, -ENOMEM, "no memory for the header of %.200s", w->path)
                         : put(w, head.data, head.len, e);
    if (rc == 0) {
        rc = put(w, w->kv.data, w->kv.len, e);
    }
    if (rc == 0) {
        rc = put(w, w->infos.data, w->infos.len, e);
    }
    if (rc == 0) {
        rc = put_padding(w, head.len + w->kv.len + w->infos.len, e);
    }
    buf_finish(&head);
    w->has_begun = true;
    w->left = w->n_tensors ? tensor_bytes(w, 0) : 0;
    return rc;
}

int ggufw_write(struct ggufw *w, const void *data, size_t bytes, struct err *e)
{
    ASSERT(w->has_begun && bytes <= w->left);
    int rc = put(w, data, bytes, e);
    if (rc < 0) {
        return rc;
    }
    w->left -= bytes;
    if (bytes && w->left == 0) {
        rc = put_padding(w, tensor_bytes(w, w->current), e);
        w->current++;
        w->left = w->current < w->n_tensors ? tensor_bytes(w, w->current) : 0;
    }
    return rc;
}

int ggufw_commit(struct ggufw *w, struct err *e)
{
    ASSERT(w->has_begun && w->current == w->n_tensors);
    if (fflush(w->file) != 0 || fsync(fileno(w->file)) < 0) {
        return err_set(e, -errno, "while writing %.200s", w->part);
    }
    int closed = fclose(w->file);
    w->file = NULL;
    if (closed != 0 || rename(w->part, w->path) < 0) {
        return err_set(e, -errno, "cannot rename %.150s to %.150s", w->part, w->path);
    }
    free(w->part);
    w->part = NULL;
    /* The new name reaches the disk with its folder only. */
    return fsync(w->folder) < 0 ? err_set(e, -errno, "cannot sync the folder of %.200s", w->path)
                                : 0;
}
