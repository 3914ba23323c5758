/* The GGUF parser against hostile bytes: a test for each rule, named for what is refused; then a
 * small file cut at every byte, with every byte changed, and collisions in the name tables. */
#include "tests/shared/gguf_bytes.h"
#include "tests/test.h"
#include "shared/clock.h"
#include "shared/hash.h"
#include "shared/limits.h"

static const uint64_t four[4] = {4, 1, 1, 1};

/* Ends a case: these bytes are refused with this code and these words. A copy of exactly their size
 * lets the sanitizers see a read past the end. */
static void refused(struct buf *b, int code, const char *words)
{
    uint8_t *exact = malloc(b->len ? b->len : 1);
    CHECK(exact && !b->failed);
    if (b->len) {
        memcpy(exact, b->data, b->len);
    }
    struct gguf g = {.version = 77};
    struct err e = {0};
    int rc = gguf_parse(exact, b->len, &g, &e);
    if (rc != code || e.code != code || !strstr(e.detail, words)) {
        TEST_FAIL("%d \"%s\", expected %d \"%s\"", rc, e.detail, code, words);
    }
    CHECK(g.version == 77 && !g.index); /* untouched on failure */
    CHECK_INT(gguf_parse(exact, b->len, &g, NULL), code);
    free(exact);
    buf_clear(b);
}

static void accepted(struct buf *b)
{
    struct gguf g;
    struct err e = {0};
    if (gguf_parse((const uint8_t *)b->data, b->len, &g, &e) != 0) {
        TEST_FAIL("refused: %s", e.detail);
    }
    gguf_close(&g);
    buf_clear(b);
}

static void magic_and_version(struct buf *b)
{
    refused(b, ERR_GGUF_MAGIC, "first bytes");
    buf_str(b, "GGU");
    refused(b, ERR_GGUF_MAGIC, "first bytes");
    buf_str(b, "version https://git-lfs.github.com/spec/v1\n");
    refused(b, ERR_GGUF_MAGIC, "git lfs pull");
    buf_str(b, "<!DOCTYPE html>");
    refused(b, ERR_GGUF_MAGIC, "web page");
    buf_str(b, "PK\3\4....");
    refused(b, ERR_GGUF_MAGIC, "PyTorch");
    buf_str(b, "tjgg\1");
    refused(b, ERR_GGUF_MAGIC, "before GGUF");
    put_u64(b, 20);
    buf_str(b, "{\"__metadata__\":{}}");
    refused(b, ERR_GGUF_MAGIC, "safetensors");
    for (uint32_t version = 0; version < 6; version++) {
        char words[64];
        put_head(b, version, 0, 0);
        if (version == 2 || version == 3) {
            accepted(b);
            continue;
        }
        snprintf(words, sizeof(words), "version %u, supported are 2 and 3", version);
        refused(b, ERR_GGUF_VERSION, words);
    }
    put_head(b, 0x03000000, 0, 0);
    refused(b, ERR_GGUF_VERSION, "big-endian");
    put_head(b, 0x02000000, 0, 0);
    refused(b, ERR_GGUF_VERSION, "big-endian");
}

static void counts_beyond_the_file(struct buf *b)
{
    put_head(b, 3, 1, 0);
    refused(b, ERR_GGUF_TRUNCATED, "do not fit");
    put_head(b, 3, 0, 1);
    refused(b, ERR_GGUF_TRUNCATED, "do not fit");
    put_head(b, 3, LIMIT_GGUF_TENSORS, LIMIT_GGUF_KEYS);
    put_zeros(b, 1000);
    refused(b, ERR_GGUF_TRUNCATED, "do not fit");
    put_head(b, 3, (uint64_t)LIMIT_GGUF_TENSORS + 1, 0);
    refused(b, ERR_GGUF_BAD, "1048577 tensors");
    put_head(b, 3, 0, (uint64_t)LIMIT_GGUF_KEYS + 1);
    refused(b, ERR_GGUF_BAD, "65537 keys");
    put_head(b, 3, UINT64_MAX, UINT64_MAX);
    refused(b, ERR_GGUF_BAD, "tensors");
    put_head(b, 3, (uint64_t)1 << 63, 0);
    refused(b, ERR_GGUF_BAD, "tensors");
}

