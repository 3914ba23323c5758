/* GGUF written and read back, values and their conversions, split files, and real files. */
#include "tests/test.h"
#include "shared/clock.h"
#include "shared/ggufw.h"
#include "shared/limits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

static char dir[] = "/tmp/gguf_test.XXXXXX";

static const char *at(const char *name)
{
    static char path[2][512];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof(path[0]), "%s/%s", dir, name);
    return path[turn];
}

static struct gguf opened(const char *path)
{
    struct gguf g;
    struct err e = {0};
    if (gguf_open(path, &g, &e) != 0) {
        TEST_FAIL("%s", e.detail);
    }
    return g;
}

static void check_refused(const char *path, int code, const char *words)
{
    struct gguf g = {.version = 77};
    struct err e = {0};
    int rc = gguf_open(path, &g, &e);
    if (rc != code || e.code != code || !strstr(e.detail, words)) {
        TEST_FAIL("%d \"%s\", expected %d \"%s\"", rc, e.detail, code, words);
    }
    CHECK(g.version == 77);
    CHECK_INT(gguf_open(path, &g, NULL), code);
}

static void str_is(struct gguf_str s, const char *expected)
{
    if (s.len != strlen(expected) || memcmp(s.data, expected, s.len) != 0) {
        TEST_FAIL("\"%.*s\", expected \"%s\"", (int)s.len, s.data, expected);
    }
}

/* --- writing and reading --- */

