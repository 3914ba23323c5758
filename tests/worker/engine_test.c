/* The engine's interface: what it says about a model, what sequences take and give back, which
 * errors come, and that a step allocates nothing. */
#include "tests/worker/tiny_model.h"

#include "shared/ggufw.h"
#include "tests/test.h"
#include "worker/engine.h"

#include <errno.h>

/* --- counting allocations ----------------------------------------------------------------------*/

static bool is_counting;
static int n_allocations;

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
void *malloc(size_t n)
{
    n_allocations += is_counting;
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size)
{
    n_allocations += is_counting;
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n)
{
    n_allocations += is_counting;
    return __libc_realloc(p, n);
}
#endif

/* --- helpers -----------------------------------------------------------------------------------*/

enum { N_CTX = 64, N_SEQS = 3 };

static struct engine_options options(void)
{
    return (struct engine_options){.n_threads = 2,
                                   .isa = isa_detect(),
                                   .kv_type = TYPE_F16,
                                   .n_ctx = N_CTX,
                                   .n_seqs = N_SEQS,
                                   .max_rows = 32,
                                   .max_logits = 8,
                                   .kv_memory_share = 0.5};
}

static struct engine *open_tiny(const char *name)
{
    struct engine_options o = options();
    struct engine *en;
    struct err e = {0};
    int err = engine_open(tiny_model_file(tiny_model_find(name), TYPE_Q8_0), &o, &en, &e);
    if (err != 0) {
        TEST_FAIL("%s", e.detail);
    }
    return en;
}

/* --- tests -------------------------------------------------------------------------------------*/

struct seen {
    uint64_t done, total;
    int n;
};

static void progress(void *arg, uint64_t done, uint64_t total)
{
    struct seen *s = arg;
    CHECK(done >= s->done && done <= total);
    *s = (struct seen){done, total, s->n + 1};
}

static void check_info(void)
{
    struct engine_options o = options();
    struct engine_info estimate;
    struct engine *en;
    struct err e = {0};
    struct seen seen = {0};
    const char *path = tiny_model_file(tiny_model_find("llama"), TYPE_Q8_0);
    o.progress = progress;
    o.progress_arg = &seen;
    CHECK(engine_open(path, &o, &en, &e) == 0);
    const struct engine_info *i = engine_info(en);
    CHECK(seen.n > 3 && seen.done == seen.total);
    CHECK_STR(i->arch, "llama");
    CHECK_STR(i->name, "llama");
    CHECK_STR(i->quant, "Q8_0");
    CHECK_STR(i->warn, "");
    CHECK_INT(i->n_vocab, TINY_VOCAB);
    CHECK_INT(i->n_ctx, N_CTX);
    CHECK_INT(i->n_ctx_train, TINY_CTX);
    CHECK_INT(i->n_embd, TINY_EMBD);
    CHECK_INT(i->n_layer, 2);
    CHECK_INT(i->n_blocks, N_SEQS * N_CTX / ENGINE_BLOCK_TOKENS);
    CHECK_INT(i->kv_bytes, i->n_blocks * ENGINE_BLOCK_TOKENS * 2 * (2 * 8 * 2) * 2);
    CHECK(strstr(i->device, isa_name(isa_detect())) && strstr(i->device, "2 threads"));
    CHECK(engine_estimate(engine_gguf(en), &o, &estimate, &e) == 0);
    CHECK_INT(estimate.kv_bytes, i->kv_bytes);
    CHECK_INT(estimate.n_params, i->n_params);
    CHECK(memcmp(estimate.fingerprint, i->fingerprint, sizeof i->fingerprint) == 0);
    engine_close(&en);
    engine_close(&en);
}

static void check_sequences(void)
{
    struct engine *en = open_tiny("llama");
    struct engine_seq *s[N_SEQS + 1];
    int64_t all = engine_free_blocks(en);
    for (int i = 0; i < N_SEQS; i++) {
        CHECK(engine_seq_create(en, &s[i]) == 0);
    }
    CHECK_INT(engine_seq_create(en, &s[N_SEQS]), -ENOSPC);
    CHECK_INT(engine_seq_fork(en, s[0], &s[N_SEQS]), -ENOSPC);
    CHECK_INT(engine_seq_reserve(en, s[0], N_CTX + 1), -ENOSPC);
    CHECK_INT(engine_free_blocks(en), all);
    CHECK(engine_seq_reserve(en, s[0], 17) == 0);
    CHECK_INT(engine_free_blocks(en), all - 2);
    CHECK(engine_seq_reserve(en, s[0], 17) == 0); /* not in addition */
    CHECK_INT(engine_free_blocks(en), all - 2);
    CHECK_INT(engine_seq_length(s[0]), 0);
    for (int i = 0; i < N_SEQS; i++) {
        engine_seq_destroy(en, &s[i]);
        CHECK(s[i] == NULL);
        engine_seq_destroy(en, &s[i]);
    }
    CHECK_INT(engine_free_blocks(en), all);
    engine_close(&en);
}

