/* Any bytes as a template, rendered with a context that has something of everything. */
#include "shared/json.h"
#include "tests/test.h"
#include "worker/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char context_text[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"S é\"}, {\"role\": \"user\", "
    "\"content\": \"Hi\"},"
    " {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"abcdefghi\", "
    "\"function\":"
    " {\"name\": \"f\", \"arguments\": {\"x\": [1, 2.5, true, null, \"<é🙂>\"]}}}]}],"
    " \"tools\": [{\"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\"}}}],"
    " \"add_generation_prompt\": true, \"bos_token\": \"<s>\", \"n\": -3, \"f\": 1e300, \"s\": \"a "
    "b\\tc\"}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static json_t *context;
    struct template *t = NULL;
    struct err e = {0};
    struct buf out;
    if (!context) {
        CHECK(json_parse(context_text, sizeof(context_text) - 1, &context, &e) == 0);
    }
    if (template_create((const char *)data, n, &t, &e) == 0) {
        buf_init(&out, 0);
        int rc = template_render(t, context, 1700000000, &out, &e);
        CHECK(rc == 0 || e.detail[0]);
        buf_finish(&out);
    }
    template_destroy(&t);
    return 0;
}