static void round_trip(uint32_t alignment)
{
    static const uint64_t ne1[] = {5}, ne2[] = {64, 3}, ne4[] = {2, 3, 4, 5};
    static const float numbers[] = {1.5f, -2};
    static const struct gguf_str words[] = {{"one", 3}, {"", 0}, {"th\0ee", 5}};
    uint8_t data[3][512];
    struct ggufw *w;
    struct err e = {0};
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i / 512][i % 512] = (uint8_t)(i * 37 + i / 256);
    }
    (void)unlink(at("round.gguf"));
    CHECK_INT(ggufw_create(at("round.gguf"), &w, &e), 0);
    if (alignment) {
        ggufw_put_u32(w, "general.alignment", alignment);
    }
    ggufw_put_str(w, "general.name", "a name", 6);
    ggufw_put_u64(w, "u64", UINT64_MAX);
    ggufw_put_f32(w, "f32", 0.1f);
    ggufw_put_bool(w, "yes", true);
    ggufw_put_array(w, "numbers", GGUF_F32, numbers, 2);
    ggufw_put_array(w, "none", GGUF_U16, NULL, 0);
    ggufw_put_str_array(w, "words", words, 3);
    ggufw_declare(w, "a", TYPE_F32, 1, ne1);
    ggufw_declare(w, "b", TYPE_Q8_0, 2, ne2);
    ggufw_declare(w, "c", TYPE_F16, 4, ne4);
    CHECK_INT(ggufw_begin_data(w, &e), 0);
    CHECK_INT(ggufw_write(w, data[0], 20, &e), 0);
    for (size_t i = 0; i < 2 * 34 * 3; i += 34) { /* in pieces */
        CHECK_INT(ggufw_write(w, data[1] + i, 34, &e), 0);
    }
    CHECK_INT(ggufw_write(w, data[2], 0, &e), 0);
    CHECK_INT(ggufw_write(w, data[2], 240, &e), 0);
    CHECK(access(at("round.gguf"), F_OK) != 0 && access(at("round.gguf.part"), F_OK) == 0);
    CHECK_INT(ggufw_commit(w, &e), 0);
    CHECK(access(at("round.gguf"), F_OK) == 0 && access(at("round.gguf.part"), F_OK) != 0);
    ggufw_destroy(&w);
    CHECK(!w && access(at("round.gguf"), F_OK) == 0);

    struct gguf g = opened(at("round.gguf"));
    CHECK_INT(g.version, 3);
    CHECK_INT(g.alignment, alignment ? alignment : 32);
    CHECK_INT(g.n_kv, alignment ? 8 : 7);
    CHECK_INT(g.n_tensors, 3);
    CHECK_INT(g.n_parts, 1);
    struct gguf_str s;
    uint64_t u;
    double f;
    bool yes;
    CHECK_INT(gguf_get_str(&g, "general.name", &s, &e), 0);
    str_is(s, "a name");
    CHECK_INT(gguf_get_u64(&g, "u64", 0, UINT64_MAX, 0, &u, &e), 0);
    CHECK(u == UINT64_MAX);
    CHECK_INT(gguf_get_f64(&g, "f32", 0, 1, 0, &f, &e), 0);
    CHECK(f == (double)0.1f);
    CHECK_INT(gguf_get_bool(&g, "yes", false, &yes, &e), 0);
    CHECK(yes);
    const struct gguf_kv *kv = gguf_find(&g, "numbers");
    CHECK(kv && kv->kind == GGUF_ARRAY && kv->elem_kind == GGUF_F32 && kv->n == 2);
    CHECK(gguf_elem_f64(kv, 1) == -2 && gguf_elem_i64(kv, 0) == 1);
    kv = gguf_find(&g, "none");
    CHECK(kv && kv->n == 0 && kv->elem_kind == GGUF_U16);
    kv = gguf_find(&g, "words");
    CHECK(kv && kv->n == 3 && kv->strings[2].len == 5);
    CHECK(memcmp(kv->strings[2].data, "th\0ee", 5) == 0 && kv->strings[1].len == 0);
    static const uint64_t sizes[] = {20, 204, 240};
    for (size_t i = 0; i < 3; i++) {
        const struct gguf_tensor *t = &g.tensors[i];
        CHECK_INT(t->n_bytes, sizes[i]);
        CHECK(memcmp(t->data, data[i], sizes[i]) == 0);
        size_t offset = (size_t)((const uint8_t *)t->data - g.parts[0].map);
        CHECK_INT(offset % g.alignment, 0);
        CHECK(gguf_find_tensor(&g, t->name) == t);
    }
    CHECK_INT(g.tensors[2].n_dims, 4);
    CHECK_INT(g.tensors[2].ne[3], 5);
    CHECK_INT(g.tensors[1].ne[2], 1);
    CHECK_INT(g.parts[0].bytes % g.alignment, 0); /* the last tensor is padded too */

    /* Copied key by key, the metadata is the same, byte for byte. */
    CHECK_INT(ggufw_create(at("copy.gguf"), &w, &e), 0);
    for (size_t i = 0; i < g.n_kv; i++) {
        ggufw_put_kv(w, &g.kv[i]);
    }
    for (size_t i = 0; i < g.n_tensors; i++) {
        ggufw_declare(w, g.tensors[i].name, g.tensors[i].type, g.tensors[i].n_dims,
                      g.tensors[i].ne);
    }
    CHECK_INT(ggufw_begin_data(w, &e), 0);
    for (size_t i = 0; i < g.n_tensors; i++) {
        CHECK_INT(ggufw_write(w, g.tensors[i].data, g.tensors[i].n_bytes, &e), 0);
    }
    CHECK_INT(ggufw_commit(w, &e), 0);
    ggufw_destroy(&w);
    struct gguf copy = opened(at("copy.gguf"));
    CHECK_INT(copy.parts[0].bytes, g.parts[0].bytes);
    CHECK(memcmp(copy.parts[0].map, g.parts[0].map, g.parts[0].bytes) == 0);
    gguf_close(&copy);
    gguf_close(&g);
    CHECK(!g.parts && !g.index);
    gguf_close(&g);
}