static void strings_beyond_the_file(struct buf *b)
{
    static const struct {
        uint64_t len;
        int code;
        const char *words;
    } row[] = {
        {100, ERR_GGUF_TRUNCATED, "header"},
        {LIMIT_GGUF_KEY_BYTES, ERR_GGUF_TRUNCATED, "65535 bytes"},
        {LIMIT_GGUF_KEY_BYTES + 1, ERR_GGUF_BAD, "65536 bytes, allowed 65535"},
        {(uint64_t)1 << 63, ERR_GGUF_BAD, "allowed"},
        {UINT64_MAX, ERR_GGUF_BAD, "18446744073709551615 bytes"},
        {UINT64_MAX - 7, ERR_GGUF_BAD, "allowed"},
    };
    for (size_t i = 1; i < COUNT_OF(row); i++) { /* of a key */
        put_head(b, 3, 0, 1);
        put_u64(b, row[i].len);
        put_zeros(b, 60);
        refused(b, row[i].code, row[i].words);
    }
    put_head(b, 3, 0, 1); /* of a value */
    put_key(b, "k", GGUF_STRING);
    put_u64(b, 3);
    buf_str(b, "ab");
    refused(b, ERR_GGUF_TRUNCATED, "key 'k', byte 45: a string of 3 bytes, 2 are left");
    put_head(b, 3, 0, 1);
    put_key(b, "k", GGUF_STRING);
    put_u64(b, LIMIT_GGUF_STRING_BYTES + 1);
    refused(b, ERR_GGUF_BAD, "key 'k'");
    put_head(b, 3, 0, 1); /* within an array */
    put_array(b, "k", GGUF_STRING, 2);
    put_str(b, "ab");
    put_u64(b, UINT64_MAX - 3);
    refused(b, ERR_GGUF_BAD, "key 'k'");
    put_head(b, 3, 1, 0); /* of a tensor's name */
    put_u64(b, LIMIT_GGUF_NAME_BYTES + 1);
    put_zeros(b, 200);
    refused(b, ERR_GGUF_BAD, "tensor, byte 32: a string of 65 bytes, allowed 64");
}

static void names(struct buf *b)
{
    put_head(b, 3, 0, 1);
    put_key_u32(b, "", 1);
    put_zeros(b, 8);
    refused(b, ERR_GGUF_BAD, "a name is empty");
    put_head(b, 3, 0, 1);
    put_u64(b, 3);
    buf_add(b, "a\0b", 3);
    put_u32(b, GGUF_U8);
    put_zeros(b, 8);
    refused(b, ERR_GGUF_BAD, "zero byte");
    put_head(b, 3, 0, 2);
    put_key_u32(b, "same", 1);
    put_key_u32(b, "same", 1);
    refused(b, ERR_GGUF_BAD, "key 'same', byte 56: the name stands twice");
    put_head(b, 3, 2, 0);
    put_tensor(b, "same", 1, four, TYPE_F32, 0);
    put_tensor(b, "same", 1, four, TYPE_F32, 32);
    put_padding(b, 32);
    put_zeros(b, 64);
    refused(b, ERR_GGUF_BAD, "tensor 'same'");
    put_head(b, 3, 0, 1); /* what would confuse a terminal is not printed */
    put_key(b, "a\x1b[2J\xFFz", 99);
    refused(b, ERR_GGUF_BAD, "key 'a?[2J?z'");
    static const char ten[] = "0123456789"; /* nor is a page of it */
    put_head(b, 3, 0, 1);
    put_u64(b, 100);
    for (int i = 0; i < 10; i++) {
        buf_str(b, ten);
    }
    put_u32(b, 99);
    refused(b, ERR_GGUF_BAD, "456789...', byte 136");
}

