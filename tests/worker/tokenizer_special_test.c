/* Special tokens: literal matching, what counts as an end, BOS and EOS, white space rules, and the
 * warnings and refusals of tokenizer_create that concern kinds. */
#include "tests/worker/vocab_file.h"

#include <errno.h>

#define DEEPSEEK_END "<\uFF5Cend\u2581of\u2581sentence\uFF5C>"

struct token {
    const char *text;
    int32_t type;
};

/* Letters a-z and the space, then the tokens given: ids from 27 on. */
enum { FIRST = 27 };

static void begin(struct vocab_file *f, const char *pre, const struct token *extra, size_t n)
{
    static const char letters[27][3] = {"a", "b", "c", "d", "e", "f", "g", "h", "i",
                                        "j", "k", "l", "m", "n", "o", "p", "q", "r",
                                        "s", "t", "u", "v", "w", "x", "y", "z", "\u0120"};
    const char *texts[256];
    int32_t types[256];
    for (size_t i = 0; i < FIRST; i++) {
        texts[i] = letters[i];
        types[i] = 1;
    }
    for (size_t i = 0; i < n; i++) {
        texts[FIRST + i] = extra[i].text;
        types[FIRST + i] = extra[i].type;
    }
    vocab_put_str(f, "tokenizer.ggml.model", "gpt2");
    if (pre) {
        vocab_put_str(f, "tokenizer.ggml.pre", pre);
    }
    vocab_put_strs(f, "tokenizer.ggml.tokens", texts, FIRST + n);
    vocab_put_array(f, "tokenizer.ggml.token_type", GGUF_I32, types, FIRST + n, 4);
    vocab_put_strs(f, "tokenizer.ggml.merges", NULL, 0);
}

static void literals_are_found_longest_first(void)
{
    static const struct token extra[] = {
        {"<x>", 4},   {"<x><y>", 4}, {"ab", 4},  {"bcdef", 4},
        {"<ctl>", 3}, {"  ", 4},     {"   ", 4}, {"", 4},
    };
    struct vocab_file f = {0};
    begin(&f, "gpt-2", extra, COUNT_OF(extra));
    struct tokenizer *t = vocab_make(&f);
    CHECK_INT(tokenizer_size(t), FIRST + (int)COUNT_OF(extra));
    CHECK_IDS(t, "<x><y>", 0, "28");
    CHECK_IDS(t, "<x><x>a", 0, "27 27 0");
    CHECK_IDS(t, "abcdef", 0, "29 2 3 4 5"); /* the leftmost, then the longest there */
    CHECK_IDS(t, "bcdefab", 0, "30 29");
    CHECK_IDS(t, "bcde", 0, "1 2 3 4");
    CHECK_IDS(t, "a     b", 0, "0 33 32 1");
    CHECK_IDS(t, "a<ctl>b", TOKENIZER_PARSE_SPECIAL, "0 31 1");
    CHECK_IDS(t, "<ct", TOKENIZER_PARSE_SPECIAL, "2 19"); /* no token for '<': nothing */
    CHECK_TEXT(t, false, "a<x>b", 0, 27, 31, 1);
    CHECK_TEXT(t, true, "a<x><ctl>b", 0, 27, 31, 1);
    CHECK(tokenizer_is_control(t, 31) && !tokenizer_is_control(t, 27));
    struct buf b;
    buf_init(&b, 0);
    CHECK_INT(tokenizer_piece(t, -1, false, false, &b), ERR_BAD_TOKEN);
    CHECK_INT(tokenizer_piece(t, FIRST + (int)COUNT_OF(extra), false, false, &b), ERR_BAD_TOKEN);
    CHECK_INT(tokenizer_decode(t, (const int32_t[]){0, 9999}, 2, false, &b), ERR_BAD_TOKEN);
    CHECK_INT(b.len, 0);
    buf_finish(&b);
    tokenizer_destroy(&t);
    CHECK(!t);
}

