/* The GGUF parser: a pure function of bytes. Any process, any thread; no I/O, no recursion, no
 * pointer outside the bytes it was given. gguf_open.c maps files, gguf_get.c reads values.
 *
 * The format: "GGUF", u32 version, u64 tensors, u64 keys; then the keys {string name, u32 kind,
 * value}; then the tensors {string name, u32 dimensions, u64 each, u32 type, u64 offset}; then, at
 * the next multiple of general.alignment, the data that the offsets count from. A string is {u64
 * length, bytes}; an array is {u32 kind, u64 count, values}. */
#include "shared/gguf_index.h"
#include "shared/limits.h"
#include "shared/num.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GGUF_MIN_KV_BYTES = 8 + 1 + 4 + 1,
    GGUF_MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8,
    GGUF_MIN_ALIGNMENT = 8,
    GGUF_DEFAULT_ALIGNMENT = 32,
    GGUF_MAX_ALIGNMENT = 65536,
};

struct reader {
    const uint8_t *data;
    size_t bytes, at;
    const char *what;     /* "key", "tensor": what is being read */
    struct gguf_str name; /* its name, as far as known */
    uint64_t n_strings;   /* in the arrays so far; bounds what the file makes us allocate */
    struct err *e;
};

PRINTF_LIKE(3, 4) static int fail(const struct reader *r, int code, const char *fmt, ...)
{
    char text[ERR_DETAIL_BYTES], name[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (r->name.data) {
        return err_set(r->e, code, "%s '%s', byte %zu: %s", r->what, gguf_printable(r->name, name),
                       r->at, text);
    }
    return err_set(r->e, code, "%s, byte %zu: %s", r->what, r->at, text);
}

/* --- primitives --- */

static int take(struct reader *r, void *ret, size_t n)
{
    if (n > r->bytes - r->at) {
        return fail(r, ERR_GGUF_TRUNCATED, "the file ends here");
    }
    memcpy(ret, r->data + r->at, n);
    r->at += n;
    return 0;
}

static int take_u32(struct reader *r, uint32_t *ret)
{
    return take(r, ret, sizeof(*ret));
}

static int take_u64(struct reader *r, uint64_t *ret)
{
    return take(r, ret, sizeof(*ret));
}

static int take_str(struct reader *r, size_t limit, struct gguf_str *ret)
{
    uint64_t len = 0;
    int rc = take_u64(r, &len);
    if (rc < 0) {
        return rc;
    }
    if (len > limit) {
        return fail(r, ERR_GGUF_BAD, "a string of %" PRIu64 " bytes, allowed %zu", len, limit);
    }
    if (len > r->bytes - r->at) {
        return fail(r, ERR_GGUF_TRUNCATED, "a string of %" PRIu64 " bytes, %zu are left", len,
                    r->bytes - r->at);
    }
    *ret = (struct gguf_str){(const char *)r->data + r->at, (size_t)len};
    r->at += (size_t)len;
    return 0;
}

/* The name of a key or tensor; from here on errors carry it. */
static int take_name(struct reader *r, size_t limit, struct gguf_str *ret)
{
    int rc = take_str(r, limit, ret);
    if (rc < 0) {
        return rc;
    }
    if (ret->len == 0 || memchr(ret->data, 0, ret->len)) {
        return fail(r, ERR_GGUF_BAD, "a name is empty or holds a zero byte");
    }
    r->name = *ret;
    return 0;
}

static int add_name(struct reader *r, struct gguf_names *t, struct gguf_str name)
{
    int rc = gguf_names_add(t, name);
    if (rc == -EEXIST) {
        return fail(r, ERR_GGUF_BAD, "the name stands twice");
    }
    return rc < 0 ? fail(r, ERR_GGUF_BAD, "the names were chosen to collide") : 0;
}

static void *alloc(struct reader *r, struct gguf_index *index, uint64_t n, size_t item)
{
    uint64_t bytes;
    void *p = num_mul(n, item, &bytes) ? arena_alloc(&index->arena, bytes) : NULL;
    if (!p) {
        (void)fail(r, -ENOMEM, "no memory for %" PRIu64 " items", n);
    }
    return p;
}

/* --- keys --- */

static int take_strings(struct reader *r, struct gguf_index *index, struct gguf_kv *kv)
{
    kv->strings = alloc(r, index, kv->n, sizeof(*kv->strings));
    if (!kv->strings) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < kv->n; i++) {
        int rc = take_str(r, LIMIT_GGUF_STRING_BYTES, &kv->strings[i]);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int take_array_head(struct reader *r, struct gguf_kv *kv)
{
    uint32_t elem = 0;
    int rc = take_u32(r, &elem);
    if (rc == 0) {
        rc = take_u64(r, &kv->n);
    }
    if (rc < 0) {
        return rc;
    }
    if (elem == GGUF_ARRAY) {
        return fail(r, ERR_GGUF_BAD, "an array of arrays");
    }
    size_t elem_bytes = elem == GGUF_STRING ? sizeof(uint64_t) : gguf_kind_bytes(elem);
    if (elem_bytes == 0) {
        return fail(r, ERR_GGUF_BAD, "an array of values of unknown kind %" PRIu32, elem);
    }
    if (kv->n > (r->bytes - r->at) / elem_bytes) {
        return fail(r, ERR_GGUF_TRUNCATED, "an array of %" PRIu64 " values, %zu bytes are left",
                    kv->n, r->bytes - r->at);
    }
    r->n_strings += elem == GGUF_STRING ? kv->n : 0; /* below the file's bytes: cannot wrap */
    if (r->n_strings > LIMIT_GGUF_STRINGS) {
        return fail(r, ERR_GGUF_BAD, "%" PRIu64 " strings in arrays, allowed %d", r->n_strings,
                    LIMIT_GGUF_STRINGS);
    }
    kv->elem_kind = (enum gguf_kind)elem;
    return 0;
}

static int take_kv(struct reader *r, struct gguf_index *index, struct gguf_kv *kv)
{
    uint32_t kind = 0;
    int rc = take_name(r, LIMIT_GGUF_KEY_BYTES, &kv->key);
    if (rc == 0) {
        rc = add_name(r, &index->keys, kv->key);
    }
    if (rc == 0) {
        rc = take_u32(r, &kind);
    }
    if (rc < 0) {
        return rc;
    }
    if (kind != GGUF_STRING && kind != GGUF_ARRAY && gguf_kind_bytes(kind) == 0) {
        return fail(r, ERR_GGUF_BAD, "a value of unknown kind %" PRIu32, kind);
    }
    kv->kind = kv->elem_kind = (enum gguf_kind)kind;
    kv->n = 1;
    if (kind == GGUF_ARRAY && (rc = take_array_head(r, kv)) < 0) {
        return rc;
    }
    size_t start = r->at;
    kv->data = r->data + start;
    if (kv->elem_kind == GGUF_STRING) {
        rc = take_strings(r, index, kv);
    } else {
        size_t bytes = (size_t)kv->n * gguf_kind_bytes(kv->elem_kind); /* of an array: checked */
        if (bytes > r->bytes - r->at) {
            return fail(r, ERR_GGUF_TRUNCATED, "the file ends here");
        }
        r->at += bytes;
    }
    kv->bytes = r->at - start;
    return rc;
}

static int take_alignment(struct reader *r, struct gguf *g)
{
    int64_t i = gguf_names_find(&g->index->keys, "general.alignment", 17);
    g->alignment = GGUF_DEFAULT_ALIGNMENT;
    if (i < 0) {
        return 0;
    }
    const struct gguf_kv *kv = &g->kv[i];
    r->what = "key";
    r->name = kv->key;
    if (kv->kind != GGUF_U32) {
        return fail(r, ERR_GGUF_KEY, "is %s, must be u32", gguf_kind_name(kv->kind));
    }
    uint32_t v;
    memcpy(&v, kv->data, sizeof(v));
    if (v < GGUF_MIN_ALIGNMENT || v > GGUF_MAX_ALIGNMENT || (v & (v - 1)) != 0) {
        return fail(r, ERR_GGUF_BAD, "is %" PRIu32 ", allowed are powers of two from %d to %d", v,
                    GGUF_MIN_ALIGNMENT, GGUF_MAX_ALIGNMENT);
    }
    g->alignment = v;
    return 0;
}

/* --- vocabulary --- */

/* Element type and count of the arrays that belong to the tokens: other programs read bytes as
 * floats here, or past the end. */
static int check_vocabulary(const struct gguf *g, struct err *e)
{
    const struct gguf_kv *tokens, *scores, *types, *merges;
    int rc = gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING, 0, LIMIT_VOCAB, &tokens, e);
    uint64_t n = rc == 0 && tokens ? tokens->n : 0;
    for (uint64_t i = 0; i < n; i++) {
        if (tokens->strings[i].len > LIMIT_TOKEN_BYTES) {
            return err_set(e, ERR_GGUF_BAD, "token %" PRIu64 " has %zu bytes, allowed %d", i,
                           tokens->strings[i].len, LIMIT_TOKEN_BYTES);
        }
    }
    if (rc == 0) {
        rc = gguf_get_array(g, "tokenizer.ggml.scores", GGUF_F32, n, n, &scores, e);
    }
    if (rc == 0) {
        rc = gguf_get_array(g, "tokenizer.ggml.token_type", GGUF_I32, n, n, &types, e);
    }
    if (rc == 0) {
        rc = gguf_get_array(g, "tokenizer.ggml.merges", GGUF_STRING, 0, LIMIT_GGUF_STRINGS, &merges,
                            e);
    }
    return rc;
}

/* --- tensors --- */

/* Bytes of a tensor, and that every product on the way fits. */
static int tensor_bytes(const struct reader *r, struct gguf_tensor *t)
{
    const struct type_info *type = type_info(t->type);
    if (t->ne[0] % type->block_elems != 0) {
        return fail(r, ERR_GGUF_BAD,
                    "rows of %" PRIu64 " elements, %s needs a multiple of %" PRIu32, t->ne[0],
                    type->name, type->block_elems);
    }
    uint64_t elems = 1, bytes;
    bool ok = num_mul(t->ne[0] / type->block_elems, type->block_bytes, &bytes);
    for (int i = 0; i < 4; i++) {
        ok = ok && num_mul(elems, t->ne[i], &elems) && elems <= INT64_MAX &&
             (i == 0 || num_mul(bytes, t->ne[i], &bytes));
    }
    if (!ok) {
        return fail(r, ERR_GGUF_BAD,
                    "%" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64
                    " elements are more than there can be",
                    t->ne[0], t->ne[1], t->ne[2], t->ne[3]);
    }
    t->n_bytes = bytes;
    return 0;
}

static int take_tensor(struct reader *r, struct gguf_index *index, struct gguf_tensor *t,
                       uint64_t *ret_offset)
{
    struct gguf_str name;
    int rc = take_name(r, LIMIT_GGUF_NAME_BYTES, &name);
    if (rc == 0) {
        rc = add_name(r, &index->tensors, name);
    }
    if (rc == 0) {
        rc = take_u32(r, &t->n_dims);
    }
    if (rc < 0) {
        return rc;
    }
    if (t->n_dims < 1 || t->n_dims > 4) {
        return fail(r, ERR_GGUF_BAD, "%" PRIu32 " dimensions, allowed 1 to 4", t->n_dims);
    }
    for (uint32_t i = 0; i < 4; i++) {
        t->ne[i] = 1;
        if (i < t->n_dims && (rc = take_u64(r, &t->ne[i])) < 0) {
            return rc;
        }
        if (t->ne[i] == 0) {
            return fail(r, ERR_GGUF_BAD, "dimension %" PRIu32 " is 0", i);
        }
    }
    uint32_t type = 0;
    rc = take_u32(r, &type);
    if (rc < 0) {
        return rc;
    }
    if (!type_info(type)->name) {
        return fail(r, ERR_GGUF_TYPE, "type %" PRIu32, type);
    }
    t->type = (enum type)type;
    rc = tensor_bytes(r, t);
    if (rc == 0) {
        rc = take_u64(r, ret_offset);
    }
    if (rc == 0 && !(t->name = arena_str(&index->arena, name.data, name.len))) {
        rc = fail(r, -ENOMEM, "no memory for the name");
    }
    return rc;
}

static int by_data(const void *a, const void *b)
{
    const struct gguf_tensor *const *x = a, *const *y = b;
    return ((*x)->data > (*y)->data) - ((*x)->data < (*y)->data);
}

/* In a well-made file the order of declaration is the order of the data: then nothing is sorted. */
static int check_overlap(struct reader *r, struct gguf_index *index, const struct gguf *g)
{
    const struct gguf_tensor **order = alloc(r, index, g->n_tensors, sizeof(struct gguf_tensor *));
    if (!order) {
        return -ENOMEM;
    }
    bool is_sorted = true;
    for (size_t i = 0; i < g->n_tensors; i++) {
        order[i] = &g->tensors[i];
        is_sorted = is_sorted && (i == 0 || order[i - 1]->data <= order[i]->data);
    }
    if (!is_sorted) {
        qsort(order, g->n_tensors, sizeof(struct gguf_tensor *), by_data);
    }
    for (size_t i = 1; i < g->n_tensors; i++) {
        const uint8_t *start = order[i]->data, *last = order[i - 1]->data;
        if ((uint64_t)(start - last) < order[i - 1]->n_bytes) {
            r->name = (struct gguf_str){order[i]->name, strlen(order[i]->name)};
            r->at = (size_t)(start - r->data);
            const char *other = order[i - 1]->name;
            char printable[64];
            return fail(r, ERR_GGUF_BAD, "its data overlaps that of '%s'",
                        gguf_printable((struct gguf_str){other, strlen(other)}, printable));
        }
    }
    return 0;
}

/* Offsets to pointers, once the place of the data is known. */
static int place(struct reader *r, struct gguf_tensor *t, uint64_t alignment, uint64_t data_at,
                 uint64_t offset)
{
    r->name = (struct gguf_str){t->name, strlen(t->name)};
    if (offset % alignment != 0) {
        return fail(r, ERR_GGUF_BAD, "offset %" PRIu64 " is no multiple of %" PRIu64, offset,
                    alignment);
    }
    uint64_t start, end;
    if (!num_add(data_at, offset, &start) || !num_add(start, t->n_bytes, &end)) {
        return fail(r, ERR_GGUF_BAD, "offset %" PRIu64 " is more than there can be", offset);
    }
    if (end > r->bytes) {
        return fail(r, ERR_GGUF_TRUNCATED,
                    "its data is bytes %" PRIu64 " to %" PRIu64 ", the file has %zu", start, end,
                    r->bytes);
    }
    t->data = r->data + start;
    return 0;
}

static int take_tensors(struct reader *r, struct gguf *g)
{
    if (g->n_tensors == 0) {
        return 0; /* a vocabulary-only file has no data, nor its alignment */
    }
    uint64_t *offsets = alloc(r, g->index, g->n_tensors, sizeof(*offsets));
    g->tensors = alloc(r, g->index, g->n_tensors, sizeof(*g->tensors));
    if (!offsets || !g->tensors) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        r->what = "tensor";
        r->name = (struct gguf_str){0};
        int rc = take_tensor(r, g->index, &g->tensors[i], &offsets[i]);
        if (rc < 0) {
            return rc;
        }
    }
    uint64_t data_at;
    if (!num_align(r->at, g->alignment, &data_at)) {
        return fail(r, ERR_GGUF_BAD, "the data begins past the end of memory");
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        int rc = place(r, &g->tensors[i], g->alignment, data_at, offsets[i]);
        if (rc < 0) {
            return rc;
        }
    }
    return check_overlap(r, g->index, g);
}

