/* The unigram kind: against all ways to cut a text, the character map, white space, unknown
 * characters. */
#include "tests/worker/vocab_file.h"

#define SP "\u2581"

struct piece {
    const char *text;
    float score;
    int32_t type;
};

/* --- a character map, built the simple way: children are placed at the first free offset --------
 */

struct map_entry {
    const char *from, *to;
};

static void build_charsmap(const struct map_entry *m, size_t n, struct buf *ret)
{
    enum { UNITS = 8192 };
    static uint32_t unit[UNITS];
    static bool is_used[UNITS];
    memset(unit, 0, sizeof(unit));
    memset(is_used, 0, sizeof(is_used));
    struct buf replacement;
    buf_init(&replacement, 0);
    uint32_t at[64];
    for (size_t i = 0; i < n; i++) {
        at[i] = (uint32_t)replacement.len;
        buf_add(&replacement, m[i].to, strlen(m[i].to) + 1);
    }
    struct node {
        char prefix[16];
        uint32_t index;
    } queue[256] = {{"", 0}};
    size_t n_queue = 1;
    is_used[0] = true;
    for (size_t q = 0; q < n_queue; q++) {
        struct node *node = &queue[q];
        size_t depth = strlen(node->prefix);
        bool child[256] = {false};
        int leaf = -1;
        for (size_t i = 0; i < n; i++) {
            if (strncmp(m[i].from, node->prefix, depth) == 0) {
                child[(unsigned char)m[i].from[depth]] = true; /* 0: a value */
                leaf = m[i].from[depth] ? leaf : (int)i;
            }
        }
        uint32_t offset = 1;
        for (bool is_free = false; !is_free; offset++) {
            is_free = true;
            for (uint32_t c = 0; c < 256; c++) {
                is_free &= !child[c] || !is_used[node->index ^ offset ^ c];
            }
            if (is_free) {
                break;
            }
        }
        unit[node->index] |= offset << 10 | (leaf >= 0 ? 1u << 8 : 0);
        for (uint32_t c = 0; c < 256; c++) {
            if (!child[c]) {
                continue;
            }
            uint32_t index = node->index ^ offset ^ c;
            CHECK(index < UNITS && n_queue < COUNT_OF(queue));
            is_used[index] = true;
            if (c == 0) {
                unit[index] = 1u << 31 | at[leaf];
            } else {
                unit[index] = c;
                struct node *next = &queue[n_queue++];
                snprintf(next->prefix, sizeof(next->prefix), "%s%c", node->prefix, (int)c);
                next->index = index;
            }
        }
    }
    buf_add(ret, &(uint32_t){sizeof(unit)}, 4);
    buf_add(ret, unit, sizeof(unit));
    buf_add(ret, replacement.data, replacement.len);
    buf_finish(&replacement);
}

static struct tokenizer *make(const struct piece *p, size_t n, bool prefix, bool merge_spaces,
                              const struct map_entry *map, size_t n_map)
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
    vocab_put_str(&f, "tokenizer.ggml.model", "t5");
    vocab_put_strs(&f, "tokenizer.ggml.tokens", texts, n);
    vocab_put_array(&f, "tokenizer.ggml.scores", GGUF_F32, scores, n, 4);
    vocab_put_array(&f, "tokenizer.ggml.token_type", GGUF_I32, types, n, 4);
    vocab_put_bool(&f, "tokenizer.ggml.add_space_prefix", prefix);
    vocab_put_bool(&f, "tokenizer.ggml.remove_extra_whitespaces", merge_spaces);
    if (n_map) {
        struct buf blob;
        buf_init(&blob, 0);
        build_charsmap(map, n_map, &blob);
        vocab_put_array(&f, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, blob.data, blob.len, 1);
        buf_finish(&blob);
    }
    return vocab_make(&f);
}

static const struct piece pieces[] = {
    {"<pad>", 0, 3}, {"</s>", 0, 3},    {"<unk>", 0, 2},   {SP, -3, 1},         {"a", -4, 1},
    {"b", -5, 1},    {"ab", -6, 1},     {SP "a", -5, 1},   {SP "ab", -8.5f, 1}, {SP "fi", -4, 1},
    {"fi", -4, 1},   {"\u00E9", -4, 1}, {"<extra>", 0, 4}, {"u", -9, 5},
};

static const struct map_entry map[] = {
    {"\uFB01", "fi"},                       /* U+FB01, a ligature */
    {"e\u0301", "\u00E9"},                  /* e and an accent are é */
    {"\t", " "},           {"\u3000", " "}, /* U+3000 */
    {"\u200B", ""},                         /* U+200B */
};