static void writer_failures(void)
{
    static const uint64_t ne[] = {4}, huge[] = {1, (uint64_t)1 << 62, (uint64_t)1 << 62};
    struct ggufw *w = NULL;
    struct err e = {0};
    ggufw_destroy(&w); /* NULL-safe */
    CHECK_INT(ggufw_create("/nonexistent/x.gguf", &w, &e), -ENOENT);
    CHECK(!w && strstr(e.detail, "/nonexistent/x.gguf.part"));

    CHECK_INT(ggufw_create(at("abandoned.gguf"), &w, &e), 0);
    ggufw_put_u32(w, "k", 1);
    ggufw_destroy(&w);
    CHECK(access(at("abandoned.gguf"), F_OK) != 0 && access(at("abandoned.gguf.part"), F_OK) != 0);

    CHECK_INT(ggufw_create(at("twice.gguf"), &w, &e), 0);
    ggufw_put_u32(w, "kk", 1);
    ggufw_put_u32(w, "k", 1);
    ggufw_put_bool(w, "k", 1);
    CHECK_INT(ggufw_begin_data(w, &e), ERR_GGUF_BAD);
    CHECK_STR(e.detail, "key 'k' is written twice");
    ggufw_destroy(&w);

    CHECK_INT(ggufw_create(at("twice.gguf"), &w, &e), 0);
    ggufw_declare(w, "t", TYPE_F32, 1, ne);
    ggufw_declare(w, "t", TYPE_F32, 1, ne);
    CHECK_INT(ggufw_begin_data(w, &e), ERR_GGUF_BAD);
    CHECK_STR(e.detail, "tensor 't' is written twice");
    ggufw_destroy(&w);

    CHECK_INT(ggufw_create(at("huge.gguf"), &w, &e), 0);
    ggufw_declare(w, "t", TYPE_F32, 3, huge);
    CHECK_INT(ggufw_begin_data(w, &e), ERR_GGUF_BAD);
    CHECK_STR(e.detail, "tensor 't' is too large");
    ggufw_destroy(&w);

    CHECK_INT(ggufw_create(at("aligned.gguf"), &w, &e), 0);
    ggufw_put_u32(w, "general.alignment", 12);
    CHECK_INT(ggufw_begin_data(w, &e), ERR_GGUF_BAD);
    CHECK(strstr(e.detail, "general.alignment is 12"));
    ggufw_destroy(&w);

    /* A link in the place of the unfinished file is not followed. */
    CHECK(symlink("/dev/null", at("link.gguf.part")) == 0);
    CHECK_INT(ggufw_create(at("link.gguf"), &w, &e), -ELOOP);
}

/* A file system that takes no more: the failure comes out, and no half file stays. */
static void full_disk(void)
{
    static const uint64_t ne[] = {1024, 1024};
    static uint8_t data[4 * 1024 * 1024];
    struct ggufw *w = NULL;
    struct err e = {0};
    struct rlimit limit, small;
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    small = (struct rlimit){100000, limit.rlim_max};
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR && setrlimit(RLIMIT_FSIZE, &small) == 0);
    CHECK_INT(ggufw_create(at("full.gguf"), &w, &e), 0);
    ggufw_declare(w, "t", TYPE_F32, 2, ne);
    CHECK_INT(ggufw_begin_data(w, &e), 0);
    int rc = ggufw_write(w, data, sizeof(data), &e);
    CHECK_INT(rc == 0 ? ggufw_commit(w, &e) : rc, -EFBIG);
    CHECK(strstr(e.detail, "full.gguf.part"));
    ggufw_destroy(&w);
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHECK(access(at("full.gguf"), F_OK) != 0 && access(at("full.gguf.part"), F_OK) != 0);
}

/* --- values --- */

struct value {
    const char *key;
    enum gguf_kind kind;
    uint8_t bytes[8];
    bool has_integer;
    bool is_negative;
    uint64_t integer; /* magnitude */
    double real;
};