static void kinds(struct buf *b)
{
    for (uint32_t kind = 0; kind < 300; kind++) {
        put_head(b, 3, 0, 1);
        put_key(b, "k", kind);
        put_zeros(b, 16);
        if (kind <= GGUF_F64) {
            accepted(b); /* zeros are a value of each: "" of a string, u8[0] of an array */
        } else {
            refused(b, ERR_GGUF_BAD, "unknown kind");
        }
        put_head(b, 3, 0, 1);
        put_array(b, "k", kind, 1);
        put_zeros(b, 16);
        if (kind == GGUF_ARRAY) {
            refused(b, ERR_GGUF_BAD, "key 'k', byte 49: an array of arrays");
        } else if (kind <= GGUF_F64) {
            accepted(b);
        } else {
            refused(b, ERR_GGUF_BAD, "unknown kind");
        }
    }
    put_head(b, 3, 0, 1);
    put_key(b, "k", UINT32_MAX);
    put_zeros(b, 1);
    refused(b, ERR_GGUF_BAD, "unknown kind 4294967295");
}

static void arrays_beyond_the_file(struct buf *b)
{
    static const uint64_t n[] = {
        3, (uint64_t)1 << 31, (uint64_t)1 << 61, (uint64_t)1 << 62, UINT64_MAX / 4 + 1, UINT64_MAX};
    for (size_t i = 0; i < COUNT_OF(n); i++) {
        for (uint32_t elem = 0; elem <= GGUF_F64; elem++) {
            if (elem == GGUF_ARRAY) {
                continue;
            }
            put_head(b, 3, 0, 1);
            put_array(b, "k", elem, n[i]);
            put_zeros(b, 2);
            refused(b, ERR_GGUF_TRUNCATED, "key 'k', byte 49: an array of");
        }
    }
}

static void too_many_strings(struct buf *b)
{
    char *room = calloc(LIMIT_GGUF_STRINGS, 8); /* empty strings */
    CHECK(room);
    for (uint64_t first = 0; first <= LIMIT_GGUF_STRINGS; first += LIMIT_GGUF_STRINGS / 2) {
        for (uint64_t excess = 0; excess < 2; excess++) { /* in one array, then in two */
            uint64_t second = LIMIT_GGUF_STRINGS - first + excess;
            put_head(b, 3, 0, 2);
            put_array(b, "a", GGUF_STRING, first);
            buf_add(b, room, first * 8);
            put_array(b, "b", GGUF_STRING, second);
            buf_add(b, room, (second - excess) * 8);
            put_zeros(b, excess * 8);
            if (excess) {
                refused(b, ERR_GGUF_BAD, "4194305 strings in arrays, allowed 4194304");
            } else {
                accepted(b);
            }
        }
    }
    free(room);
}

static void alignment(struct buf *b)
{
    static const uint32_t bad[] = {0, 1, 2, 4, 7, 12, 33, 131072, 0x80000000, UINT32_MAX};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        put_head(b, 3, 0, 1);
        put_key_u32(b, "general.alignment", bad[i]);
        refused(b, ERR_GGUF_BAD, "key 'general.alignment'");
    }
    for (uint32_t good = 8; good <= 65536; good *= 2) {
        put_head(b, 3, 1, 1);
        put_key_u32(b, "general.alignment", good);
        put_tensor(b, "t", 1, four, TYPE_F32, good);
        put_padding(b, good);
        put_zeros(b, good + 16);
        accepted(b);
    }
    for (uint32_t kind = 0; kind <= GGUF_F64; kind++) {
        put_head(b, 3, 0, 1);
        put_key(b, "general.alignment", kind);
        put_zeros(b, 16);
        refused(b, kind == GGUF_U32 ? ERR_GGUF_BAD : ERR_GGUF_KEY, "key 'general.alignment'");
    }
}

/* A file of one tensor with data bytes of data. */
static void one_tensor(struct buf *b, uint32_t n_dims, const uint64_t *ne, uint32_t type,
                       uint64_t offset, size_t data)
{
    put_head(b, 3, 1, 0);
    put_tensor(b, "t", n_dims, ne, type, offset);
    put_padding(b, 32);
    put_zeros(b, data);
}

static void dimensions(struct buf *b)
{
    static const uint64_t many[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    for (uint32_t n = 0; n <= 8; n++) {
        one_tensor(b, n, many, TYPE_F32, 0, 32);
        if (n >= 1 && n <= 4) {
            accepted(b);
        } else {
            refused(b, ERR_GGUF_BAD, "dimensions, allowed 1 to 4");
        }
    }
    one_tensor(b, 0, many, TYPE_F32, 0, 32);
    memset(b->data + 24 + 8 + 1, 0xff, 4);
    refused(b, ERR_GGUF_BAD, "4294967295 dimensions");
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t ne[4] = {4, 4, 4, 4};
        ne[i] = 0;
        one_tensor(b, 4, ne, TYPE_F32, 0, 1024);
        refused(b, ERR_GGUF_BAD, "is 0");
    }
}

