/* Any file as a vocabulary: it is refused, or it encodes and every token decodes. */
#include "tests/worker/vocab_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char text[] = " Hello  <s>\n\xC3\xA9\xE4\xB8\xAD\xFF'll 123 abab\u2581";
    struct gguf g;
    struct err e;
    struct tokenizer *t;
    char warn[160];
    if (gguf_parse(data, n, &g, &e) < 0) {
        return 0;
    }
    int rc = tokenizer_create(&g, &t, warn, &e);
    gguf_close(&g);
    if (rc < 0) {
        return 0;
    }
    struct buf ids, back;
    buf_init(&ids, 0);
    buf_init(&back, 0);
    for (unsigned flags = 0; flags < 4; flags++) {
        CHECK_INT(tokenizer_encode(t, text, strlen(text), flags, &ids), 0);
    }
    CHECK_INT(tokenizer_decode(t, (const int32_t *)(void *)ids.data, ids.len / sizeof(int32_t),
                               true, &back),
              0);
    for (int32_t id = 0; id < tokenizer_size(t); id++) {
        CHECK_INT(tokenizer_piece(t, id, id % 2, true, &back), 0);
    }
    buf_finish(&ids);
    buf_finish(&back);
    tokenizer_destroy(&t);
    return 0;
}