static void conversions(void)
{
    static const struct value values[] = {
        {"u8", GGUF_U8, {200}, true, false, 200, 200},
        {"i8", GGUF_I8, {0x80}, true, true, 128, -128},
        {"i8p", GGUF_I8, {0x7f}, true, false, 127, 127},
        {"u16", GGUF_U16, {0xff, 0xff}, true, false, 65535, 65535},
        {"i16", GGUF_I16, {0xff, 0xff}, true, true, 1, -1},
        {"u32", GGUF_U32, {0, 0, 0, 0x80}, true, false, 0x80000000, 2147483648.0},
        {"i32", GGUF_I32, {0, 0, 0, 0x80}, true, true, 0x80000000, -2147483648.0},
        {"u64", GGUF_U64, {0, 0, 0, 0, 0, 0, 0, 0x80}, true, false, (uint64_t)1 << 63, 0x1p63},
        {"i64", GGUF_I64, {0, 0, 0, 0, 0, 0, 0, 0x80}, true, true, (uint64_t)1 << 63, -0x1p63},
        {"f32", GGUF_F32, {0, 0, 0xc0, 0x3f}, false, false, 0, 1.5},
        {"f64", GGUF_F64, {0, 0, 0, 0, 0, 0, 0xf8, 0xbf}, false, false, 0, -1.5},
    };
    struct ggufw *w;
    struct err e = {0};
    CHECK_INT(ggufw_create(at("values.gguf"), &w, &e), 0);
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        const struct value *v = &values[i];
        struct gguf_kv kv = {.key = {v->key, strlen(v->key)},
                             .kind = v->kind,
                             .elem_kind = v->kind,
                             .n = 1,
                             .data = v->bytes,
                             .bytes = gguf_kind_bytes(v->kind)};
        ggufw_put_kv(w, &kv);
    }
    static const float nan = NAN, huge = 1e30f;
    ggufw_put_f32(w, "nan", nan);
    ggufw_put_f32(w, "huge", huge);
    ggufw_put_bool(w, "bool", true);
    ggufw_put_str(w, "str", "5", 1);
    ggufw_put_array(w, "array", GGUF_U8, "\5", 1);
    CHECK_INT(ggufw_begin_data(w, &e), 0);
    CHECK_INT(ggufw_commit(w, &e), 0);
    ggufw_destroy(&w);

    struct gguf g = opened(at("values.gguf"));
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        const struct value *v = &values[i];
        uint64_t u = 7;
        double f = 7;
        int rc = gguf_get_u64(&g, v->key, 0, UINT64_MAX, 1, &u, &e);
        CHECK_INT(rc, v->has_integer && !v->is_negative ? 0 : ERR_GGUF_KEY);
        CHECK(u == (rc == 0 ? v->integer : 7));
        CHECK_INT(gguf_get_f64(&g, v->key, -1e30, 1e30, 1, &f, &e), 0);
        CHECK(f == v->real);
        const struct gguf_kv *kv = gguf_find(&g, v->key);
        CHECK(gguf_elem_f64(kv, 0) == v->real);
        double nearest = fmin(fmax(trunc(v->real), -0x1p63), 0x1p63);
        CHECK(gguf_elem_i64(kv, 0) == (nearest == 0x1p63 ? INT64_MAX : (int64_t)nearest));
    }
    CHECK_INT(gguf_elem_i64(gguf_find(&g, "nan"), 0), 0);
    CHECK(gguf_elem_i64(gguf_find(&g, "huge"), 0) == INT64_MAX);
    CHECK(isnan(gguf_elem_f64(gguf_find(&g, "str"), 0)));
    CHECK_INT(gguf_elem_i64(gguf_find(&g, "str"), 0), 0);
    CHECK_INT(gguf_elem_i64(gguf_find(&g, "bool"), 0), 1);

    uint64_t u = 7;
    double f = 7;
    bool yes = true;
    struct gguf_str s = {"x", 1};
    const struct gguf_kv *kv = NULL;
    CHECK_INT(gguf_get_u64(&g, "u8", 0, 199, 1, &u, &e), ERR_GGUF_KEY);
    CHECK_STR(e.detail, "key 'u8' is 200, allowed 0 to 199");
    CHECK_INT(gguf_get_u64(&g, "u8", 201, 300, 1, &u, &e), ERR_GGUF_KEY);
    CHECK_INT(gguf_get_u64(&g, "i8", 0, 300, 1, &u, &e), ERR_GGUF_KEY);
    CHECK_STR(e.detail, "key 'i8' is -128, allowed 0 to 300");
    CHECK_INT(gguf_get_u64(&g, "i64", 0, UINT64_MAX, 1, &u, &e), ERR_GGUF_KEY);
    CHECK_STR(e.detail, "key 'i64' is -9223372036854775808, allowed 0 to 18446744073709551615");
    CHECK_INT(gguf_get_f64(&g, "nan", -1e300, 1e300, 1, &f, &e), ERR_GGUF_KEY);
    CHECK_INT(gguf_get_f64(&g, "f32", 0, 1, 1, &f, &e), ERR_GGUF_KEY);
    CHECK_STR(e.detail, "key 'f32' is 1.5, allowed 0 to 1");
    static const char *const no_number[] = {"bool", "str", "array"};
    for (size_t i = 0; i < COUNT_OF(no_number); i++) {
        CHECK_INT(gguf_get_u64(&g, no_number[i], 0, 10, 1, &u, &e), ERR_GGUF_KEY);
        CHECK_INT(gguf_get_f64(&g, no_number[i], 0, 10, 1, &f, &e), ERR_GGUF_KEY);
    }
    CHECK_STR(e.detail, "key 'array' is array, must be a number");
    CHECK_INT(gguf_get_bool(&g, "u8", false, &yes, &e), ERR_GGUF_KEY);
    CHECK_INT(gguf_get_str(&g, "array", &s, &e), ERR_GGUF_KEY);
    CHECK_INT(gguf_get_array(&g, "str", GGUF_STRING, 0, 9, &kv, &e), ERR_GGUF_KEY);
    CHECK_INT(gguf_get_array(&g, "array", GGUF_I8, 0, 9, &kv, &e), ERR_GGUF_KEY);
    CHECK_INT(gguf_get_array(&g, "array", GGUF_U8, 2, 9, &kv, &e), ERR_GGUF_KEY);
    CHECK(u == 7 && f == 7 && yes && s.len == 1 && !kv); /* untouched by failures */
    CHECK_INT(gguf_get_array(&g, "array", GGUF_U8, 1, 1, &kv, &e), 0);
    CHECK(kv && gguf_elem_i64(kv, 0) == 5);

    /* Absent keys give the default, whatever the range. */
    CHECK(!gguf_find(&g, "absent"));
    CHECK_INT(gguf_get_u64(&g, "absent", 1, 2, 9, &u, &e), 0);
    CHECK_INT(gguf_get_f64(&g, "absent", 1, 2, 9, &f, &e), 0);
    CHECK_INT(gguf_get_bool(&g, "absent", false, &yes, &e), 0);
    CHECK_INT(gguf_get_str(&g, "absent", &s, &e), 0);
    CHECK_INT(gguf_get_array(&g, "absent", GGUF_U8, 1, 1, &kv, &e), 0);
    CHECK(u == 9 && f == 9 && !yes && !s.data && s.len == 0 && !kv);
    gguf_close(&g);
    CHECK_STR(gguf_kind_name(GGUF_F64), "f64");
    CHECK_STR(gguf_kind_name(13), "?");
    CHECK_INT(gguf_kind_bytes(13), 0);
    CHECK_INT(gguf_kind_bytes(GGUF_STRING), 0);
}

