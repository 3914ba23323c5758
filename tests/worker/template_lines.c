/* Renders templates given as JSON lines {"template": ..., "context": {...}, "now": seconds} on
 * stdin; one JSON line {"output": ...} or {"error": ...} for each on stdout. For
 * tests/worker/template/. */
#include "shared/json.h"
#include "tests/test.h"
#include "worker/template.h"

static void answer(const json_t *line)
{
    struct template *t = NULL;
    struct buf out, text;
    struct err e = {0};
    const json_t *source = json_object_get(line, "template");
    buf_init(&out, 0);
    buf_init(&text, 0);
    int rc = template_create(json_string_value(source), json_string_length(source), &t, &e);
    if (rc == 0) {
        rc = template_render(t, json_object_get(line, "context"),
                             json_integer_value(json_object_get(line, "now")), &text, &e);
    }
    if (rc < 0) {
        buf_str(&out, "{\"error\": ");
        json_put_string(&out, e.detail, strlen(e.detail));
    } else {
        buf_str(&out, "{\"output\": ");
        json_put_string(&out, text.data ? text.data : "", text.len);
    }
    buf_str(&out, "}\n");
    CHECK(!out.failed);
    fputs(out.data, stdout);
    buf_finish(&out);
    buf_finish(&text);
    template_destroy(&t);
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    setenv("TZ", "UTC", 1);
    for (ssize_t n; (n = getline(&line, &cap, stdin)) > 0;) {
        struct err e = {0};
        json_t *v = NULL;
        if (json_parse(line, (size_t)n, &v, &e) < 0) {
            TEST_FAIL("%s", e.detail);
        }
        answer(v);
        json_decref(v);
        fflush(stdout);
    }
    free(line);
    return 0;
}
