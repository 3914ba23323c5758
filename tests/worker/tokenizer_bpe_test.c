/* Byte-pair encoding on vocabularies made here: against a merge loop written from the definition,
 * on random bytes, and the rules of the byte alphabet. */
#include "tests/worker/vocab_file.h"

enum { MAX_TOKENS = 1024, MAX_MERGES = 600 };

/* 256 byte tokens and merges of random neighbours; texts in plain bytes for the oracle. */
struct vocab {
    char plain[MAX_TOKENS][64];
    size_t plain_len[MAX_TOKENS];
    int n;
    int left[MAX_MERGES], right[MAX_MERGES], whole[MAX_MERGES];
    int n_merges;
};

static void visible(const char *plain, size_t n, char *out)
{
    char c[5];
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        strcat(out, vocab_alphabet((unsigned char)plain[i], c));
    }
}

static int find_plain(const struct vocab *v, const char *s, size_t n)
{
    for (int i = 0; i < v->n; i++) {
        if (v->plain_len[i] == n && memcmp(v->plain[i], s, n) == 0) {
            return i;
        }
    }
    return -1;
}

static void grow_vocab(struct vocab *v, const char *letters, uint64_t *seed)
{
    v->n = 256;
    for (int i = 0; i < 256; i++) {
        v->plain[i][0] = (char)i;
        v->plain_len[i] = 1;
    }
    size_t n_letters = strlen(letters);
    while (v->n_merges < MAX_MERGES && v->n < MAX_TOKENS) {
        int part[2];
        for (int k = 0; k < 2; k++) {
            int made = v->n - 256;
            bool is_letter = made == 0 || test_random(seed) % 3 == 0;
            part[k] = is_letter ? (unsigned char)letters[test_random(seed) % n_letters]
                                : 256 + (int)(test_random(seed) % (uint64_t)made);
        }
        size_t n = v->plain_len[part[0]] + v->plain_len[part[1]];
        char text[128];
        memcpy(text, v->plain[part[0]], v->plain_len[part[0]]);
        memcpy(text + v->plain_len[part[0]], v->plain[part[1]], v->plain_len[part[1]]);
        if (n > 24) {
            continue;
        }
        bool is_known = false;
        for (int i = 0; i < v->n_merges; i++) {
            is_known |= v->left[i] == part[0] && v->right[i] == part[1];
        }
        if (is_known) {
            continue;
        }
        int whole = find_plain(v, text, n); /* two merges may make one token */
        if (whole < 0) {
            whole = v->n++;
            memcpy(v->plain[whole], text, n);
            v->plain_len[whole] = n;
        }
        v->left[v->n_merges] = part[0];
        v->right[v->n_merges] = part[1];
        v->whole[v->n_merges++] = whole;
    }
}

static struct tokenizer *make(const struct vocab *v, const char *pre, bool with_types)
{
    struct vocab_file f = {0};
    static char text[MAX_TOKENS][130], merge[MAX_MERGES][280];
    const char *texts[MAX_TOKENS], *merges[MAX_MERGES];
    for (int i = 0; i < v->n; i++) {
        visible(v->plain[i], v->plain_len[i], text[i]);
        texts[i] = text[i];
    }
    for (int i = 0; i < v->n_merges; i++) {
        snprintf(merge[i], sizeof(merge[i]), "%s %s", text[v->left[i]], text[v->right[i]]);
        merges[i] = merge[i];
    }
    vocab_put_str(&f, "tokenizer.ggml.model", "gpt2");
    vocab_put_str(&f, "tokenizer.ggml.pre", pre);
    vocab_put_strs(&f, "tokenizer.ggml.tokens", texts, (uint64_t)v->n);
    vocab_put_strs(&f, "tokenizer.ggml.merges", merges, (uint64_t)v->n_merges);
    if (with_types) {
        int32_t types[MAX_TOKENS];
        for (int i = 0; i < v->n; i++) {
            types[i] = 1;
        }
        vocab_put_array(&f, "tokenizer.ggml.token_type", GGUF_I32, types, (uint64_t)v->n, 4);
    }
    return vocab_make(&f);
}