/* --- split files --- */

/* Part no of count, saying to be part says_no; with one tensor of 4 floats all of value no. */
static void write_part(const char *name, unsigned no, unsigned says_no, unsigned count,
                       unsigned n_tensors, const char *tensor)
{
    static const uint64_t ne[] = {4};
    float data[4] = {(float)no, (float)no, (float)no, (float)no};
    struct ggufw *w;
    struct err e = {0};
    CHECK_INT(ggufw_create(at(name), &w, &e), 0);
    if (no == 0) {
        ggufw_put_str(w, "general.architecture", "llama", 5);
    }
    ggufw_put_u32(w, "split.no", says_no);
    ggufw_put_u32(w, "split.count", count);
    ggufw_put_u32(w, "split.tensors.count", n_tensors);
    ggufw_declare(w, tensor, TYPE_F32, 1, ne);
    CHECK_INT(ggufw_begin_data(w, &e), 0);
    CHECK_INT(ggufw_write(w, data, sizeof(data), &e), 0);
    CHECK_INT(ggufw_commit(w, &e), 0);
    ggufw_destroy(&w);
}

static void write_three(void)
{
    write_part("s-00001-of-00003.gguf", 0, 0, 3, 3, "a");
    write_part("s-00002-of-00003.gguf", 1, 1, 3, 3, "b");
    write_part("s-00003-of-00003.gguf", 2, 2, 3, 3, "c");
}

