/* SentencePiece's byte-pair kind: against joining by the definition, white space, byte fallback. */
#include "tests/worker/vocab_file.h"

#define SP "\u2581"

struct piece {
    const char *text;
    float score;
    int32_t type;
};

static struct tokenizer *make(const struct piece *p, size_t n, bool prefix, bool merge_spaces)
{
    struct vocab_file f = {0};
    const char *texts[512];
    float scores[512];
    int32_t types[512];
    for (size_t i = 0; i < n; i++) {
        texts[i] = p[i].text;
        scores[i] = p[i].score;
        types[i] = p[i].type;
    }
    vocab_put_str(&f, "tokenizer.ggml.model", "llama");
    vocab_put_strs(&f, "tokenizer.ggml.tokens", texts, n);
    vocab_put_array(&f, "tokenizer.ggml.scores", GGUF_F32, scores, n, 4);
    vocab_put_array(&f, "tokenizer.ggml.token_type", GGUF_I32, types, n, 4);
    vocab_put_bool(&f, "tokenizer.ggml.add_space_prefix", prefix);
    vocab_put_bool(&f, "tokenizer.ggml.remove_extra_whitespaces", merge_spaces);
    return vocab_make(&f);
}

static const struct piece pieces[] = {
    {"<unk>", 0, 2},  {"<s>", 0, 3},    {"</s>", 0, 3},  {SP, -1, 1},      {"a", -2, 1},
    {"b", -3, 1},     {"ab", -9, 1},    {SP "a", -8, 1}, {SP "ab", -4, 1}, {"<", -20, 1},
    {"s", -20, 1},    {">", -20, 1},    {"<s", -5, 1},   {"<0xC3>", 0, 6}, {"<0xA9>", 0, 6},
    {"<0x21>", 0, 6}, {"<tool>", 0, 4}, {SP SP, -6, 1},  {"\n", -7, 1},
};

static void white_space_and_bytes(void)
{
    struct tokenizer *t = make(pieces, COUNT_OF(pieces), true, false);
    CHECK_IDS(t, "", 0, "");
    CHECK_IDS(t, "", TOKENIZER_ADD_SPECIAL, "1");
    CHECK_IDS(t, "ab", 0, "8");
    CHECK_IDS(t, "ab", TOKENIZER_ADD_SPECIAL, "1 8");
    CHECK_IDS(t, " ab", 0, "17 6");
    CHECK_IDS(t, "a  b", 0, "7 17 5");
    CHECK_IDS(t, "\u00E9!", 0, "3 13 14 15"); /* bytes of the vocabulary */
    CHECK_IDS(t, "\xC3", 0, "3 13");          /* half a character is a byte too */
    CHECK_IDS(t, "?\u4E2D", 0, "3 0 0");      /* no bytes: the unknown token, each */
    CHECK_TEXT(t, false, "ab", 1, 8);
    CHECK_TEXT(t, true, "<s>ab", 1, 8);
    CHECK_TEXT(t, false, " ab", 17, 6);
    CHECK_TEXT(t, false, "\u00E9!", 3, 13, 14, 15);
    CHECK_TEXT(t, false, "a a", 7, 7);
    tokenizer_destroy(&t);
    t = make(pieces, COUNT_OF(pieces), false, false);
    CHECK_IDS(t, "ab ab", 0, "6 8");
    CHECK_TEXT(t, false, "ab ab", 6, 8);
    CHECK_TEXT(t, false, " ab", 8);
    tokenizer_destroy(&t);
    t = make(pieces, COUNT_OF(pieces), true, true);
    CHECK_IDS(t, "  ab   a  ", 0, "8 7");
    CHECK_IDS(t, "   ", 0, "");
    tokenizer_destroy(&t);
}

static void text_never_becomes_a_control_token(void)
{
    struct tokenizer *t = make(pieces, COUNT_OF(pieces), true, false);
    CHECK_IDS(t, "<s>", 0, "3 12 11");
    CHECK_IDS(t, "<s>", TOKENIZER_PARSE_SPECIAL, "1");
    CHECK_IDS(t, "<s>ab", 3, "1 8");       /* not a second BOS */
    CHECK_IDS(t, "ab<s>ab", 3, "1 8 1 8"); /* what follows a special token begins anew */
    CHECK_TEXT(t, true, "<s>ab<s>ab", 1, 8, 1, 8);
    CHECK_IDS(t, "<unk>a", TOKENIZER_PARSE_SPECIAL, "0 7");
    CHECK_IDS(t, "a<tool>b", 0, "7 16 3 5"); /* user-defined: always */
    CHECK_TEXT(t, false, "a<tool>b", 7, 16, 3, 5);
    CHECK_IDS(t, "<0x21>", 0, "3 9 0 0 0 0 11"); /* nor a byte token */
    tokenizer_destroy(&t);
}