static void check_steps(const char *model)
{
    struct engine *en = open_tiny(model);
    struct engine_seq *a, *b;
    struct engine_row rows[32];
    const float *logits[8];
    struct err e = {0};
    CHECK(engine_seq_create(en, &a) == 0 && engine_seq_create(en, &b) == 0);
    CHECK(engine_seq_reserve(en, a, 40) == 0 && engine_seq_reserve(en, b, 40) == 0);
    rows[0] = (struct engine_row){a, TINY_VOCAB, true, 0};
    CHECK_INT(engine_step(en, rows, 1, logits, &e), ERR_BAD_TOKEN);
    rows[0].token = -1;
    CHECK_INT(engine_step(en, rows, 1, logits, &e), ERR_BAD_TOKEN);
    CHECK_INT(engine_seq_length(a), 0);

    is_counting = true;
    for (int i = 0; i < 20; i++) {
        rows[i] = (struct engine_row){i < 12 ? a : b, i, i == 3 || i == 19, 0};
    }
    CHECK(engine_step(en, rows, 20, logits, &e) == 0); /* two sequences, two rows with logits */
    float third = logits[0][0];
    CHECK_INT(logits[1] - logits[0], TINY_VOCAB);
    for (int i = 0; i < 20; i++) {
        rows[0] = (struct engine_row){a, i, true, 0};
        rows[1] = (struct engine_row){b, i, i % 2 == 0, 0};
        CHECK(engine_step(en, rows, 2, logits, &e) == 0);
    }
    rows[0].want_logits = false;
    CHECK(engine_step(en, rows, 1, logits, &e) == 0); /* nobody wants logits */
    is_counting = false;
    CHECK_INT(n_allocations, 0);
    CHECK_INT(engine_seq_length(a), 33);
    CHECK_INT(engine_seq_length(b), 28);

    engine_seq_destroy(en, &a); /* a fresh sequence knows nothing of an old one */
    CHECK(engine_seq_create(en, &a) == 0 && engine_seq_reserve(en, a, 4) == 0);
    for (int i = 0; i < 4; i++) {
        rows[i] = (struct engine_row){a, i, i == 3, 0};
    }
    CHECK(engine_step(en, rows, 4, logits, &e) == 0);
    CHECK(logits[0][0] == third);
    engine_close(&en);
}

/* A model whose weights hold a NaN says so, and the next sequence in the same memory is none the
 * worse. */
static void check_nan(void)
{
    struct engine_options o = options();
    struct engine *en;
    struct engine_seq *s;
    struct err e = {0};
    const char *path = tiny_model_file(tiny_model_find("llama"), TYPE_F32);
    struct gguf g;
    CHECK(gguf_open(path, &g, &e) == 0);
    const struct gguf_tensor *t = gguf_find_tensor(&g, "token_embd.weight");
    CHECK(t);
    off_t at = (off_t)((const uint8_t *)t->data - g.parts[0].map) + 5 * TINY_EMBD * 4;
    gguf_close(&g);
    FILE *f = fopen(path, "r+b");
    float nan = NAN;
    CHECK(f && fseeko(f, at, SEEK_SET) == 0 && fwrite(&nan, 4, 1, f) == 1 && fclose(f) == 0);
    CHECK(engine_open(path, &o, &en, &e) == 0);
    CHECK(engine_seq_create(en, &s) == 0 && engine_seq_reserve(en, s, 4) == 0);
    struct engine_row rows[] = {{s, 4, true, 0}, {s, 5, true, 0}};
    const float *logits[2];
    CHECK_INT(engine_step(en, rows, 2, logits, &e), ERR_NUMERIC);
    CHECK(strstr(e.detail, "row "));
    engine_seq_destroy(en, &s);
    CHECK(engine_seq_create(en, &s) == 0 && engine_seq_reserve(en, s, 4) == 0);
    rows[0] = (struct engine_row){s, 4, true, 0};
    CHECK(engine_step(en, rows, 1, logits, &e) == 0);
    engine_close(&en);
}

/* A tensor that the architecture does not know is named, and the rest works. */
static void check_warning(void)
{
    struct engine_options o = options();
    struct engine *en;
    struct err e = {0};
    struct tiny_model more = *tiny_model_find("llama");
    char tensors[1024];
    snprintf(tensors, sizeof tensors, "%s attn_mystery.weight:32", more.tensors);
    more.tensors = tensors;
    CHECK(engine_open(tiny_model_file(&more, TYPE_F32), &o, &en, &e) == 0);
    CHECK(strstr(engine_info(en)->warn, "2 tensors") &&
          strstr(engine_info(en)->warn, "blk.0.attn_mystery.weight"));
    engine_close(&en);
}

static void check_errors(void)
{
    struct engine_options o = options();
    struct engine *en = NULL;
    struct err e = {0};
    CHECK_INT(engine_open("/nonexistent.gguf", &o, &en, &e), ERR_GGUF_OPEN);
    struct tiny_model unknown = *tiny_model_find("llama");
    unknown.arch = "babbage9";
    CHECK_INT(engine_open(tiny_model_file(&unknown, TYPE_F32), &o, &en, &e), ERR_MODEL_ARCH);
    CHECK(strstr(e.detail, "babbage9"));
    o.n_ctx = 1 << 30;
    CHECK_INT(engine_open(tiny_model_file(tiny_model_find("llama"), TYPE_F32), &o, &en, &e),
              ERR_NO_MEMORY);
    CHECK(strstr(e.detail, "KV cache"));
    o.n_ctx = 0; /* the model's */
    CHECK(engine_open(tiny_model_file(tiny_model_find("llama"), TYPE_F32), &o, &en, &e) == 0);
    CHECK_INT(engine_info(en)->n_ctx, TINY_CTX);
    engine_close(&en);
}

int main(void)
{
    check_info();
    check_sequences();
    check_steps("llama");
    check_steps("qwen35");
    check_steps("granitemoe");
    check_steps("deepseek2");
    check_nan();
    check_warning();
    check_errors();
    return 0;
}
