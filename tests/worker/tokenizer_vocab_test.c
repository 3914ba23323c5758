/* Hostile and damaged vocabularies: each rule of the format refuses, and says what is wrong. */
#include "shared/limits.h"
#include "tests/worker/vocab_file.h"

enum { N = 4 };

/* A small good file of every kind, of which one part can be left out and another put in. */
static void put_file(struct vocab_file *f, const char *model, const char *without)
{
    static const char *const texts[N] = {"<unk>", "<s>", "a", "ab"};
    static const float scores[N] = {0, 0, -1, -2};
    static const int32_t types[N] = {2, 3, 1, 1};
    static const char *const merges[] = {"a ab"};
    vocab_put_str(f, "tokenizer.ggml.model", model);
    vocab_put_str(f, "tokenizer.ggml.pre", "gpt-2");
    if (strcmp(without, "tokens") != 0) {
        vocab_put_strs(f, "tokenizer.ggml.tokens", texts, N);
    }
    if (strcmp(without, "scores") != 0) {
        vocab_put_array(f, "tokenizer.ggml.scores", GGUF_F32, scores, N, 4);
    }
    if (strcmp(without, "token_type") != 0) {
        vocab_put_array(f, "tokenizer.ggml.token_type", GGUF_I32, types, N, 4);
    }
    if (strcmp(without, "merges") != 0) {
        vocab_put_strs(f, "tokenizer.ggml.merges", merges, 1);
    }
}

static void refuse(struct vocab_file *f, int code, const char *words)
{
    struct tokenizer *t;
    struct err e = {0};
    char warn[160];
    int rc = vocab_try(f, &t, warn, &e);
    if (rc != code || !strstr(e.detail, words)) {
        TEST_FAIL("%d \"%s\", expected %d \"%s\"", rc, e.detail, code, words);
    }
}

static void good_files_pass(void)
{
    static const char *const models[] = {"llama", "gpt2", "gemma4", "bert", "t5"};
    for (size_t i = 0; i < COUNT_OF(models); i++) {
        struct vocab_file f = {0};
        put_file(&f, models[i], "");
        struct tokenizer *t = vocab_make(&f);
        CHECK_INT(tokenizer_size(t), N);
        tokenizer_destroy(&t);
    }
}

static void arrays(void)
{
    static const uint8_t bytes[N * 4] = {0};
    struct vocab_file f = {0};
    put_file(&f, "bert", "");
    buf_finish(&f.kv);
    f.n_kv = 0;
    vocab_put_str(&f, "tokenizer.ggml.model", "bert");
    refuse(&f, ERR_MODEL_TOKENIZER, "tokens is missing");
    vocab_put_str(&f, "tokenizer.ggml.model", "bert");
    vocab_put_strs(&f, "tokenizer.ggml.tokens", NULL, 0);
    refuse(&f, ERR_GGUF_KEY, "tokenizer.ggml.tokens");
    static const struct {
        const char *model, *key;
        enum gguf_kind kind;
        uint64_t n;
        size_t elem_bytes;
    } wrong[] = {
        {"llama", "tokens", GGUF_U8, N, 1},     {"llama", "scores", GGUF_U8, N, 1},
        {"t5", "scores", GGUF_F32, N - 1, 4},   {"gpt2", "token_type", GGUF_I32, N - 1, 4},
        {"gpt2", "token_type", GGUF_F32, N, 4}, {"gpt2", "merges", GGUF_U8, N, 1},
    };
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        char key[64];
        snprintf(key, sizeof(key), "tokenizer.ggml.%s", wrong[i].key);
        put_file(&f, wrong[i].model, wrong[i].key);
        vocab_put_array(&f, key, wrong[i].kind, bytes, wrong[i].n, wrong[i].elem_bytes);
        refuse(&f, ERR_GGUF_KEY, "tokenizer.ggml.");
    }
    put_file(&f, "llama", "scores");
    refuse(&f, ERR_MODEL_TOKENIZER, "scores is missing");
    put_file(&f, "gpt2", "merges");
    refuse(&f, ERR_MODEL_TOKENIZER, "merges is missing");

    static const float infinite[N] = {0, 0, INFINITY, 0}, nan[N] = {0, NAN, 0, 0};
    put_file(&f, "t5", "scores");
    vocab_put_array(&f, "tokenizer.ggml.scores", GGUF_F32, infinite, N, 4);
    refuse(&f, ERR_MODEL_TOKENIZER, "score of token 2 is not finite");
    put_file(&f, "llama", "scores");
    vocab_put_array(&f, "tokenizer.ggml.scores", GGUF_F32, nan, N, 4);
    refuse(&f, ERR_MODEL_TOKENIZER, "score of token 1 is not finite");

    static const int32_t types[N] = {1, 1, 7, 1}, negative[N] = {1, 1, 1, -1};
    put_file(&f, "gpt2", "token_type");
    vocab_put_array(&f, "tokenizer.ggml.token_type", GGUF_I32, types, N, 4);
    refuse(&f, ERR_MODEL_TOKENIZER, "token 2 is of unknown type 7");
    put_file(&f, "gpt2", "token_type");
    vocab_put_array(&f, "tokenizer.ggml.token_type", GGUF_I32, negative, N, 4);
    refuse(&f, ERR_MODEL_TOKENIZER, "token 3 is of unknown type -1");

    static const char *const bad[] = {"ab", "", " ", "a"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        put_file(&f, "gpt2", "merges");
        vocab_put_strs(&f, "tokenizer.ggml.merges", (const char *const[]){"a ab", bad[i]}, 2);
        refuse(&f, ERR_MODEL_TOKENIZER, "merge 1 is not two tokens");
    }
}