/* The definition: of all neighbours that make a token join those of the best score, the leftmost
 * first; in the whole text at once. */
static size_t join_naively(const struct piece *p, size_t n_pieces, const char *text, int32_t *ids)
{
    static char part[400][64];
    char best_both[128] = "";
    size_t n = 0;
    for (const char *c = text; *c;) {
        size_t len = (unsigned char)*c < 0x80 ? 1 : 3;
        memcpy(part[n], c, len);
        part[n++][len] = 0;
        c += len;
    }
    for (;;) {
        float best = -1e9f;
        size_t at = n;
        for (size_t i = 0; i + 1 < n; i++) {
            char both[128];
            snprintf(both, sizeof(both), "%.63s%.63s", part[i], part[i + 1]);
            for (size_t k = 0; k < n_pieces; k++) {
                if (strcmp(p[k].text, both) == 0 && p[k].score > best) {
                    best = p[k].score;
                    at = i;
                    memcpy(best_both, both, sizeof(both));
                }
            }
        }
        if (at == n) {
            break;
        }
        memcpy(part[at], best_both, sizeof(part[at])); /* a token: below 64 bytes */
        memmove(part[at + 1], part[at + 2], (n - at - 2) * sizeof(part[0]));
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < n_pieces; k++) {
            if (strcmp(p[k].text, part[i]) == 0) {
                ids[i] = (int32_t)k;
            }
        }
    }
    return n;
}

static void joins_equal_the_definition(void)
{
    static const char *const letters[] = {"a", "b", "c", SP, "\u4E2D"};
    uint64_t seed = 3;
    for (int round = 0; round < 8; round++) {
        static char texts[300][64];
        struct piece p[300];
        size_t n = 0;
        for (size_t i = 0; i < COUNT_OF(letters); i++) {
            p[n++] = (struct piece){letters[i], -50, 1};
        }
        while (n < 200) {
            char *text = texts[n];
            snprintf(text, 64, "%s%s", p[test_random(&seed) % n].text,
                     p[test_random(&seed) % n].text);
            bool is_new = strlen(text) < 30;
            /* In odd rounds no token has a space inside, so words are done one by one. */
            const char *space = strstr(text + 1, SP);
            is_new &= round % 2 == 0 || !space || strspn(text, SP) >= (size_t)(space - text) + 3;
            for (size_t k = 0; k < n; k++) {
                is_new &= strcmp(p[k].text, text) != 0;
            }
            if (is_new) { /* few scores, so that many are equal */
                p[n++] = (struct piece){text, -(float)(test_random(&seed) % 40), 1};
            }
        }
        struct tokenizer *t = make(p, n, false, false);
        for (int k = 0; k < 60; k++) {
            char text[400] = "", spaced[400] = "";
            int32_t want[400];
            for (size_t i = test_random(&seed) % 40; i > 0; i--) {
                const char *c = letters[test_random(&seed) % COUNT_OF(letters)];
                strcat(text, c);
                strcat(spaced, strcmp(c, SP) == 0 ? " " : c);
            }
            struct buf ids;
            buf_init(&ids, 0);
            CHECK_INT(tokenizer_encode(t, spaced, strlen(spaced), 0, &ids), 0);
            size_t n_want = join_naively(p, n, text, want);
            CHECK_INT(ids.len / 4, n_want);
            CHECK(n_want == 0 || memcmp(ids.data, want, ids.len) == 0);
            buf_finish(&ids);
        }
        tokenizer_destroy(&t);
    }
}

/* Files from before there were types: bytes and special ids are known all the same. */
static void files_without_types(void)
{
    struct vocab_file f = {0};
    vocab_put_str(&f, "tokenizer.ggml.model", "llama");
    vocab_put_strs(&f, "tokenizer.ggml.tokens",
                   (const char *const[]){"<unk>", "<s>", "</s>", "<0x21>", SP, "<", "s", ">", "<s"},
                   9);
    vocab_put_array(&f, "tokenizer.ggml.scores", GGUF_F32, (const float[9]){0}, 9, 4);
    struct tokenizer *t = vocab_make(&f);
    CHECK_INT(tokenizer_bos(t), 1);
    CHECK_INT(tokenizer_eos(t), 2);
    CHECK(tokenizer_is_end(t, 2) && tokenizer_is_control(t, 2) && !tokenizer_is_end(t, 1));
    CHECK_IDS(t, "!", 0, "4 3");
    CHECK_IDS(t, "<s>", 0, "4 8 7");
    CHECK_TEXT(t, false, "!", 1, 4, 3, 2);
    tokenizer_destroy(&t);
}

int main(void)
{
    white_space_and_bytes();
    text_never_becomes_a_control_token();
    joins_equal_the_definition();
    files_without_types();
    return 0;
}