static void sizes_that_overflow(struct buf *b)
{
    static const uint64_t ne[][4] = {
        {UINT64_MAX, 1, 1, 1},
        {(uint64_t)1 << 62, 1, 1, 1}, /* x 4 bytes = 2^64 */
        {(uint64_t)1 << 63, 1, 1, 1},
        {(uint64_t)1 << 32, (uint64_t)1 << 32, 1, 1},
        {(uint64_t)1 << 20, (uint64_t)1 << 20, (uint64_t)1 << 20, (uint64_t)1 << 20},
        {4, (uint64_t)1 << 62, 4, 1},
        {4, 1, 1, UINT64_MAX},
        {0xffffffff00000001, 0xffffffff, 1, 1},
    };
    for (size_t i = 0; i < COUNT_OF(ne); i++) {
        one_tensor(b, 4, ne[i], TYPE_F32, 0, 1024);
        refused(b, ERR_GGUF_BAD, "tensor 't'");
        one_tensor(b, 4, ne[i], TYPE_I8, 0, 1024);
        refused(b, i == 1 ? ERR_GGUF_TRUNCATED : ERR_GGUF_BAD, "tensor 't'");
    }
    /* The size fits, size + padding or start + offset do not. */
    static const uint64_t last[4] = {INT64_MAX, 1, 1, 1};
    one_tensor(b, 1, last, TYPE_I8, 0, 1024);
    refused(b, ERR_GGUF_TRUNCATED, "the file has");
    one_tensor(b, 1, last, TYPE_I8, (uint64_t)INT64_MAX - 95, 1024);
    refused(b, ERR_GGUF_TRUNCATED, "the file has");
    one_tensor(b, 1, last, TYPE_I8, (uint64_t)INT64_MAX - 31, 1024);
    refused(b, ERR_GGUF_BAD, "offset");
    one_tensor(b, 1, last, TYPE_I8, UINT64_MAX - 31, 1024);
    refused(b, ERR_GGUF_BAD, "offset");
}

static void rows_of_partial_blocks(struct buf *b)
{
    for (uint32_t id = 0; id < TYPE_ID_END; id++) {
        const struct type_info *t = type_info(id);
        if (!t->name || t->block_elems == 1) {
            continue;
        }
        const uint64_t ne[4] = {t->block_elems + t->block_elems / 2, 2, 1, 1};
        one_tensor(b, 2, ne, id, 0, 4096);
        refused(b, ERR_GGUF_BAD, t->name);
    }
}

static void unknown_and_removed_types(struct buf *b)
{
    static const uint64_t ne[4] = {256, 1, 1, 1};
    static const uint32_t removed[] = {4, 5, 31, 32, 33, 36, 37, 38};
    size_t n_refused = 0;
    for (uint32_t id = 0; id < 100; id++) {
        one_tensor(b, 1, ne, id, 0, 4096);
        bool is_removed = id >= 43;
        for (size_t i = 0; i < COUNT_OF(removed); i++) {
            is_removed = is_removed || id == removed[i];
        }
        n_refused += is_removed;
        if (is_removed) {
            char words[64];
            snprintf(words, sizeof(words), "tensor 't', byte 49: type %u", id);
            refused(b, ERR_GGUF_TYPE, words);
        } else {
            accepted(b);
        }
    }
    CHECK_INT(n_refused, 57 + 8);
    one_tensor(b, 1, ne, UINT32_MAX, 0, 4096);
    refused(b, ERR_GGUF_TYPE, "type 4294967295");
}

