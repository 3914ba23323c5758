/* Templates in the manner of the model families, against what Jinja2 made of them
 * (template/make_families.py): all must print the same, raise the same, and fail where it fails. */
#include "shared/json.h"
#include "tests/test.h"
#include "worker/template.h"

#define FOLDER "tests/worker/template/"
enum { NOW = 1700000000 }; /* as in make_families.py */

static void read_file(const char *path, struct buf *ret)
{
    FILE *f = fopen(path, "rb");
    char chunk[4096];
    if (!f) {
        TEST_FAIL("cannot open %s", path);
    }
    buf_init(ret, 0);
    for (size_t n; (n = fread(chunk, 1, sizeof(chunk), f)) > 0;) {
        buf_add(ret, chunk, n);
    }
    fclose(f);
    CHECK(!ret->failed && ret->len > 0);
}

static json_t *parse(const char *text, size_t n)
{
    json_t *v = NULL;
    struct err e = {0};
    if (json_parse(text, n, &v, &e) < 0) {
        TEST_FAIL("%s", e.detail);
    }
    return v;
}

static void check(const char *family, const char *name, const struct template *t,
                  const json_t *context, json_t *expected)
{
    struct buf text;
    struct err e = {0};
    buf_init(&text, 0);
    int rc = template_render(t, context, NOW, &text, &e);
    const char *kind = json_object_iter_key(json_object_iter(expected));
    const char *want = json_string_value(json_object_iter_value(json_object_iter(expected)));
    const char *got = rc < 0 ? e.detail : text.data ? text.data : "";
    if ((rc == 0) != (strcmp(kind, "output") == 0) ||
        (strcmp(kind, "error") != 0 && strcmp(got, want) != 0)) {
        TEST_FAIL("%s with %s: %s\n%s\nexpected %s\n%s", family, name, rc < 0 ? "error" : "output",
                  got, kind, want);
    }
    buf_finish(&text);
}

int main(void)
{
    struct buf text, lines;
    int n_families = 0, n_checks = 0;
    setenv("TZ", "UTC", 1);
    read_file(FOLDER "contexts.json", &text);
    json_t *contexts = parse(text.data, text.len);
    buf_finish(&text);
    read_file(FOLDER "families.jsonl", &lines);
    for (char *line = strtok(lines.data, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *answers = parse(line, strlen(line)), *context;
        const char *family = json_string_value(json_object_get(answers, "family")), *name;
        char path[256];
        struct template *t = NULL;
        struct err e = {0};
        snprintf(path, sizeof(path), FOLDER "families/%s.jinja", family);
        read_file(path, &text);
        if (template_create(text.data, text.len, &t, &e) < 0) {
            TEST_FAIL("%s: %s", family, e.detail);
        }
        json_object_foreach(contexts, name, context)
        {
            check(family, name, t, context, json_object_get(answers, name));
            n_checks++;
        }
        template_destroy(&t);
        buf_finish(&text);
        json_decref(answers);
        n_families++;
    }
    buf_finish(&lines);
    json_decref(contexts);
    CHECK(n_families >= 60);
    printf("%d templates in %d contexts\n", n_families, n_checks);
    return 0;
}