/* --- the whole --- */

/* What people give by mistake, by its first bytes. */
static int bad_magic(const struct reader *r)
{
    static const struct {
        const char *bytes, *name;
    } known[] = {
        {"version https://git-lfs", "a Git LFS pointer; 'git lfs pull' fetches the file itself"},
        {"<", "a web page, not the file it links to"},
        {"PK\3\4", "a zip or PyTorch file; convert it to GGUF"},
        {"lmgg", "a GGML file of before GGUF"},
        {"fmgg", "a GGML file of before GGUF"},
        {"tjgg", "a GGML file of before GGUF"},
        {"FUGG", "a big-endian GGUF file"},
    };
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        size_t n = strlen(known[i].bytes);
        if (r->bytes >= n && memcmp(r->data, known[i].bytes, n) == 0) {
            return err_set(r->e, ERR_GGUF_MAGIC, "it is %s", known[i].name);
        }
    }
    /* A safetensors file begins with the length of the JSON object that follows it. */
    if (r->bytes > 9 && r->data[8] == '{') {
        return err_set(r->e, ERR_GGUF_MAGIC, "it is a safetensors file; convert it to GGUF");
    }
    return err_set(r->e, ERR_GGUF_MAGIC, "its first bytes are not 'GGUF'");
}

static int take_header(struct reader *r, struct gguf *g)
{
    if (r->bytes < 4 || memcmp(r->data, "GGUF", 4) != 0) {
        return bad_magic(r);
    }
    r->at = 4;
    uint64_t n_tensors = 0, n_kv = 0;
    int rc = take_u32(r, &g->version);
    if (rc == 0 && g->version != 2 && g->version != 3) {
        if (g->version != 0 && (g->version & 0xffff) == 0) {
            return fail(r, ERR_GGUF_VERSION, "the file is big-endian; convert it to little-endian");
        }
        return fail(r, ERR_GGUF_VERSION, "version %" PRIu32 ", supported are 2 and 3", g->version);
    }
    if (rc == 0) {
        rc = take_u64(r, &n_tensors);
    }
    if (rc == 0) {
        rc = take_u64(r, &n_kv);
    }
    if (rc < 0) {
        return rc;
    }
    if (n_tensors > LIMIT_GGUF_TENSORS || n_kv > LIMIT_GGUF_KEYS) {
        return fail(r, ERR_GGUF_BAD, "%" PRIu64 " tensors and %" PRIu64 " keys, allowed %d and %d",
                    n_tensors, n_kv, LIMIT_GGUF_TENSORS, LIMIT_GGUF_KEYS);
    }
    if (n_tensors * GGUF_MIN_TENSOR_BYTES + n_kv * GGUF_MIN_KV_BYTES > r->bytes - r->at) {
        return fail(r, ERR_GGUF_TRUNCATED,
                    "%" PRIu64 " tensors and %" PRIu64 " keys do not fit %zu bytes", n_tensors,
                    n_kv, r->bytes);
    }
    g->n_tensors = n_tensors;
    g->n_kv = n_kv;
    return 0;
}