static void data_outside_the_file(struct buf *b)
{
    one_tensor(b, 1, four, TYPE_F32, 0, 16);
    accepted(b);
    one_tensor(b, 1, four, TYPE_F32, 0, 15);
    refused(b, ERR_GGUF_TRUNCATED,
            "tensor 't', byte 57: its data is bytes 64 to 80, the file has 79");
    one_tensor(b, 1, four, TYPE_F32, 32, 16 + 31);
    refused(b, ERR_GGUF_TRUNCATED, "tensor 't'");
    one_tensor(b, 1, four, TYPE_F32, (uint64_t)1 << 40, 16);
    refused(b, ERR_GGUF_TRUNCATED, "tensor 't'");
    one_tensor(b, 1, four, TYPE_F32, 0, 0);
    b->len = 57; /* not even the padding */
    refused(b, ERR_GGUF_TRUNCATED, "tensor 't'");
    for (uint64_t offset = 1; offset < 32; offset++) {
        one_tensor(b, 1, four, TYPE_F32, offset, 64);
        refused(b, ERR_GGUF_BAD, "is no multiple of 32");
    }
}

static void overlapping_data(struct buf *b)
{
    static const struct {
        uint64_t a, b, c; /* offsets of tensors of 16, 48 and 16 bytes */
        bool ok;
    } row[] = {
        {0, 32, 96, true},   {96, 32, 0, true},  {128, 0, 64, true}, {0, 64, 32, true},
        {0, 0, 64, false},   {0, 32, 64, false}, {64, 32, 0, false}, {32, 0, 64, false},
        {96, 32, 32, false}, {0, 32, 0, false},
    };
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        static const uint64_t twelve[4] = {12, 1, 1, 1};
        put_head(b, 3, 3, 0);
        put_tensor(b, "a", 1, four, TYPE_F32, row[i].a);
        put_tensor(b, "b", 1, twelve, TYPE_F32, row[i].b);
        put_tensor(b, "c", 1, four, TYPE_F32, row[i].c);
        put_padding(b, 32);
        put_zeros(b, 256);
        if (row[i].ok) {
            accepted(b);
        } else {
            refused(b, ERR_GGUF_BAD, "its data overlaps that of '");
        }
    }
}

/* Element kinds and counts of the arrays that go with the tokens. */
static void vocabulary_arrays(struct buf *b)
{
    static const struct {
        uint32_t tokens_kind, scores_kind, types_kind, merges_kind;
        uint64_t n_scores, n_types;
        const char *words; /* NULL: accepted */
    } row[] = {
        {GGUF_STRING, GGUF_F32, GGUF_I32, GGUF_STRING, 2, 2, NULL},
        {GGUF_STRING, GGUF_U8, GGUF_I32, GGUF_STRING, 2, 2,
         "scores' is array of u8, must be array of f32"},
        {GGUF_STRING, GGUF_F64, GGUF_I32, GGUF_STRING, 2, 2, "scores"},
        {GGUF_STRING, GGUF_F32, GGUF_I32, GGUF_STRING, 1, 2,
         "scores' has 1 elements, allowed 2 to 2"},
        {GGUF_STRING, GGUF_F32, GGUF_I32, GGUF_STRING, 3, 2, "scores' has 3 elements"},
        {GGUF_STRING, GGUF_F32, GGUF_I32, GGUF_STRING, 2, 1, "token_type' has 1 elements"},
        {GGUF_STRING, GGUF_F32, GGUF_U8, GGUF_STRING, 2, 2, "token_type"},
        {GGUF_STRING, GGUF_F32, GGUF_I32, GGUF_U32, 2, 2, "merges"},
        {GGUF_U32, GGUF_F32, GGUF_I32, GGUF_STRING, 2, 2, "tokens"},
    };
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        put_head(b, 3, 0, 4);
        put_array(b, "tokenizer.ggml.scores", row[i].scores_kind, row[i].n_scores);
        put_zeros(b, row[i].n_scores * gguf_kind_bytes(row[i].scores_kind));
        put_array(b, "tokenizer.ggml.tokens", row[i].tokens_kind, 2);
        put_zeros(b, row[i].tokens_kind == GGUF_STRING ? 16 : 8);
        put_array(b, "tokenizer.ggml.token_type", row[i].types_kind, row[i].n_types);
        put_zeros(b, row[i].n_types * gguf_kind_bytes(row[i].types_kind));
        put_array(b, "tokenizer.ggml.merges", row[i].merges_kind, 1);
        put_zeros(b, row[i].merges_kind == GGUF_STRING ? 8 : 4);
        if (row[i].words) {
            refused(b, ERR_GGUF_KEY, row[i].words);
        } else {
            accepted(b);
        }
    }
    put_head(b, 3, 0, 1); /* scores of nothing */
    put_array(b, "tokenizer.ggml.scores", GGUF_F32, 1);
    put_u32(b, 0);
    refused(b, ERR_GGUF_KEY, "allowed 0 to 0");
    put_head(b, 3, 0, 1);
    put_key_u32(b, "tokenizer.ggml.tokens", 1);
    refused(b, ERR_GGUF_KEY, "tokens' is u32, must be array of string");
    put_head(b, 3, 0, 1);
    put_array(b, "tokenizer.ggml.tokens", GGUF_STRING, LIMIT_VOCAB + 1);
    char *room = calloc(LIMIT_VOCAB + 1, 8);
    CHECK(room);
    buf_add(b, room, (size_t)(LIMIT_VOCAB + 1) * 8);
    free(room);
    refused(b, ERR_GGUF_KEY, "1048577 elements, allowed 0 to 1048576");
    put_head(b, 3, 0, 1);
    put_array(b, "tokenizer.ggml.tokens", GGUF_STRING, 1);
    put_u64(b, LIMIT_TOKEN_BYTES + 1);
    put_zeros(b, LIMIT_TOKEN_BYTES + 1);
    refused(b, ERR_GGUF_BAD, "token 0 has 65537 bytes, allowed 65536");
}