/* The definition: apply the earliest merge of the list that is possible anywhere, leftmost first.
 */
static size_t merge_naively(const struct vocab *v, const char *s, size_t n, int32_t *ids)
{
    for (size_t i = 0; i < n; i++) {
        ids[i] = (unsigned char)s[i];
    }
    for (int m = 0; m < v->n_merges;) {
        bool done = false;
        for (size_t i = 0; i + 1 < n && !done; i++) {
            if (ids[i] == v->left[m] && ids[i + 1] == v->right[m]) {
                ids[i] = v->whole[m];
                memmove(ids + i + 1, ids + i + 2, (n - i - 2) * sizeof(*ids));
                n--;
                done = true;
            }
        }
        m = done ? 0 : m + 1; /* a merge can make an earlier one possible */
    }
    return n;
}

static void merges_equal_the_definition(void)
{
    uint64_t seed = 1;
    for (int round = 0; round < 6; round++) {
        struct vocab *v = calloc(1, sizeof(*v));
        CHECK(v);
        const char *letters = round % 2 ? "ab" : "abcdefgh .,";
        grow_vocab(v, letters, &seed);
        struct tokenizer *t = make(v, "superbpe", round < 3); /* one piece where no digit is */
        for (int k = 0; k < 150; k++) {
            char text[300];
            int32_t want[300];
            size_t n = test_random(&seed) % (k < 100 ? 40 : 300);
            for (size_t i = 0; i < n; i++) {
                text[i] = letters[test_random(&seed) % strlen(letters)];
            }
            struct buf ids;
            buf_init(&ids, 0);
            CHECK_INT(tokenizer_encode(t, text, n, 0, &ids), 0);
            size_t n_want = merge_naively(v, text, n, want);
            CHECK_INT(ids.len / 4, n_want);
            CHECK(n_want == 0 || memcmp(ids.data, want, ids.len) == 0);
            buf_finish(&ids);
        }
        tokenizer_destroy(&t);
        free(v);
    }
}

static void any_bytes_come_back(void)
{
    static const char *const pres[] = {"default",  "llama-bpe", "qwen2",        "gpt-2",
                                       "gpt-4o",   "kimi-k2",   "deepseek-llm", "tiny_aya",
                                       "superbpe", "viking",    "chameleon",    "jais-2"};
    static const char *const bits[] = {"\U0001F600", "\u4E2D", " ",      "\n",    "'s",
                                       "12",         "A",      "\u0301", "\u00A0"};
    uint64_t seed = 2;
    struct vocab *v = calloc(1, sizeof(*v));
    CHECK(v);
    grow_vocab(v, "abc \xE4\xB8\n1", &seed);
    for (size_t p = 0; p < COUNT_OF(pres); p++) {
        struct tokenizer *t = make(v, pres[p], true);
        for (int k = 0; k < 200; k++) {
            struct buf text, ids, back;
            buf_init(&text, 0);
            buf_init(&ids, 0);
            buf_init(&back, 0);
            for (size_t n = test_random(&seed) % 60; text.len < n;) {
                if (test_random(&seed) % 3 == 0) {
                    buf_char(&text, (char)test_random(&seed));
                } else {
                    buf_str(&text, bits[test_random(&seed) % COUNT_OF(bits)]);
                }
            }
            CHECK_INT(tokenizer_encode(t, text.data, text.len, 3, &ids), 0);
            CHECK_INT(
                tokenizer_decode(t, (const int32_t *)(void *)ids.data, ids.len / 4, false, &back),
                0);
            CHECK_INT(back.len, text.len);
            CHECK(text.len == 0 || memcmp(back.data, text.data, text.len) == 0);
            buf_finish(&text);
            buf_finish(&ids);
            buf_finish(&back);
        }
        tokenizer_destroy(&t);
    }
    free(v);
}

/* "abc" is a token that the merges do not reach; with ignore_merges the piece is it all the same.
 */
