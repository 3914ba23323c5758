/* Any bytes as a grammar (first byte even) or as a schema (odd): refused with a reason, or
 * compiled; the rest of the text, behind a NUL, is then walked. */
#include "shared/json.h"
#include "tests/test.h"
#include "worker/grammar/automaton.h"
#include "worker/grammar/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int compile(const char *text, size_t n, struct grammar **g, struct automaton **a)
{
    struct err e = {0};
    int rc = grammar_create(text, n, g, &e);
    rc = rc < 0 ? rc : automaton_create(*g, a, &e);
    CHECK(rc == 0 || (rc == ERR_GRAMMAR && e.code == rc && e.detail[0]));
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct grammar *g = NULL;
    struct automaton *a = NULL;
    if (n < 1) {
        return 0;
    }
    const char *text = (const char *)data + 1;
    const char *end = memchr(text, 0, n - 1);
    size_t len = end ? (size_t)(end - text) : n - 1;
    int rc;
    if (data[0] & 1) {
        json_t *json = NULL;
        struct buf gbnf;
        struct err e = {0};
        buf_init(&gbnf, 0);
        rc = json_parse(text, len, &json, NULL);
        rc = rc < 0 ? rc : schema_to_gbnf(json, &gbnf, &e);
        json_decref(json);
        rc = rc < 0 ? rc : compile(gbnf.data, gbnf.len, &g, &a);
        buf_finish(&gbnf);
    } else {
        rc = compile(text, len, &g, &a);
    }
    uint32_t state = AUTOMATON_BEGIN;
    for (size_t i = len + 2; rc == 0 && i < n && state != AUTOMATON_DEAD; i++) {
        state = automaton_step(a, state, data[i]);
        if (state == AUTOMATON_FULL) {
            automaton_reset(a);
            state = AUTOMATON_BEGIN;
        }
        automaton_accepts(a, state);
    }
    automaton_destroy(&a);
    grammar_destroy(&g);
    return 0;
}