static void sizes(void)
{
    char *text = malloc(LIMIT_TOKEN_BYTES + 2);
    CHECK(text);
    memset(text, 'x', LIMIT_TOKEN_BYTES + 1);
    text[LIMIT_TOKEN_BYTES + 1] = 0;
    struct vocab_file f = {0};
    put_file(&f, "bert", "tokens");
    vocab_put_strs(&f, "tokenizer.ggml.tokens", (const char *const[]){"a", "b", text, "c"}, N);
    refuse(&f, ERR_GGUF_BAD, "token 2 has 65537 bytes");
    text[LIMIT_TOKEN_BYTES] = 0; /* just allowed */
    put_file(&f, "bert", "tokens");
    vocab_put_strs(&f, "tokenizer.ggml.tokens", (const char *const[]){"a", "b", text, "c"}, N);
    struct tokenizer *t = vocab_make(&f);
    tokenizer_destroy(&t);
    enum { MANY = LIMIT_VOCAB_BYTES / LIMIT_TOKEN_BYTES + 1 };
    const char *texts[MANY];
    for (size_t i = 0; i < MANY; i++) {
        texts[i] = text;
    }
    vocab_put_str(&f, "tokenizer.ggml.model", "bert");
    vocab_put_strs(&f, "tokenizer.ggml.tokens", texts, MANY);
    refuse(&f, ERR_MODEL_TOKENIZER, "bytes of text");
    free(text);
}

static void byte_tokens(void)
{
    static const char *const bad[] = {"<0xG0>", "<0x0>",  "<0x0a>", "<0x-1>", "<0x001>",
                                      "0x0A",   "<0X0A>", "<0x0A",  ""};
    static const int32_t types[N] = {2, 3, 1, 6};
    struct vocab_file f = {0};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        put_file(&f, "llama", "tokens");
        f.n_kv = 0;
        buf_finish(&f.kv);
        vocab_put_str(&f, "tokenizer.ggml.model", "llama");
        vocab_put_strs(&f, "tokenizer.ggml.tokens",
                       (const char *const[]){"<unk>", "<s>", "a", bad[i]}, N);
        vocab_put_array(&f, "tokenizer.ggml.token_type", GGUF_I32, types, N, 4);
        refuse(&f, ERR_MODEL_TOKENIZER, "token 3 is of type byte");
    }
}

static void special_ids(void)
{
    static const char *const keys[] = {
        "tokenizer.ggml.bos_token_id",     "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.eot_token_id",     "tokenizer.ggml.eom_token_id",
        "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.seperator_token_id",
        "tokenizer.ggml.cls_token_id"};
    struct vocab_file f = {0};
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        put_file(&f, "gpt2", "");
        vocab_put_u32(&f, keys[i], N);
        refuse(&f, ERR_MODEL_TOKENIZER, keys[i]);
        put_file(&f, "gpt2", "");
        vocab_put_str(&f, keys[i], "1");
        refuse(&f, ERR_GGUF_KEY, keys[i]);
        put_file(&f, "gpt2", ""); /* -1: none */
        vocab_put_u32(&f, keys[i], UINT32_MAX);
        struct tokenizer *t = vocab_make(&f);
        tokenizer_destroy(&t);
    }
    put_file(&f, "gpt2", "");
    vocab_put_u32(&f, "tokenizer.ggml.add_bos_token", 1);
    refuse(&f, ERR_GGUF_KEY, "add_bos_token");
}

static void character_maps(void)
{
    static const char *key = "tokenizer.ggml.precompiled_charsmap";
    struct vocab_file f = {0};
    put_file(&f, "t5", "");
    vocab_put_str(&f, key, "map");
    refuse(&f, ERR_MODEL_TOKENIZER, "not an array of bytes");
    static const struct {
        uint32_t size, n; /* as stated; bytes in all */
    } cut[] = {{4, 1}, {4, 4}, {4, 8}, {0, 9}, {3, 9}, {UINT32_MAX, 9}, {UINT32_MAX - 3, 9}};
    for (size_t i = 0; i < COUNT_OF(cut); i++) {
        uint8_t blob[16] = {0};
        memcpy(blob, &cut[i].size, 4);
        put_file(&f, "t5", "");
        vocab_put_array(&f, key, GGUF_U8, blob, cut[i].n, 1);
        refuse(&f, ERR_MODEL_TOKENIZER, "do not hold");
    }
    static const uint8_t open_end[9] = {4, 0, 0, 0, 0, 0, 0, 0, 'x'};
    put_file(&f, "t5", "");
    vocab_put_array(&f, key, GGUF_U8, open_end, 9, 1);
    refuse(&f, ERR_MODEL_TOKENIZER, "not terminated");
    /* An array that leads outside of itself, with and without a value. */
    uint64_t seed = 9;
    for (int k = 0; k < 2000; k++) {
        struct {
            uint32_t size, unit[16];
            char replacement[8];
        } blob = {.size = 64};
        for (size_t i = 0; i < COUNT_OF(blob.unit); i++) {
            uint64_t r = test_random(&seed);
            blob.unit[i] = r & 1 ? (uint32_t)(r >> 32) : (uint32_t)(r >> 32 & 0xFFF);
        }
        put_file(&f, "t5", "");
        vocab_put_array(&f, key, GGUF_I8, &blob, sizeof(blob), 1);
        struct tokenizer *t = vocab_make(&f);
        struct buf ids;
        buf_init(&ids, 0);
        CHECK_INT(tokenizer_encode(t,
                                   "\x01\x02\x03\x04\x05"
                                   "a",
                                   6, 0, &ids),
                  0);
        buf_finish(&ids);
        tokenizer_destroy(&t);
    }
}

int main(void)
{
    good_files_pass();
    arrays();
    sizes();
    byte_tokens();
    special_ids();
    character_maps();
    return 0;
}