/* A file with some of everything, 3 tensors of data. */
static void small_file(struct buf *b)
{
    static const uint64_t ne[4] = {32, 2, 1, 1};
    put_head(b, 3, 3, 9);
    put_key(b, "general.architecture", GGUF_STRING);
    put_str(b, "llama");
    put_key_u32(b, "general.alignment", 16);
    put_array(b, "tokenizer.ggml.tokens", GGUF_STRING, 3);
    put_str(b, "a");
    put_str(b, "");
    put_str(b, "bc");
    put_array(b, "tokenizer.ggml.scores", GGUF_F32, 3);
    put_zeros(b, 12);
    put_array(b, "empty", GGUF_F64, 0);
    put_key(b, "flag", GGUF_BOOL);
    buf_char(b, 1);
    put_key(b, "small", GGUF_I8);
    buf_char(b, -5);
    put_key(b, "big", GGUF_I64);
    put_u64(b, (uint64_t)-6);
    put_key(b, "real", GGUF_F64);
    double real = 0.25;
    buf_add(b, &real, sizeof(real));
    put_tensor(b, "one", 1, four, TYPE_F32, 0);
    put_tensor(b, "two", 2, ne, TYPE_Q4_0, 16);
    put_tensor(b, "three", 2, ne, TYPE_BF16, 64);
    put_padding(b, 16);
    put_zeros(b, 64 + 128);
}

/* What a user of a parsed file may do with it: read every value and the first and last data byte.
 */
static uint64_t touch(const struct gguf *g)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < g->n_kv; i++) {
        const struct gguf_kv *kv = &g->kv[i];
        for (uint64_t j = 0; j < kv->n; j++) {
            sum += (uint64_t)gguf_elem_i64(kv, j);
            sum += isnan(gguf_elem_f64(kv, j));
            if (kv->strings && kv->strings[j].len) {
                sum += (uint8_t)kv->strings[j].data[kv->strings[j].len - 1];
            }
        }
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        const uint8_t *p = t->data;
        sum += p[0] + p[t->n_bytes - 1];
        CHECK(gguf_find_tensor(g, t->name) == t);
    }
    return sum;
}

static void cut_at_every_byte(struct buf *b)
{
    small_file(b);
    for (size_t n = 0; n <= b->len; n++) {
        uint8_t *exact = malloc(n ? n : 1);
        CHECK(exact);
        memcpy(exact, b->data, n);
        struct gguf g;
        struct err e = {0};
        int rc = gguf_parse(exact, n, &g, &e);
        if (n == b->len) {
            CHECK_INT(rc, 0);
            (void)touch(&g);
            gguf_close(&g);
        } else {
            CHECK_INT(rc, n < 4 ? ERR_GGUF_MAGIC : ERR_GGUF_TRUNCATED);
        }
        free(exact);
    }
    buf_clear(b);
}