int gguf_parse_part(const uint8_t *data, size_t bytes, struct gguf_index *index, struct gguf *ret,
                    struct err *e)
{
    struct reader r = {.data = data, .bytes = bytes, .what = "header", .e = e};
    struct gguf g = {.index = index};
    int rc = take_header(&r, &g);
    if (rc < 0) {
        return rc;
    }
    g.kv = alloc(&r, index, g.n_kv, sizeof(*g.kv));
    if (!g.kv || gguf_names_init(&index->keys, &index->arena, g.n_kv) < 0 ||
        gguf_names_init(&index->tensors, &index->arena, g.n_tensors) < 0) {
        return fail(&r, -ENOMEM, "no memory for %zu keys and %zu tensors", g.n_kv, g.n_tensors);
    }
    for (size_t i = 0; i < g.n_kv; i++) {
        r.what = "key";
        r.name = (struct gguf_str){0};
        rc = take_kv(&r, index, &g.kv[i]);
        if (rc < 0) {
            return rc;
        }
    }
    rc = take_alignment(&r, &g);
    if (rc == 0) {
        rc = check_vocabulary(&g, e);
    }
    if (rc == 0) {
        rc = take_tensors(&r, &g);
    }
    if (rc == 0) {
        *ret = g;
    }
    return rc;
}

int gguf_parse(const uint8_t *data, size_t bytes, struct gguf *ret, struct err *e)
{
    struct gguf g = {0};
    struct gguf_index *index = calloc(1, sizeof(*index));
    if (!index) {
        return err_set(e, -ENOMEM, "no memory to read a GGUF file");
    }
    arena_init(&index->arena, 0);
    int rc = gguf_parse_part(data, bytes, index, &g, e);
    if (rc < 0) {
        arena_finish(&index->arena);
        free(index);
        return rc;
    }
    *ret = g;
    return 0;
}