static void splits(void)
{
    char name[64];
    write_three();
    for (int named = 1; named <= 3; named++) { /* any part may be named */
        snprintf(name, sizeof(name), "s-%05d-of-00003.gguf", named);
        struct gguf g = opened(at(name));
        CHECK_INT(g.n_parts, 3);
        CHECK_INT(g.n_tensors, 3);
        CHECK(gguf_find(&g, "general.architecture")); /* the metadata is the first part's */
        static const char *const names[] = {"a", "b", "c"};
        for (uint32_t i = 0; i < 3; i++) {
            const struct gguf_tensor *t = gguf_find_tensor(&g, names[i]);
            CHECK(t == &g.tensors[i] && t->part == i);
            CHECK(((const float *)t->data)[3] == (float)i);
            const uint8_t *map = g.parts[i].map, *data = t->data;
            CHECK(data >= map && data + t->n_bytes <= map + g.parts[i].bytes);
            snprintf(name, sizeof(name), "s-%05u-of-00003.gguf", i + 1);
            CHECK_STR(g.parts[i].path, at(name));
        }
        CHECK_INT(gguf_check_unchanged(&g, NULL), 0);
        gguf_close(&g);
    }
    write_part("s-00002-of-00003.gguf", 1, 2, 3, 3, "b");
    check_refused(
        at("s-00001-of-00003.gguf"), ERR_GGUF_SPLIT,
        "it says to be part 3 of 3 with 3 tensors in all, expected is part 2 of 3 with 3");
    write_part("s-00002-of-00003.gguf", 1, 1, 4, 3, "b");
    check_refused(at("s-00001-of-00003.gguf"), ERR_GGUF_SPLIT,
                  "s-00002-of-00003.gguf: it says to be part 2 of 4");
    check_refused(at("s-00002-of-00003.gguf"), ERR_GGUF_SPLIT,
                  "not named so (-00002-of-00004.gguf)");
    write_part("s-00002-of-00003.gguf", 1, 1, 3, 4, "b");
    check_refused(at("s-00001-of-00003.gguf"), ERR_GGUF_SPLIT, "4 tensors in all");
    write_part("s-00002-of-00003.gguf", 1, 1, 3, 3, "a");
    check_refused(at("s-00001-of-00003.gguf"), ERR_GGUF_SPLIT, "tensor 'a' stands in two parts");
    CHECK(unlink(at("s-00002-of-00003.gguf")) == 0);
    check_refused(at("s-00001-of-00003.gguf"), ERR_GGUF_SPLIT, "part 2 of 3 cannot be opened");
    check_refused(at("s-00003-of-00003.gguf"), ERR_GGUF_SPLIT, "part 2 of 3 cannot be opened");
    FILE *f = fopen(at("s-00002-of-00003.gguf"), "w");
    CHECK(f && fputs("nonsense", f) >= 0 && fclose(f) == 0);
    check_refused(at("s-00001-of-00003.gguf"), ERR_GGUF_MAGIC, "s-00002-of-00003.gguf: its");
    write_three();
    write_part("s-00001-of-00003.gguf", 0, 0, 3, 5, "a");
    write_part("s-00002-of-00003.gguf", 1, 1, 3, 5, "b");
    write_part("s-00003-of-00003.gguf", 2, 2, 3, 5, "c");
    check_refused(at("s-00001-of-00003.gguf"), ERR_GGUF_SPLIT, "hold 3 tensors, expected are 5");
    write_part("s-00001-of-00003.gguf", 0, 0, 3, 2, "a");
    write_part("s-00002-of-00003.gguf", 1, 1, 3, 2, "b");
    write_part("s-00003-of-00003.gguf", 2, 2, 3, 2, "c");
    check_refused(at("s-00001-of-00003.gguf"), ERR_GGUF_SPLIT, "hold 3 tensors, expected are 2");
    write_part("s-00001-of-00003.gguf", 0, 3, 3, 2, "a");
    check_refused(at("s-00001-of-00003.gguf"), ERR_GGUF_SPLIT, "part 4 of 3");
    write_part("s-00001-of-00003.gguf", 0, 0, 1025, 2, "a");
    check_refused(at("s-00001-of-00003.gguf"), ERR_GGUF_KEY, "split.count' is 1025");
    write_part("whole.gguf", 0, 0, 1, 1, "a"); /* one part is a whole */
    struct gguf g = opened(at("whole.gguf"));
    CHECK_INT(g.n_parts, 1);
    gguf_close(&g);
    write_part("misnamed.gguf", 0, 0, 2, 2, "a");
    check_refused(at("misnamed.gguf"), ERR_GGUF_SPLIT, "part 1 of 2, but not named so");
}

/* --- files --- */

static void opening(void)
{
    check_refused(at("absent.gguf"), ERR_GGUF_OPEN, "absent.gguf: No such file");
    check_refused(dir, ERR_GGUF_MAGIC, "no regular file");
    CHECK(mkfifo(at("fifo"), 0600) == 0);
    check_refused(at("fifo"), ERR_GGUF_MAGIC,
                  "no regular file"); /* and does not wait for a writer */
    FILE *f = fopen(at("empty.gguf"), "w");
    CHECK(f && fclose(f) == 0);
    check_refused(at("empty.gguf"), ERR_GGUF_TRUNCATED, "is empty");
    f = fopen(at("bad.gguf"), "w");
    CHECK(f && fputs("GGUF\3", f) >= 0 && fclose(f) == 0);
    check_refused(at("bad.gguf"), ERR_GGUF_TRUNCATED,
                  "bad.gguf: header, byte 4: the file ends here");
}

