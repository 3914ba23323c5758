/* Every architecture and every RoPE, expert and attention variant, on tiny models made on the spot,
 * against logits that llama.cpp (August 2026, CPU, F32 KV) computed for the same files.
 *
 *   arch_test --write DIR   writes the files, for whoever wants to recompute the references */
#include "tests/worker/tiny_model.h"

#include "shared/num.h"
#include "tests/test.h"
#include "worker/engine.h"

enum { N_TOKENS = 40 };

struct reference {
    const char *name;
    float last[TINY_VOCAB]; /* logits after token 39 */
};

static const struct reference references[] = {
#include "tests/worker/arch_reference.inc"
};

static int32_t token_at(int64_t i)
{
    return (int32_t)((i * i * 7 + i * 3 + 11) % TINY_VOCAB);
}

/* Logits after the last token, computed in chunks. */
static void compute(const char *path, enum isa isa, int64_t chunk, float *ret)
{
    struct err e = {0};
    struct engine_options o = {.n_threads = 1,
                               .isa = isa,
                               .kv_type = TYPE_F32,
                               .n_ctx = TINY_CTX,
                               .n_seqs = 1,
                               .max_rows = N_TOKENS,
                               .max_logits = 1,
                               .kv_memory_share = 0.5};
    struct engine *en;
    struct engine_seq *s;
    if (engine_open(path, &o, &en, &e) < 0) {
        TEST_FAIL("%s", e.detail);
    }
    CHECK(engine_seq_create(en, &s) == 0);
    CHECK(engine_seq_reserve(en, s, N_TOKENS) == 0);
    for (int64_t first = 0; first < N_TOKENS; first += chunk) {
        struct engine_row rows[N_TOKENS];
        int64_t n = MIN(chunk, N_TOKENS - first);
        const float *logits = NULL;
        for (int64_t i = 0; i < n; i++) {
            rows[i] = (struct engine_row){s, token_at(first + i), first + i == N_TOKENS - 1, 0};
        }
        if (engine_step(en, rows, n, &logits, &e) < 0) {
            TEST_FAIL("%s", e.detail);
        }
        if (first + n == N_TOKENS) {
            memcpy(ret, logits, TINY_VOCAB * sizeof *ret);
        }
    }
    engine_seq_destroy(en, &s);
    engine_close(&en);
}

static double nmse(const float *a, const float *b)
{
    double error = 0, power = 0;
    for (int i = 0; i < TINY_VOCAB; i++) {
        error += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        power += (double)b[i] * (double)b[i];
    }
    return error / power;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write") == 0) {
        for (size_t i = 0; i < tiny_n_models; i++) {
            char path[512];
            snprintf(path, sizeof path, "%s/%s.gguf", argv[2], tiny_models[i].name);
            tiny_model_write(&tiny_models[i], path, TYPE_F32);
        }
        return 0;
    }
    CHECK_INT(COUNT_OF(references), tiny_n_models);
    int n_failed = 0;
    for (size_t i = 0; i < COUNT_OF(references); i++) {
        const struct tiny_model *m = tiny_model_find(references[i].name);
        CHECK(m);
        const char *path = tiny_model_file(m, TYPE_F32);
        for (int isa = ISA_SCALAR; isa <= (int)isa_detect(); isa++) {
            float once[TINY_VOCAB], chunked[TINY_VOCAB];
            compute(path, (enum isa)isa, N_TOKENS, once);
            compute(path, (enum isa)isa, 7, chunked);
            double d = nmse(once, references[i].last);
            bool ok = d <= (isa == ISA_SCALAR ? 1e-9 : 5e-7) &&
                      memcmp(once, chunked, sizeof once) == 0;
            printf("%-20s %-7s %.1e %s%s\n", m->name, isa_name((enum isa)isa), d,
                   ok ? "ok" : "FAILED",
                   memcmp(once, chunked, sizeof once) == 0 ? "" : " (chunks differ)");
            n_failed += !ok;
        }
    }
    CHECK_INT(n_failed, 0);
    return 0;
}