static void ends_are_known_by_key_and_by_text(void)
{
    static const struct token extra[] = {
        {"<|im_end|>", 1},    {"<|eot_id|>", 4}, {"<|endoftext|>", 3}, {DEEPSEEK_END, 3},
        {"<end_of_turn>", 4}, {"</s>", 1},       {"<|file_sep|>", 4},  {"<|end|>", 3},
        {"<|im_start|>", 3},  {"[EOT]", 3},      {"<|return|>", 3},    {"stop", 3},
    };
    static const bool is_end[] = {true, true, true,  true, true, false,
                                  true, true, false, true, true, true};
    struct vocab_file f = {0};
    begin(&f, "gpt-2", extra, COUNT_OF(extra));
    vocab_put_u32(&f, "tokenizer.ggml.eos_token_id", FIRST + 11);
    struct tokenizer *t = vocab_make(&f);
    for (size_t i = 0; i < COUNT_OF(extra); i++) {
        if (tokenizer_is_end(t, FIRST + (int32_t)i) != is_end[i]) {
            TEST_FAIL("%s", extra[i].text);
        }
        CHECK(!is_end[i] || tokenizer_is_control(t, FIRST + (int32_t)i));
    }
    CHECK(!tokenizer_is_end(t, -1) && !tokenizer_is_end(t, 1000) && !tokenizer_is_end(t, 0));
    CHECK_INT(tokenizer_eos(t), FIRST + 11);
    CHECK_INT(tokenizer_bos(t), -1);
    /* What ends an answer cannot be spelled, whatever type the file gives it. */
    CHECK_IDS(t, "a<|im_end|>", TOKENIZER_PARSE_SPECIAL, "0 27");
    CHECK_IDS(t, "a<|im_end|>", 0, "0 8 12 4 13 3");
    tokenizer_destroy(&t);
}

static void in_harmony_a_message_end_is_no_end(void)
{
    static const struct token extra[] = {{"<|end|>", 3}, {"<|return|>", 3}, {"<|call|>", 3}};
    struct vocab_file f = {0};
    begin(&f, "gpt-4o", extra, COUNT_OF(extra));
    struct tokenizer *t = vocab_make(&f);
    CHECK(!tokenizer_is_end(t, FIRST) && tokenizer_is_control(t, FIRST));
    CHECK(tokenizer_is_end(t, FIRST + 1) && tokenizer_is_end(t, FIRST + 2));
    tokenizer_destroy(&t);
}

static void bos_and_eos(void)
{
    static const struct token extra[] = {{"<s>", 3}, {"</s>", 3}};
    for (int add_eos = 0; add_eos < 2; add_eos++) {
        struct vocab_file f = {0};
        begin(&f, "llama-bpe", extra, COUNT_OF(extra)); /* a family that adds BOS */
        vocab_put_u32(&f, "tokenizer.ggml.bos_token_id", FIRST);
        vocab_put_u32(&f, "tokenizer.ggml.eos_token_id", FIRST + 1);
        vocab_put_bool(&f, "tokenizer.ggml.add_eos_token", add_eos);
        struct tokenizer *t = vocab_make(&f);
        CHECK_IDS(t, "ab", 0, "0 1");
        CHECK_IDS(t, "ab", TOKENIZER_ADD_SPECIAL, add_eos ? "27 0 1 28" : "27 0 1");
        CHECK_IDS(t, "<s>ab", 3, add_eos ? "27 0 1 28" : "27 0 1");
        CHECK_IDS(t, "<s>ab</s>", 3, "27 0 1 28");
        CHECK_IDS(t, "<s><s>ab", 3, add_eos ? "27 27 0 1 28" : "27 27 0 1");
        CHECK_IDS(t, "", TOKENIZER_ADD_SPECIAL, add_eos ? "27 28" : "27");
        tokenizer_destroy(&t);
    }
    struct vocab_file f = {0};
    begin(&f, "llama-bpe", extra, COUNT_OF(extra));
    vocab_put_u32(&f, "tokenizer.ggml.bos_token_id", FIRST);
    vocab_put_bool(&f, "tokenizer.ggml.add_bos_token", false);
    struct tokenizer *t = vocab_make(&f);
    CHECK_IDS(t, "ab", TOKENIZER_ADD_SPECIAL, "0 1");
    CHECK_INT(tokenizer_bos(t), FIRST);
    tokenizer_destroy(&t);
}