static void whole_pieces_where_merges_are_ignored(void)
{
    for (int ignore = 0; ignore < 2; ignore++) {
        struct vocab_file f = {0};
        vocab_put_str(&f, "tokenizer.ggml.model", "gpt2");
        vocab_put_str(&f, "tokenizer.ggml.pre", ignore ? "llama-bpe" : "dbrx");
        vocab_put_strs(&f, "tokenizer.ggml.tokens",
                       (const char *const[]){"a", "b", "c", "ab", "abc", "\u0120"}, 6);
        vocab_put_strs(&f, "tokenizer.ggml.merges", (const char *const[]){"a b"}, 1);
        vocab_put_bool(&f, "tokenizer.ggml.add_bos_token", false);
        struct tokenizer *t = vocab_make(&f);
        CHECK_IDS(t, "abc", 0, ignore ? "4" : "3 2");
        CHECK_IDS(t, "abca", 0, "3 2 0");
        CHECK_IDS(t, " ab", 0, "5 3");
        CHECK_TEXT(t, false, "abc ab", 4, 5, 3);
        tokenizer_destroy(&t);
    }
}

static void bytes_without_a_token_become_the_replacement(void)
{
    struct vocab_file f = {0};
    vocab_put_str(&f, "tokenizer.ggml.model", "gpt2");
    vocab_put_str(&f, "tokenizer.ggml.pre", "gpt-2");
    /* a, and the bytes EF BF BD in the alphabet */
    vocab_put_strs(&f, "tokenizer.ggml.tokens",
                   (const char *const[]){"a", "\u00EF", "\u00BF", "\u00BD"}, 4);
    vocab_put_strs(&f, "tokenizer.ggml.merges", NULL, 0);
    struct tokenizer *t = vocab_make(&f);
    CHECK_IDS(t, "a\xFF", 0, "0 1 2 3");
    CHECK_TEXT(t, false, "a\uFFFD", 0, 1, 2, 3);
    tokenizer_destroy(&t);
}

/* Gemma 4: characters and U+2581 instead of bytes, line ends as whole runs. */
static void raw_vocabularies_merge_characters(void)
{
    struct vocab_file f = {0};
    vocab_put_str(&f, "tokenizer.ggml.model", "gemma4");
    vocab_put_strs(&f, "tokenizer.ggml.tokens",
                   (const char *const[]){"<bos>", "\u2581", "\u00E9", "b", "\u00E9b",
                                         "\u2581\u00E9b", "\n\n", "<0xC3>", "<0xBC>", "<0x0A>",
                                         "<unk>"},
                   11);
    vocab_put_strs(&f, "tokenizer.ggml.merges", (const char *const[]){"\u00E9 b", "\u2581 \u00E9b"},
                   2);
    vocab_put_array(&f, "tokenizer.ggml.token_type", GGUF_I32,
                    (const int32_t[]){3, 1, 1, 1, 1, 1, 1, 6, 6, 6, 2}, 11, 4);
    vocab_put_u32(&f, "tokenizer.ggml.bos_token_id", 0);
    vocab_put_u32(&f, "tokenizer.ggml.unknown_token_id", 10);
    struct tokenizer *t = vocab_make(&f);
    CHECK_IDS(t, "\u00E9b \u00E9b", 0, "4 5");
    CHECK_IDS(t, "b\n\nb", 0, "3 6 3");
    CHECK_IDS(t, "b\nb", 0, "3 9 3");
    CHECK_IDS(t, "\u00FC", 0, "7 8");
    CHECK_IDS(t, "z", 0, "10");
    CHECK_IDS(t, "b", TOKENIZER_ADD_SPECIAL, "0 3");
    CHECK_TEXT(t, false, "b \u00E9b\u00FC", 0, 3, 5, 7, 8);
    tokenizer_destroy(&t);
}

int main(void)
{
    merges_equal_the_definition();
    any_bytes_come_back();
    whole_pieces_where_merges_are_ignored();
    bytes_without_a_token_become_the_replacement();
    raw_vocabularies_merge_characters();
    return 0;
}
