/* Models whose metadata and tensors do not fit together: every key of every architecture with
 * numbers that are absurd, zero, of the wrong kind or missing; every tensor missing, turned or of
 * another size. Each is refused with an error that says what and where, or computes without
 * harm. */
#include "tests/worker/tiny_model.h"

#include "shared/num.h"
#include "tests/test.h"
#include "worker/engine.h"

static int n_tried, n_refused;

static void try_model(const struct tiny_model *m)
{
    struct engine_options o = {.n_threads = 1,
                               .isa = isa_detect(),
                               .kv_type = TYPE_F16,
                               .n_ctx = 32,
                               .n_seqs = 1,
                               .max_rows = 4,
                               .max_logits = 4,
                               .kv_memory_share = 0.1};
    struct err e = {0};
    struct engine *en;
    struct engine_seq *s;
    n_tried++;
    int err = engine_open(tiny_model_file(m, TYPE_F32), &o, &en, &e);
    if (err != 0) {
        n_refused++;
        CHECK(err == e.code && strlen(e.detail) > 3);
        CHECK(err == ERR_GGUF_KEY || err == ERR_MODEL_TENSOR || err == ERR_MODEL_ARCH ||
              err == ERR_GGUF_TYPE || err == ERR_NO_MEMORY);
        return;
    }
    CHECK(engine_seq_create(en, &s) == 0 && engine_seq_reserve(en, s, 20) == 0);
    for (int step = 0; step < 5; step++) {
        struct engine_row rows[4];
        const float *logits[4];
        for (int i = 0; i < 4; i++) {
            rows[i] = (struct engine_row){s, 4 * step + i, true, 0};
        }
        err = engine_step(en, rows, 4, logits, &e);
        CHECK(err == 0 || err == ERR_NUMERIC);
    }
    engine_close(&en);
}

/* The text with its i-th word replaced by what `change` makes of it; false when there is no
 * such. */
static bool with_word(const char *text, int i, void (*change)(char *word, int how), int how,
                      char *ret, size_t bytes)
{
    char *copy = strdup(text), *at;
    bool found = false;
    size_t n = 0;
    *ret = 0;
    for (char *word = strtok_r(copy, " ", &at); word; word = strtok_r(NULL, " ", &at), i--) {
        char changed[256];
        snprintf(changed, sizeof changed, "%s", word);
        if (i == 0) {
            found = true;
            change(changed, how);
        }
        n += (size_t)snprintf(ret + n, bytes - n, "%s ", changed);
        CHECK(n < bytes);
    }
    free(copy);
    return found;
}

static const char *const values[] = {"0",          "1",    "3",         "2147483647", "4294967295",
                                     "65537",      "0.0",  "100000.5",  "true",       "text",
                                     "[0,0]",      "[-1,3]", "[7]",     "1000000000"};

static void change_key(char *word, int how)
{
    char *value = strchr(word, '=');
    if (how == (int)COUNT_OF(values)) {
        *word = 0; /* gone */
    } else {
        strcpy(value + 1, values[how]);
    }
}

enum { TENSOR_CHANGES = 4 };

static void change_tensor(char *word, int how)
{
    char *colon = strrchr(word, ':');
    switch (how) {
    case 0:
        *word = 0;
        break;
    case 1:
        strcpy(colon + 1, "32,7");
        break;
    case 2:
        strcpy(colon + 1, "1");
        break;
    default:
        strcat(word, ",2"); /* one dimension more */
        break;
    }
}

int main(void)
{
    for (size_t i = 0; i < tiny_n_models; i++) {
        struct tiny_model m = tiny_models[i];
        char text[4096];
        if (m.n_layers > 4) {
            continue; /* deep ones differ by their depth only */
        }
        for (int how = 0; how <= (int)COUNT_OF(values); how++) {
            m.keys = text;
            for (int k = 0; with_word(tiny_models[i].keys, k, change_key, how, text, sizeof text);
                 k++) {
                try_model(&m);
            }
        }
        m.keys = tiny_models[i].keys;
        for (int how = 0; how < TENSOR_CHANGES; how++) {
            m.tensors = text;
            for (int k = 0;
                 with_word(tiny_models[i].tensors, k, change_tensor, how, text, sizeof text); k++) {
                try_model(&m);
            }
        }
        m.tensors = tiny_models[i].tensors;
        m.n_layers = 3; /* tensors of a layer are missing */
        try_model(&m);
    }
    printf("%d models, %d refused\n", n_tried, n_refused);
    CHECK(n_refused > n_tried / 3);
    return 0;
}