static void changes_are_seen(void)
{
    struct err e = {0};
    write_part("change.gguf", 0, 0, 1, 1, "a");
    struct gguf g = opened(at("change.gguf"));
    CHECK_INT(gguf_check_unchanged(&g, &e), 0);
    struct timespec times[2] = {{1000, 0}, {1000, 0}};
    CHECK(utimensat(AT_FDCWD, at("change.gguf"), times, 0) == 0);
    CHECK_INT(gguf_check_unchanged(&g, &e), ERR_MODEL_CHANGED); /* the time */
    CHECK(strstr(e.detail, "change.gguf"));
    gguf_close(&g);
    g = opened(at("change.gguf"));
    FILE *f = fopen(at("change.gguf"), "a");
    CHECK(f && fputs("x", f) >= 0 && fclose(f) == 0);
    CHECK(utimensat(AT_FDCWD, at("change.gguf"), times, 0) == 0);
    CHECK_INT(gguf_check_unchanged(&g, &e), ERR_MODEL_CHANGED); /* the size */
    gguf_close(&g);
    g = opened(at("change.gguf"));
    CHECK(rename(at("change.gguf"), at("old.gguf")) == 0);
    CHECK_INT(gguf_check_unchanged(&g, &e), ERR_MODEL_CHANGED); /* gone */
    write_part("change.gguf", 0, 0, 1, 1, "a");
    CHECK(truncate(at("change.gguf"), (off_t)g.parts[0].bytes) == 0);
    CHECK(utimensat(AT_FDCWD, at("change.gguf"), times, 0) == 0);
    CHECK_INT(gguf_check_unchanged(&g, &e), ERR_MODEL_CHANGED); /* another file of the same look */
    gguf_close(&g);
}

/* Every real file opens; the larger vocabularies within a few milliseconds. */
static void real_files(void)
{
    static const char *const folders[] = {"quants", "archs", "tokenizers", "trained", "demo"};
    const char *data = test_data_dir();
    size_t n = 0;
    for (size_t i = 0; i < COUNT_OF(folders); i++) {
        char path[1024];
        snprintf(path, sizeof(path), "%s/%s", data, folders[i]);
        DIR *d = opendir(path);
        CHECK(d);
        for (struct dirent *entry; (entry = readdir(d));) {
            size_t len = strlen(entry->d_name);
            if (len < 5 || strcmp(entry->d_name + len - 5, ".gguf") != 0) {
                continue;
            }
            snprintf(path, sizeof(path), "%s/%s/%s", data, folders[i], entry->d_name);
            uint64_t best = UINT64_MAX;
            for (int round = 0; round < 5; round++) {
                uint64_t start = clock_ns();
                struct gguf g = opened(path);
                best = MIN(best, clock_ns() - start);
                CHECK(gguf_find(&g, "general.architecture"));
                uint64_t bytes = 0;
                for (size_t t = 0; t < g.n_tensors; t++) {
                    bytes += g.tensors[t].n_bytes;
                }
                CHECK(bytes <= g.parts[0].bytes);
                gguf_close(&g);
            }
            if (strcmp(entry->d_name, "llama-bpe.gguf") == 0) {
                printf("128,256 tokens, 280,147 merges: opened in %.2f ms\n", (double)best / 1e6);
                CHECK(best < 50000000); /* far above, for sanitizers and busy machines */
            }
            n++;
        }
        closedir(d);
    }
    printf("%zu real files opened\n", n);
    CHECK(n >= 50);
}

int main(void)
{
    CHECK(mkdtemp(dir));
    round_trip(0);
    round_trip(8);
    round_trip(65536);
    writer_failures();
    full_disk();
    conversions();
    splits();
    opening();
    changes_are_seen();
    char command[64];
    snprintf(command, sizeof(command), "rm -r %s", dir);
    CHECK(system(command) == 0);
    real_files();
    return 0;
}
