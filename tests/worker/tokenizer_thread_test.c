/* A tokenizer is read by several threads at once: each gets what one alone gets. Meant for TSan. */
#include "tests/worker/vocab_file.h"

#include <pthread.h>

enum { THREADS = 4, ROUNDS = 50 };

static struct tokenizer *bpe, *spm;

static void encode_all(struct buf *ret)
{
    static const char *const texts[] = {"Hello, world! 12345 caf\u00E9", "  a\n\n\tb  \xFF\xF0",
                                        "\u4E2D\u6587 <s>x", ""};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        size_t begin = ret->len;
        CHECK_INT(tokenizer_encode(bpe, texts[i], strlen(texts[i]), 3, ret), 0);
        CHECK_INT(tokenizer_decode(bpe, (const int32_t *)(void *)(ret->data + begin),
                                   (ret->len - begin) / 4, true, ret),
                  0);
        while (ret->len % 4) {
            buf_char(ret, 0);
        }
        CHECK_INT(tokenizer_encode(spm, texts[i], strlen(texts[i]), 3, ret), 0);
    }
}

static void *run(void *arg)
{
    const struct buf *want = arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct buf got;
        buf_init(&got, 0);
        encode_all(&got);
        CHECK_INT(got.len, want->len);
        CHECK(memcmp(got.data, want->data, got.len) == 0);
        buf_finish(&got);
    }
    return NULL;
}

int main(void)
{
    struct vocab_file f = {0};
    static char text[256][5];
    const char *texts[257];
    for (unsigned i = 0; i < 256; i++) {
        texts[i] = vocab_alphabet(i, text[i]);
    }
    texts[256] = "Hel";
    vocab_put_str(&f, "tokenizer.ggml.model", "gpt2");
    vocab_put_str(&f, "tokenizer.ggml.pre", "llama-bpe");
    vocab_put_strs(&f, "tokenizer.ggml.tokens", texts, 257);
    vocab_put_strs(&f, "tokenizer.ggml.merges", NULL, 0);
    bpe = vocab_make(&f);
    vocab_put_str(&f, "tokenizer.ggml.model", "llama");
    vocab_put_strs(&f, "tokenizer.ggml.tokens",
                   (const char *const[]){"<unk>", "<s>", "</s>", "l", "o", "lo"}, 6);
    vocab_put_array(&f, "tokenizer.ggml.scores", GGUF_F32, (const float[6]){0}, 6, 4);
    spm = vocab_make(&f);

    struct buf want;
    buf_init(&want, 0);
    encode_all(&want);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        CHECK_INT(pthread_create(&threads[i], NULL, run, &want), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    }
    buf_finish(&want);
    tokenizer_destroy(&bpe);
    tokenizer_destroy(&spm);
    return 0;
}
