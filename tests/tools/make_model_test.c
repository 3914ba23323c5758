/* make_model's files: the same bytes for the same arguments whatever the threads, tensors of the
 * type asked for, a vocabulary that the tokenizer takes, and finite logits. Argument: make_model.
 */
#include "tests/test.h"
#include "shared/gguf.h"
#include "worker/engine.h"
#include "worker/tokenizer.h"

static char dir[] = "/tmp/make_model_test.XXXXXX";

static struct gguf made(const char *program, const char *type, const char *more)
{
    char path[128], command[1024];
    struct gguf g;
    struct err e = {0};
    snprintf(path, sizeof(path), "%s/%s.gguf", dir, type);
    snprintf(command, sizeof(command), "'%s' --shape tiny --type %s %s -o %s >/dev/null", program,
             type, more, path);
    CHECK_INT(system(command), 0);
    if (gguf_open(path, &g, &e) != 0) {
        TEST_FAIL("%s", e.detail);
    }
    return g;
}

static void deterministic(const char *program)
{
    struct gguf g = made(program, "Q4_0", "--seed 7 --threads 1");
    size_t n = g.parts[0].bytes;
    char *first = malloc(n);
    CHECK(first);
    memcpy(first, g.parts[0].map, n);
    gguf_close(&g);
    g = made(program, "Q4_0", "--seed 7 --threads 3");
    CHECK(g.parts[0].bytes == n && memcmp(first, g.parts[0].map, n) == 0);
    gguf_close(&g);
    g = made(program, "Q4_0", "--seed 8");
    CHECK(g.parts[0].bytes != n || memcmp(first, g.parts[0].map, n) != 0);
    gguf_close(&g);
    free(first);
}

/* The file types' own rule: what llama.cpp makes of these shapes. */
static void types(const char *program)
{
    static const struct {
        const char *file_type;
        enum type query, value, last_value, embedding;
    } row[] = {
        {"F16", TYPE_F16, TYPE_F16, TYPE_F16, TYPE_F16},
        {"Q4_0", TYPE_Q4_0, TYPE_Q4_0, TYPE_Q4_0, TYPE_Q6_K},
        {"Q8_0", TYPE_Q8_0, TYPE_Q8_0, TYPE_Q8_0, TYPE_Q8_0},
        {"Q4_K_M", TYPE_Q4_K, TYPE_Q4_K, TYPE_Q6_K, TYPE_Q6_K},
    };
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        struct gguf g = made(program, row[i].file_type, "");
        CHECK_INT(gguf_find_tensor(&g, "blk.1.attn_q.weight")->type, row[i].query);
        CHECK_INT(gguf_find_tensor(&g, "blk.0.attn_v.weight")->type, row[i].value);
        CHECK_INT(gguf_find_tensor(&g, "blk.1.attn_v.weight")->type, row[i].last_value);
        CHECK_INT(gguf_find_tensor(&g, "token_embd.weight")->type, row[i].embedding);
        CHECK_INT(gguf_find_tensor(&g, "blk.0.attn_q.bias")->type, TYPE_F32);
        CHECK_INT(gguf_find_tensor(&g, "blk.0.attn_norm.weight")->type, TYPE_F32);
        gguf_close(&g);
    }
}

static void computes(const char *program)
{
    struct gguf g = made(program, "Q4_K_M", "");
    struct tokenizer *t;
    struct engine *en;
    struct engine_seq *s;
    struct err e = {0};
    char warn[160];
    struct buf ids, text;
    buf_init(&ids, 0);
    buf_init(&text, 0);
    CHECK_INT(tokenizer_create(&g, &t, warn, &e), 0);
    CHECK_STR(warn, "");
    static const char words[] = "The quick brown fox\njumps over 13 lazy d\xC3\xB6gs.";
    CHECK_INT(tokenizer_encode(t, words, strlen(words), 0, &ids), 0);
    size_t n = ids.len / sizeof(int32_t);
    CHECK(n > 0 && n < strlen(words)); /* some merges apply */
    CHECK_INT(tokenizer_decode(t, (const int32_t *)(const void *)ids.data, n, true, &text), 0);
    CHECK_STR(text.data, words);
    CHECK(tokenizer_is_end(t, 1002) && !tokenizer_is_end(t, 5));

    struct engine_options o = {.n_threads = 1,
                               .isa = ISA_SCALAR,
                               .kv_type = TYPE_F16,
                               .n_ctx = 64,
                               .n_seqs = 1,
                               .max_rows = 64,
                               .max_logits = 1,
                               .kv_memory_share = 0.5};
    CHECK_INT(engine_open(g.parts[0].path, &o, &en, &e), 0);
    CHECK_INT(engine_seq_create(en, &s), 0);
    CHECK_INT(engine_seq_reserve(en, s, (int64_t)n), 0);
    struct engine_row rows[64] = {0};
    for (size_t i = 0; i < n; i++) {
        int32_t id;
        memcpy(&id, ids.data + i * sizeof(id), sizeof(id));
        rows[i] = (struct engine_row){.seq = s, .token = id, .want_logits = i + 1 == n};
    }
    const float *logits;
    CHECK_INT(engine_step(en, rows, (int64_t)n, &logits, &e), 0);
    double sum = 0, squares = 0;
    for (int i = 0; i < 1024; i++) {
        CHECK(isfinite(logits[i]));
        sum += (double)logits[i];
        squares += (double)logits[i] * (double)logits[i];
    }
    double deviation = sqrt(squares / 1024 - sum / 1024 * sum / 1024);
    CHECK(deviation > 0.05 && deviation < 5); /* neither dead nor blown up */
    engine_seq_destroy(en, &s);
    engine_close(&en);
    tokenizer_destroy(&t);
    gguf_close(&g);
    buf_finish(&ids);
    buf_finish(&text);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2 && mkdtemp(dir));
    deterministic(argv[1]);
    types(argv[1]);
    computes(argv[1]);
    char command[64];
    snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command) != 0;
}