static void white_space_and_map(void)
{
    struct tokenizer *t = make(pieces, COUNT_OF(pieces), true, true, map, COUNT_OF(map));
    CHECK_IDS(t, "", 0, "");
    CHECK_IDS(t, "ab", 0, "8");
    CHECK_IDS(t, "ab", TOKENIZER_ADD_SPECIAL, "8 1");
    CHECK_IDS(t, "ab</s>", 3, "8 1");
    CHECK_IDS(t, " \t ab \u3000  a ", 0, "8 7");
    CHECK_IDS(t, "\u200B", 0, "");
    CHECK_IDS(t, "\uFB01", 0, "9");
    CHECK_IDS(t, "a\uFB01e\u0301", 0, "7 10 11");
    CHECK_IDS(t, "zy\xFF", 0, "3 2"); /* neighbours without a token are one unknown token */
    CHECK_IDS(t, "z a", 0, "3 2 7");
    CHECK_IDS(t, "a<extra>a", 0, "7 12 7");
    CHECK_TEXT(t, false, "ab a", 8, 7, 1);
    tokenizer_destroy(&t);
    t = make(pieces, COUNT_OF(pieces), false, false, NULL, 0);
    CHECK_IDS(t, "ab", 0, "6");
    CHECK_IDS(t, "a  a ", 0, "4 3 7 3");
    tokenizer_destroy(&t);
}

/* The greatest sum of scores over all ways to cut s. */
static double best_sum(const struct piece *p, size_t n, const char *s)
{
    if (!*s) {
        return 0;
    }
    double best = -1e30;
    for (size_t k = 0; k < n; k++) {
        size_t len = strlen(p[k].text);
        if (strncmp(s, p[k].text, len) == 0) {
            double sum = p[k].score + best_sum(p, n, s + len);
            best = sum > best ? sum : best;
        }
    }
    return best;
}

static void cuts_are_the_best_of_all(void)
{
    uint64_t seed = 4;
    for (int round = 0; round < 5; round++) {
        static char texts[100][16];
        struct piece p[100] = {{"a", -8, 1}, {"b", -8, 1}, {"c", -8, 1}, {SP, -8, 1}};
        size_t n = 4;
        while (n < 60) {
            texts[n][0] = 0;
            for (size_t i = 2 + test_random(&seed) % 3; i > 0; i--) {
                strcat(texts[n], p[test_random(&seed) % (round % 2 ? 3 : 4)].text);
            }
            bool is_new = true;
            for (size_t k = 0; k < n; k++) {
                is_new &= strcmp(p[k].text, texts[n]) != 0;
            }
            if (is_new) {
                p[n] = (struct piece){texts[n], -20 + (float)test_uniform(&seed) * 15, 1};
                n++;
            }
        }
        struct tokenizer *t = make(p, n, false, false, NULL, 0);
        for (int k = 0; k < 100; k++) {
            char text[64] = "", marked[64] = "";
            for (size_t i = test_random(&seed) % 10; i > 0; i--) {
                uint64_t c = test_random(&seed) % 4;
                strcat(marked, p[c].text);
                strcat(text, c == 3 ? " " : p[c].text);
            }
            struct buf ids, joined;
            buf_init(&ids, 0);
            buf_init(&joined, 0);
            CHECK_INT(tokenizer_encode(t, text, strlen(text), 0, &ids), 0);
            double sum = 0;
            for (size_t i = 0; i < ids.len / 4; i++) {
                int32_t id;
                memcpy(&id, ids.data + 4 * i, 4);
                sum += p[id].score;
                buf_str(&joined, p[id].text);
            }
            CHECK_STR(joined.len ? joined.data : "", marked);
            CHECK(fabs(sum - best_sum(p, n, marked)) < 1e-4);
            buf_finish(&ids);
            buf_finish(&joined);
        }
        tokenizer_destroy(&t);
    }
}

static void unknown_characters_become_bytes_where_there_are_all(void)
{
    const struct piece p[] = {{"<pad>", 0, 3},  {"</s>", 0, 3},   {"<unk>", 0, 2}, {"a", -1, 1},
                              {"<0xC3>", 0, 6}, {"<0xA9>", 0, 6}, {"<0x7A>", 0, 6}};
    struct tokenizer *t = make(p, COUNT_OF(p), false, false, NULL, 0);
    CHECK_IDS(t, "a\u00E9za", 0, "3 4 5 6 3");
    CHECK_IDS(t, "yz", 0, "2 6");
    CHECK_TEXT(t, false, "a\u00E9z", 3, 4, 5, 6);
    tokenizer_destroy(&t);
}

int main(void)
{
    white_space_and_map();
    cuts_are_the_best_of_all();
    unknown_characters_become_bytes_where_there_are_all();
    return 0;
}
