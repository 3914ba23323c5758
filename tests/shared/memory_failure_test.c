/* Memory runs out at the Nth allocation, for every N: each operation answers with an error, leaves
 * its results untouched and leaks nothing (the sanitizer build sees leaks). The linker sends our
 * library's allocations through here (--wrap). */
#include "tests/test.h"
#include "shared/config.h"
#include "shared/ggufw.h"
#include "shared/json.h"

#include <errno.h>

static long left = -1; /* allocations until one fails; negative: never */
static bool has_failed;

static bool fails(void)
{
    if (left < 0) {
        return false;
    }
    if (left-- == 0) {
        has_failed = true;
        return true;
    }
    return false;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}
void *__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}
char *__wrap_strdup(const char *s)
{
    return fails() ? NULL : __real_strdup(s);
}
char *__wrap_strndup(const char *s, size_t n)
{
    return fails() ? NULL : __real_strndup(s, n);
}

static char dir[] = "/tmp/memory_failure_test.XXXXXX";

static const char *at(const char *name)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

/* Runs op with the Nth allocation failing, N from 0 until none fails any more. */
static void sweep(const char *name, int (*op)(struct err *e))
{
    for (long n = 0;; n++) {
        CHECK(n < 10000);
        struct err e = {0};
        left = n;
        has_failed = false;
        int rc = op(&e);
        left = -1;
        if (!has_failed) {
            if (rc != 0) {
                TEST_FAIL("%s: %s", name, e.detail);
            }
            CHECK(n > 0);
            printf("%s: %ld allocations\n", name, n);
            return;
        }
        if (rc != -ENOMEM || e.code != rc || !*e.detail) {
            TEST_FAIL("%s, allocation %ld: %d \"%s\"", name, n, rc, e.detail);
        }
    }
}

static int write_part(const char *name, uint32_t no, uint32_t count, struct err *e)
{
    static const uint64_t ne[] = {4};
    static const float data[4] = {0};
    static const struct gguf_str words[] = {{"a", 1}, {"b", 1}};
    struct ggufw *w = NULL;
    char tensor[8];
    snprintf(tensor, sizeof(tensor), "t%u", no);
    int rc = ggufw_create(at(name), &w, e);
    if (rc == 0) {
        ggufw_put_u32(w, "split.no", no);
        ggufw_put_u32(w, "split.count", count);
        ggufw_put_u32(w, "split.tensors.count", count);
        ggufw_put_str_array(w, "words", words, 2);
        ggufw_declare(w, tensor, TYPE_F32, 1, ne);
        rc = ggufw_begin_data(w, e);
    }
    rc = rc < 0 ? rc : ggufw_write(w, data, sizeof(data), e);
    rc = rc < 0 ? rc : ggufw_commit(w, e);
    ggufw_destroy(&w);
    return rc;
}

static int write_op(struct err *e)
{
    (void)unlink(at("written.gguf"));
    int rc = write_part("written.gguf", 0, 1, e);
    CHECK(access(at("written.gguf"), F_OK) == (rc == 0 ? 0 : -1));
    CHECK(access(at("written.gguf.part"), F_OK) != 0);
    return rc;
}

static int open_op(struct err *e)
{
    struct gguf g = {.version = 77};
    int rc = gguf_open(at("s-00002-of-00002.gguf"), &g, e);
    if (rc == 0) {
        CHECK(g.n_tensors == 2);
        gguf_close(&g);
    } else {
        CHECK(g.version == 77);
    }
    return rc;
}

static int json_op(struct err *e)
{
    static const char text[] = "{\"a\":[1,2.5,\"text\",{\"b\":null}],\"c\":\"\\u20ac\"}";
    json_t *v = NULL;
    int rc = json_parse(text, strlen(text), &v, e);
    if (rc < 0) {
        CHECK(!v && (rc == -ENOMEM || rc == ERR_BAD_JSON)); /* jansson cannot always tell */
        return err_set(e, -ENOMEM, "as it should");
    }
    struct buf b;
    buf_init(&b, 0);
    json_put_value(&b, v);
    if (b.failed) {
        rc = err_set(e, -ENOMEM, "as it should");
    }
    buf_finish(&b);
    json_decref(v);
    return rc;
}

static int config_op(struct err *e)
{
    static const char handed[] = "port=7\nmodel=a\nmodel=b\n";
    char program[] = "rocmforge", flag[] = "--model=m.gguf", *argv[] = {program, flag, NULL};
    long allowed = left;
    struct config c;
    left = -1;
    config_init(&c); /* small and fixed: may abort */
    left = allowed;
    int rc = config_load(&c, at("c.conf"), e);
    if (rc == 0) {
        rc = config_take_flag(&c, 2, argv, 1, e);
        rc = rc > 0 ? 0 : rc;
    }
    rc = rc < 0 ? rc : config_decode(&c, handed, strlen(handed), e);
    char *name = NULL, *path = NULL;
    if (rc == 0 && (rc = config_model("n=p", &name, &path, e)) < 0) {
        CHECK(!name && !path);
    }
    free(name);
    free(path);
    config_finish(&c);
    return rc;
}

int main(void)
{
    struct err e = {0};
    CHECK(mkdtemp(dir) && setenv("ROCMFORGE_ALLOWED_HOST", "a,b", 1) == 0);
    CHECK_INT(write_part("s-00001-of-00002.gguf", 0, 2, &e), 0);
    CHECK_INT(write_part("s-00002-of-00002.gguf", 1, 2, &e), 0);
    FILE *f = fopen(at("c.conf"), "w");
    CHECK(f && fputs("port = 5\ncors_origin = x\n", f) >= 0 && fclose(f) == 0);
    json_set_alloc_funcs(__wrap_malloc, free);
    json_object_seed(1);
    sweep("gguf write", write_op);
    sweep("gguf open, two parts", open_op);
    sweep("json", json_op);
    sweep("config", config_op);
    char command[64];
    snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command) != 0;
}
