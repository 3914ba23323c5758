/* GGUF reader. The file is hostile: every number is checked before it is used, sizes are summed
 * with checked arithmetic, and no pointer leaves the mapped bytes. Format: ggml's docs/gguf.md, v2
 * and v3, little-endian.
 *
 * gguf_open maps the file (all parts of a split one) read-only; strings, arrays and tensor data are
 * borrowed from the mapping until gguf_close. The parser itself (gguf_parse) is a pure function of
 * bytes and is fuzzed alone. */
#ifndef SHARED_GGUF_H
#define SHARED_GGUF_H

#include "shared/base.h"
#include "shared/err.h"
#include "shared/type.h"

enum gguf_kind { /* value types of the format */
    GGUF_U8 = 0,
    GGUF_I8 = 1,
    GGUF_U16 = 2,
    GGUF_I16 = 3,
    GGUF_U32 = 4,
    GGUF_I32 = 5,
    GGUF_F32 = 6,
    GGUF_BOOL = 7,
    GGUF_STRING = 8,
    GGUF_ARRAY = 9,
    GGUF_U64 = 10,
    GGUF_I64 = 11,
    GGUF_F64 = 12,
};

struct gguf_str {
    const char *data; /* borrowed, not terminated */
    size_t len;
};

struct gguf_kv {
    struct gguf_str key;
    enum gguf_kind kind;
    enum gguf_kind elem_kind; /* of an array (never GGUF_ARRAY), else kind again */
    uint64_t n;               /* elements of an array, else 1 */
    const uint8_t *data;      /* first value as it stands in the file, unaligned, in the mapping */
    size_t bytes;             /* of all values as they stand in the file */
    struct gguf_str *strings; /* of a string or array of strings; owned by the gguf */
};

struct gguf_tensor {
    char *name;     /* owned by the gguf, terminated */
    enum type type;
    uint32_t n_dims;   /* 1..4 */
    uint64_t ne[4];    /* elements per dimension, ne[0] contiguous; unused ones are 1 */
    uint64_t n_bytes;
    const void *data;  /* borrowed from the mapping, at a multiple of the file's alignment */
    uint32_t part;     /* which file of a split */
};

struct gguf_part { /* one mapped file */
    char *path;         /* owned */
    const uint8_t *map; /* owned mapping */
    int fd;             /* owned */
    size_t bytes;
    int64_t mtime_ns;
    uint64_t ino;
};

struct gguf {
    uint32_t version;
    uint64_t alignment;
    size_t n_kv, n_tensors, n_parts;
    struct gguf_kv *kv;          /* owned; of the first part */
    struct gguf_tensor *tensors; /* owned; of all parts, in file order */
    struct gguf_part *parts;     /* owned; none after gguf_parse */
    struct gguf_index *index;    /* owned; name lookup tables */
};

/* Opens path; of a split file (...-00001-of-0000N.gguf) any part may be named, and all are opened.
 * The vocabulary's arrays (tokenizer.ggml.tokens, scores, token_type, merges) are checked for kind
 * and equal counts, so readers of them may rely on it.
 * Errors: ERR_GGUF_*, -errno (map); e names file, key or tensor, and offset. */
MUST_CHECK int gguf_open(const char *path, struct gguf *ret, struct err *e);
void gguf_close(struct gguf *g);

/* Parses one file's bytes, which the caller keeps mapped. No I/O. Same errors. */
MUST_CHECK int gguf_parse(const uint8_t *data, size_t bytes, struct gguf *ret, struct err *e);

/* 0: unchanged; ERR_MODEL_CHANGED when a part's size, time or inode differ from when opened. */
MUST_CHECK int gguf_check_unchanged(const struct gguf *g, struct err *e);

/* Takes the files' pages out of this process; whoever reads them again gets them from the page
 * cache, or from disk. */
void gguf_let_go(const struct gguf *g);

/* Copies bytes of a tensor, from `offset` in it, without mapping them: around a page that is read
 * in place the system maps up to 2 MB. False: they cannot be had, or g has no files. */
bool gguf_read(const struct gguf *g, const struct gguf_tensor *t, uint64_t offset, size_t bytes,
               void *to);

/* NULL when absent. */
const struct gguf_kv *gguf_find(const struct gguf *g, const char *key);
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);

/* Scalars. Each converts between the integer kinds where the value fits, F32/F64 to double.
 * Absent: the default is written and 0 returned. Wrong kind or out of [min,max]: ERR_GGUF_KEY. */
MUST_CHECK int gguf_get_u64(const struct gguf *g, const char *key, uint64_t min, uint64_t max,
                            uint64_t def, uint64_t *ret, struct err *e);
MUST_CHECK int gguf_get_f64(const struct gguf *g, const char *key, double min, double max,
                            double def, double *ret, struct err *e);
MUST_CHECK int gguf_get_bool(const struct gguf *g, const char *key, bool def, bool *ret,
                             struct err *e);
/* {NULL,0} when absent. */
MUST_CHECK int gguf_get_str(const struct gguf *g, const char *key, struct gguf_str *ret,
                            struct err *e);
/* An array of min_n to max_n elements of that kind. NULL when absent. */
MUST_CHECK int gguf_get_array(const struct gguf *g, const char *key, enum gguf_kind elem,
                              uint64_t min_n, uint64_t max_n, const struct gguf_kv **ret,
                              struct err *e);
/* The i-th value, whatever its numeric kind; i must be below kv->n. Out of range of int64: the
 * nearest; no number (a string; NaN as an integer): NaN, 0. */
double gguf_elem_f64(const struct gguf_kv *kv, uint64_t i);
int64_t gguf_elem_i64(const struct gguf_kv *kv, uint64_t i);

/* "u32", "string", ...; "?" for no kind. Bytes of a value; 0 for strings, arrays and no kind. */
const char *gguf_kind_name(uint32_t kind);
size_t gguf_kind_bytes(uint32_t kind);

#endif