static void every_byte_changed(struct buf *b)
{
    small_file(b);
    size_t n_accepted = 0, n = 0;
    for (size_t i = 0; i < b->len; i++) {
        for (int bit = 0; bit < 11; bit++) {
            uint8_t *exact = malloc(b->len);
            CHECK(exact);
            memcpy(exact, b->data, b->len);
            exact[i] = bit < 8    ? (uint8_t)(exact[i] ^ 1u << bit)
                       : bit == 8 ? 0
                       : bit == 9 ? 0xff
                                  : (uint8_t)(exact[i] + 1);
            struct gguf g;
            struct err e = {0};
            int rc = gguf_parse(exact, b->len, &g, &e);
            if (rc == 0) {
                (void)touch(&g);
                gguf_close(&g);
                n_accepted++;
            } else {
                CHECK(rc <= ERR_GGUF_MAGIC && rc >= ERR_GGUF_SPLIT && e.code == rc && *e.detail);
            }
            n++;
            free(exact);
        }
    }
    CHECK(n_accepted > 0 && n_accepted < n);
    buf_clear(b);
}

/* 60,000 keys and tensors, named alike: still far below a second. */
static void many_names_stay_fast(struct buf *b)
{
    enum { N = 60000 };
    put_head(b, 3, N, N);
    for (int i = 0; i < N; i++) {
        char name[32];
        snprintf(name, sizeof(name), "blk.%d.key", i);
        put_key(b, name, GGUF_U8);
        buf_char(b, (char)i);
    }
    for (int i = 0; i < N; i++) {
        char name[32];
        snprintf(name, sizeof(name), "blk.%d.weight", i);
        put_tensor(b, name, 1, four, TYPE_F32, (uint64_t)(N - 1 - i) * 32); /* in reverse */
    }
    put_padding(b, 32);
    for (int i = 0; i < N; i++) {
        put_zeros(b, 32);
    }
    uint64_t start = clock_ns();
    struct gguf g;
    CHECK_INT(gguf_parse((const uint8_t *)b->data, b->len, &g, NULL), 0);
    for (int i = 0; i < N; i++) {
        char name[32];
        snprintf(name, sizeof(name), "blk.%d.key", i);
        const struct gguf_kv *kv = gguf_find(&g, name);
        CHECK(kv && gguf_elem_i64(kv, 0) == (uint8_t)i);
        snprintf(name, sizeof(name), "blk.%d.weight", i);
        const struct gguf_tensor *t = gguf_find_tensor(&g, name);
        CHECK(t == &g.tensors[i]);
    }
    CHECK(!gguf_find(&g, "blk.60000.key") && !gguf_find(&g, "") && !gguf_find_tensor(&g, "blk"));
    CHECK(clock_ns() - start < 2000000000u);
    gguf_close(&g);
    buf_clear(b);
}

/* Names made to fall on one place of the table would cost a square of their number. */
static void colliding_names(struct buf *b)
{
    enum { N = 500, SLOTS = 1024 };
    put_head(b, 3, 0, N);
    int n = 0;
    for (int i = 0; n < N; i++) {
        char name[32];
        snprintf(name, sizeof(name), "%d", i);
        if ((hash64(name, strlen(name), 0) & (SLOTS - 1)) == 0) {
            put_key(b, name, GGUF_U8);
            buf_char(b, 0);
            n++;
        }
    }
    refused(b, ERR_GGUF_BAD, "chosen to collide");
}

int main(void)
{
    struct buf b;
    buf_init(&b, 0);
    magic_and_version(&b);
    counts_beyond_the_file(&b);
    strings_beyond_the_file(&b);
    names(&b);
    kinds(&b);
    arrays_beyond_the_file(&b);
    too_many_strings(&b);
    alignment(&b);
    dimensions(&b);
    sizes_that_overflow(&b);
    rows_of_partial_blocks(&b);
    unknown_and_removed_types(&b);
    data_outside_the_file(&b);
    overlapping_data(&b);
    vocabulary_arrays(&b);
    cut_at_every_byte(&b);
    every_byte_changed(&b);
    many_names_stay_fast(&b);
    colliding_names(&b);
    buf_finish(&b);
    return 0;
}
