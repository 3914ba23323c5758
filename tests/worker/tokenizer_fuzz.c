/* Any text through every kind of tokenizer, with vocabularies made here. Byte 0 chooses the kind
 * and the flags; the rest is text. What byte-level encoding makes must decode to the text. */
#include "tests/worker/vocab_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *const pres[] = {"default", "llama-bpe",    "qwen2",    "gpt-4o",
                                   "kimi-k2", "deepseek-llm", "tiny_aya", "jais-2"};
enum { N_BPE = COUNT_OF(pres), SPM = N_BPE, WORDPIECE, UNIGRAM, N_KINDS };

static struct tokenizer *make_bpe(const char *pre)
{
    struct vocab_file f = {0};
    static char text[256][5];
    const char *texts[262];
    int32_t types[262];
    for (unsigned i = 0; i < 256; i++) {
        texts[i] = vocab_alphabet(i, text[i]);
        types[i] = 1;
    }
    static const char *const more[] = {"ab", "abc", "\u0120a", "<s>", "<tool>", "</s>"};
    static const int32_t more_types[] = {1, 1, 1, 3, 4, 3};
    for (size_t i = 0; i < COUNT_OF(more); i++) {
        texts[256 + i] = more[i];
        types[256 + i] = more_types[i];
    }
    vocab_put_str(&f, "tokenizer.ggml.model", "gpt2");
    vocab_put_str(&f, "tokenizer.ggml.pre", pre);
    vocab_put_strs(&f, "tokenizer.ggml.tokens", texts, COUNT_OF(texts));
    vocab_put_array(&f, "tokenizer.ggml.token_type", GGUF_I32, types, COUNT_OF(types), 4);
    vocab_put_strs(&f, "tokenizer.ggml.merges", (const char *const[]){"a b", "ab c", "\u0120 a"},
                   3);
    vocab_put_u32(&f, "tokenizer.ggml.bos_token_id", 259);
    return vocab_make(&f);
}

static struct tokenizer *make_other(const char *model)
{
    static const char *const texts[] = {"<unk>", "<s>",     "</s>",   "\u2581", "a",     "b",
                                        "ab",    "\u2581a", "\u00E9", "<0xC3>", "<tool>"};
    static const float scores[] = {0, 0, 0, -1, -2, -3, -2.5f, -3, -4, 0, 0};
    static const int32_t types[] = {2, 3, 3, 1, 1, 1, 1, 1, 1, 6, 4};
    struct vocab_file f = {0};
    vocab_put_str(&f, "tokenizer.ggml.model", model);
    vocab_put_strs(&f, "tokenizer.ggml.tokens", texts, COUNT_OF(texts));
    vocab_put_array(&f, "tokenizer.ggml.scores", GGUF_F32, scores, COUNT_OF(texts), 4);
    vocab_put_array(&f, "tokenizer.ggml.token_type", GGUF_I32, types, COUNT_OF(texts), 4);
    vocab_put_u32(&f, "tokenizer.ggml.bos_token_id", 1);
    vocab_put_u32(&f, "tokenizer.ggml.eos_token_id", 2);
    vocab_put_u32(&f, "tokenizer.ggml.unknown_token_id", 0);
    return vocab_make(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct tokenizer *kinds[N_KINDS];
    if (!kinds[0]) {
        for (int i = 0; i < N_BPE; i++) {
            kinds[i] = make_bpe(pres[i]);
        }
        kinds[SPM] = make_other("llama");
        kinds[WORDPIECE] = make_other("bert");
        kinds[UNIGRAM] = make_other("t5");
    }
    if (n == 0) {
        return 0;
    }
    unsigned kind = data[0] / 4 % N_KINDS, flags = data[0] % 4;
    const char *text = (const char *)data + 1;
    struct buf ids, back;
    buf_init(&ids, 0);
    buf_init(&back, 0);
    CHECK_INT(tokenizer_encode(kinds[kind], text, n - 1, flags, &ids), 0);
    CHECK_INT(tokenizer_decode(kinds[kind], (const int32_t *)(void *)ids.data,
                               ids.len / sizeof(int32_t), flags & TOKENIZER_PARSE_SPECIAL, &back),
              0);
    if (kind < N_BPE && !(flags & TOKENIZER_ADD_SPECIAL)) {
        CHECK(back.len == n - 1 && (n == 1 || memcmp(back.data, text, n - 1) == 0));
    }
    buf_finish(&ids);
    buf_finish(&back);
    return 0;
}
