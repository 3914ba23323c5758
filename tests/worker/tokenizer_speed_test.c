/* Time of the published vocabularies: loading below 150 ms, 100 KB of one thing below 50 ms, and
 * how fast ordinary text goes. Processor time of this thread, so that neighbours do not matter. */
#include "tests/test.h"
#include "worker/tokenizer.h"

#include <time.h>

enum { HOSTILE_BYTES = 100 * 1000 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
static const double slower = 20;
#else
static const double slower = 1;
#endif

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static double encode_ms(const struct tokenizer *t, const char *text, size_t n)
{
    struct buf ids;
    buf_init(&ids, 0);
    double began = cpu_ms();
    CHECK_INT(tokenizer_encode(t, text, n, TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, &ids),
              0);
    double took = cpu_ms() - began;
    buf_finish(&ids);
    return took;
}

static double worst_hostile_ms(const struct tokenizer *t)
{
    static const char *const units[] = {
        "a",    " ",      "\U0001F600", "1",  "\n",     "\u4E2D", "'",  "aA", "a ", "\u3000",
        "\xFF", "\u0301", "A",          ". ", "\u2581", "<",      "<|", "ab", "\t", "\xE4\xB8",
    };
    double worst = 0;
    char *text = malloc(HOSTILE_BYTES);
    CHECK(text);
    for (size_t u = 0; u < COUNT_OF(units); u++) {
        for (size_t i = 0; i < HOSTILE_BYTES; i++) {
            text[i] = units[u][i % strlen(units[u])];
        }
        for (int k = 0; k < 2; k++) {
            double took = encode_ms(t, text, HOSTILE_BYTES);
            if (took > 50 * slower) {
                TEST_FAIL("100 KB of \"%s\" take %.1f ms", units[u], took);
            }
            worst = MAX(worst, took);
            text[HOSTILE_BYTES - 1] = 'x';
        }
    }
    free(text);
    return worst;
}

int main(void)
{
    static const char *const names[] = {"llama-bpe", "qwen2", "gpt-2",     "deepseek-llm",
                                        "mpt",       "phi-3", "llama-spm", "bert-bge"};
    char path[4096];
    snprintf(path, sizeof(path), "%s/text/wiki.test.raw", test_data_dir());
    FILE *f = fopen(path, "rb");
    CHECK(f);
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f);
    rewind(f);
    char *text = malloc(n);
    CHECK(text && fread(text, 1, n, f) == n);
    fclose(f);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct gguf g;
        struct err e;
        struct tokenizer *t;
        char warn[160];
        snprintf(path, sizeof(path), "%s/tokenizers/%s.gguf", test_data_dir(), names[i]);
        CHECK_INT(gguf_open(path, &g, &e), 0);
        double load = 1e9;
        t = NULL;
        for (int k = 0; k < 6;
             k++) { /* the best of them: other work on the machine only ever adds */
            tokenizer_destroy(&t);
            double began = cpu_ms();
            CHECK_INT(tokenizer_create(&g, &t, warn, &e), 0);
            load = MIN(load, cpu_ms() - began);
        }
        gguf_close(&g);
        double ms = MIN(encode_ms(t, text, n), encode_ms(t, text, n));
        printf("%-14s load %5.1f ms  text %5.1f MB/s  worst 100 KB %4.1f ms\n", names[i], load,
               (double)n / ms * 1e-3, worst_hostile_ms(t));
        if (load > 150 * slower) {
            TEST_FAIL("loading takes %.0f ms", load);
        }
        tokenizer_destroy(&t);
    }
    free(text);
    return 0;
}
