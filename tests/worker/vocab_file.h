/* A GGUF file with only a vocabulary, made in memory for the tokenizers' tests. */
#ifndef TESTS_WORKER_VOCAB_FILE_H
#define TESTS_WORKER_VOCAB_FILE_H

#include "shared/buf.h"
#include "shared/gguf.h"
#include "tests/test.h"
#include "worker/tokenizer.h"

struct vocab_file {
    struct buf kv;
    uint64_t n_kv;
};

static inline void vocab_raw(struct vocab_file *f, const void *data, size_t n)
{
    buf_add(&f->kv, data, n);
}

static inline void vocab_u32(struct vocab_file *f, uint32_t v)
{
    vocab_raw(f, &v, sizeof(v));
}

static inline void vocab_string(struct vocab_file *f, const char *s, size_t len)
{
    uint64_t n = len;
    vocab_raw(f, &n, sizeof(n));
    vocab_raw(f, s, len);
}

static inline void vocab_key(struct vocab_file *f, const char *key, enum gguf_kind kind)
{
    f->n_kv++;
    vocab_string(f, key, strlen(key));
    vocab_u32(f, kind);
}

static inline void vocab_put_str(struct vocab_file *f, const char *key, const char *s)
{
    vocab_key(f, key, GGUF_STRING);
    vocab_string(f, s, strlen(s));
}

static inline void vocab_put_u32(struct vocab_file *f, const char *key, uint32_t v)
{
    vocab_key(f, key, GGUF_U32);
    vocab_u32(f, v);
}

static inline void vocab_put_bool(struct vocab_file *f, const char *key, bool v)
{
    vocab_key(f, key, GGUF_BOOL);
    vocab_raw(f, &(uint8_t){v}, 1);
}

/* Elements of a fixed size. */
static inline void vocab_put_array(struct vocab_file *f, const char *key, enum gguf_kind kind,
                                   const void *data, uint64_t n, size_t elem_bytes)
{
    vocab_key(f, key, GGUF_ARRAY);
    vocab_u32(f, kind);
    vocab_raw(f, &n, sizeof(n));
    vocab_raw(f, data, (size_t)n * elem_bytes);
}

static inline void vocab_put_strs(struct vocab_file *f, const char *key, const char *const *s,
                                  uint64_t n)
{
    vocab_key(f, key, GGUF_ARRAY);
    vocab_u32(f, GGUF_STRING);
    vocab_raw(f, &n, sizeof(n));
    for (uint64_t i = 0; i < n; i++) {
        vocab_string(f, s[i], strlen(s[i]));
    }
}

/* Makes the tokenizer, and takes the file away. Returns what tokenizer_create returned. */
static inline int vocab_try(struct vocab_file *f, struct tokenizer **ret, char warn[160],
                            struct err *e)
{
    struct buf file;
    buf_init(&file, 0);
    buf_add(&file, "GGUF", 4);
    buf_add(&file, &(uint32_t){3}, 4);
    buf_add(&file, &(uint64_t){0}, 8);
    buf_add(&file, &f->n_kv, 8);
    buf_add(&file, f->kv.data, f->kv.len);
    CHECK(!file.failed && !f->kv.failed);
    struct gguf g;
    int rc = gguf_parse((const uint8_t *)file.data, file.len, &g, e);
    if (rc == 0) {
        rc = tokenizer_create(&g, ret, warn, e);
        gguf_close(&g);
    }
    buf_finish(&file);
    buf_finish(&f->kv);
    *f = (struct vocab_file){0};
    return rc;
}

static inline struct tokenizer *vocab_make(struct vocab_file *f)
{
    struct tokenizer *t;
    struct err e = {0};
    char warn[160];
    if (vocab_try(f, &t, warn, &e) < 0) {
        TEST_FAIL("%s", e.detail);
    }
    CHECK_STR(warn, "");
    return t;
}

/* The character by which GPT-2's alphabet writes a byte, into out[5]. The definition: printable
 * bytes of Latin-1 stand for themselves, the others in order for U+0100, U+0101, ... */
static inline const char *vocab_alphabet(unsigned byte, char out[5])
{
    unsigned cp = byte;
    if (byte <= ' ' || (byte >= 127 && byte <= 160) || byte == 173) {
        cp = 256;
        for (unsigned b = 0; b < byte; b++) {
            cp += b <= ' ' || (b >= 127 && b <= 160) || b == 173;
        }
    }
    size_t n = 0;
    if (cp < 128) {
        out[n++] = (char)cp;
    } else {
        out[n++] = (char)(0xC0 | cp >> 6);
        out[n++] = (char)(0x80 | (cp & 63));
    }
    out[n] = 0;
    return out;
}

/* Encodes and compares with the ids written as text, "1 2 3". */
#define CHECK_IDS(t, text, flags, want)                                                            \
    vocab_check_ids(t, text, strlen(text), flags, want, __FILE__, __LINE__)
static inline void vocab_check_ids(const struct tokenizer *t, const char *text, size_t n,
                                   unsigned flags, const char *want, const char *file, int line)
{
    struct buf ids, got;
    buf_init(&ids, 0);
    buf_init(&got, 0);
    CHECK_INT(tokenizer_encode(t, text, n, flags, &ids), 0);
    const int32_t *id = (const int32_t *)(void *)ids.data;
    for (size_t i = 0; i < ids.len / sizeof(*id); i++) {
        buf_printf(&got, i ? " %d" : "%d", id[i]);
    }
    if (strcmp(got.len ? got.data : "", want) != 0) {
        fprintf(stderr, "%s:%d: \"%s\" gives \"%s\", expected \"%s\"\n", file, line, text,
                got.len ? got.data : "", want);
        exit(1);
    }
    buf_finish(&ids);
    buf_finish(&got);
}

/* Decodes n ids given as arguments. */
#define CHECK_TEXT(t, show, want, ...)                                                             \
    vocab_check_text(t, show, want, (const int32_t[]){__VA_ARGS__},                                \
                     sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t), __FILE__, __LINE__)
static inline void vocab_check_text(const struct tokenizer *t, bool show_special, const char *want,
                                    const int32_t *ids, size_t n, const char *file, int line)
{
    struct buf got;
    buf_init(&got, 0);
    CHECK_INT(tokenizer_decode(t, ids, n, show_special, &got), 0);
    if (strcmp(got.len ? got.data : "", want) != 0) {
        fprintf(stderr, "%s:%d: decoded \"%s\", expected \"%s\"\n", file, line,
                got.len ? got.data : "", want);
        exit(1);
    }
    buf_finish(&got);
}

#endif