/* What was in the buffer stays, before the ids. */
static void ids_are_appended(void)
{
    static const struct token extra[] = {{"<s>", 3}};
    struct vocab_file f = {0};
    begin(&f, "llama-bpe", extra, COUNT_OF(extra));
    vocab_put_u32(&f, "tokenizer.ggml.bos_token_id", FIRST);
    struct tokenizer *t = vocab_make(&f);
    struct buf ids;
    buf_init(&ids, 0);
    static const int32_t want[] = {FIRST, FIRST, 0, 1};
    buf_add(&ids, want, 4);
    CHECK_INT(tokenizer_encode(t, "ab", 2, TOKENIZER_ADD_SPECIAL, &ids), 0);
    CHECK_INT(ids.len, sizeof(want));
    CHECK(memcmp(ids.data, want, sizeof(want)) == 0);
    ids.limit = sizeof(want) + 4; /* out of memory: as it was before */
    CHECK_INT(tokenizer_encode(t, "abcdef", 6, TOKENIZER_ADD_SPECIAL, &ids), -ENOMEM);
    CHECK_INT(ids.len, sizeof(want));
    buf_finish(&ids);
    tokenizer_destroy(&t);
}

static void white_space_around_literals_of_phi_3(void)
{
    static const struct token extra[] = {{"<|user|>", 3}, {"<s>", 3}};
    for (int is_phi = 0; is_phi < 2; is_phi++) {
        struct vocab_file f = {0};
        begin(&f, "gpt-2", extra, COUNT_OF(extra));
        vocab_put_str(&f, "general.name", is_phi ? "Phi-3 mini" : "Other");
        struct tokenizer *t = vocab_make(&f);
        CHECK_IDS(t, "<|user|> \n a", TOKENIZER_PARSE_SPECIAL, is_phi ? "27 0" : "27 26 26 0");
        CHECK_IDS(t, "<s> a", TOKENIZER_PARSE_SPECIAL, "28 26 0");
        tokenizer_destroy(&t);
    }
    static const struct token mask[] = {{"<mask>", 3}};
    struct vocab_file f = {0};
    begin(&f, "jina-v2-code", mask, COUNT_OF(mask));
    struct tokenizer *t = vocab_make(&f);
    CHECK_IDS(t, "a  <mask> a", TOKENIZER_PARSE_SPECIAL, "0 27 26 0");
    tokenizer_destroy(&t);
}

static void unknown_names_are_told(void)
{
    static const char *const names[] = {"no-such-thing", NULL};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct vocab_file f = {0};
        struct tokenizer *t;
        struct err e;
        char warn[160];
        begin(&f, names[i], NULL, 0);
        CHECK_INT(vocab_try(&f, &t, warn, &e), 0);
        CHECK(strstr(warn, names[i] ? "'no-such-thing'" : "no pre-tokenizer"));
        CHECK_IDS(t, "ab", 0, "0 1");
        tokenizer_destroy(&t);
    }
    static const struct {
        const char *model;
        int code;
    } kinds[] = {{"rwkv", ERR_MODEL_TOKENIZER}, {"plamo2", ERR_MODEL_TOKENIZER},
                 {"gpt", ERR_MODEL_TOKENIZER},  {"no_vocab", ERR_NO_TOKENIZER},
                 {"none", ERR_NO_TOKENIZER},    {"", ERR_NO_TOKENIZER}};
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        struct vocab_file f = {0};
        struct tokenizer *t;
        struct err e;
        char warn[160], quoted[32];
        vocab_put_str(&f, "tokenizer.ggml.model", kinds[i].model);
        CHECK_INT(vocab_try(&f, &t, warn, &e), kinds[i].code);
        snprintf(quoted, sizeof(quoted), "'%s'", kinds[i].model);
        CHECK(kinds[i].code == ERR_NO_TOKENIZER || strstr(e.detail, quoted));
    }
}

int main(void)
{
    literals_are_found_longest_first();
    ends_are_known_by_key_and_by_text();
    in_harmony_a_message_end_is_no_end();
    bos_and_eos();
    ids_are_appended();
    white_space_around_literals_of_phi_3();
    unknown_names_are_told();
    return 0;
}
