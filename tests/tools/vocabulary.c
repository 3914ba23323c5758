/* Words are grown in a tree: each node below the first level is a token, and the merge of its
 * parent with its last character. A parent is made before its child, so every merge finds both its
 * sides. */
#include "tests/tools/vocabulary.h"
#include "shared/utf8.h"
#include "tests/test.h"

enum { BYTES = 256, WORD_BYTES = 32, TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_UNUSED = 5 };

struct node {
    uint32_t child, next; /* first child, next sibling; 0: none */
    uint32_t token;
    char c;
};

/* The character that stands for a byte in byte-level BPE: printable Latin-1 stands for itself, the
 * others count up from U+0100 (GPT-2). */
static bool is_itself(unsigned b)
{
    return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
}

static uint32_t code_point(unsigned byte)
{
    uint32_t n = 0;
    for (unsigned b = 0; b < byte; b++) {
        n += !is_itself(b);
    }
    return is_itself(byte) ? byte : 0x100 + n;
}

static struct gguf_str text_of(struct arena *a, const char *bytes, size_t n)
{
    char text[2 * WORD_BYTES];
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        at += (size_t)utf8_encode(code_point((unsigned char)bytes[i]), text + at);
    }
    char *own = arena_str(a, text, at);
    CHECK(own);
    return (struct gguf_str){own, at};
}

static const char *pick(uint64_t *state, const char *const *list, size_t n)
{
    return list[test_random(state) % n];
}

/* One to four syllables, mostly after a space, now and then with a capital. */
static size_t make_word(uint64_t *state, char word[WORD_BYTES])
{
    static const char *const onset[] = {"b",  "c",  "d",  "f",  "g",  "h",  "l",  "m",  "n",
                                        "p",  "r",  "s",  "t",  "v",  "w",  "st", "tr", "ch",
                                        "sh", "pl", "gr", "th", "br", "cl", "sp", "",   ""};
    static const char *const vowel[] = {"a", "e", "i", "o", "u", "ea", "ou", "ai", "y", "io"};
    static const char *const coda[] = {"", "", "", "n", "r", "s", "t", "l", "nd", "ng", "st", "m"};
    size_t n = 0, syllables = 1 + test_random(state) % 4;
    if (test_random(state) % 5) {
        word[n++] = ' ';
    }
    size_t first = n;
    for (size_t i = 0; i < syllables; i++) {
        n +=
            (size_t)sprintf(word + n, "%s%s%s", pick(state, onset, COUNT_OF(onset)),
                            pick(state, vowel, COUNT_OF(vowel)), pick(state, coda, COUNT_OF(coda)));
    }
    if (test_random(state) % 10 == 0) {
        word[first] = (char)(word[first] - 'a' + 'A');
    }
    return n;
}

static void add_word(struct vocabulary *v, struct node *nodes, size_t n_base, const char *word,
                     size_t n)
{
    uint32_t at = 1 + (unsigned char)word[0]; /* nodes 1..256: the bytes */
    for (size_t i = 1; i < n && v->n_tokens < n_base; i++) {
        uint32_t k = nodes[at].child;
        while (k && nodes[k].c != word[i]) {
            k = nodes[k].next;
        }
        if (!k) {
            k = (uint32_t)v->n_tokens + 1;
            nodes[k] = (struct node){
                .next = nodes[at].child, .token = (uint32_t)v->n_tokens, .c = word[i]};
            nodes[at].child = k;
            struct gguf_str left = v->tokens[nodes[at].token];
            struct gguf_str right = text_of(&v->arena, word + i, 1);
            char *merge = arena_alloc(&v->arena, left.len + 1 + right.len);
            CHECK(merge);
            memcpy(merge, left.data, left.len);
            merge[left.len] = ' ';
            memcpy(merge + left.len + 1, right.data, right.len);
            v->merges[v->n_merges++] = (struct gguf_str){merge, left.len + 1 + right.len};
            v->types[v->n_tokens] = TYPE_NORMAL;
            v->tokens[v->n_tokens++] = text_of(&v->arena, word, i + 1);
        }
        at = k;
    }
}

void vocabulary_make(struct vocabulary *v, uint64_t seed, size_t n_base, const char *const *control,
                     size_t n_control, size_t n_tokens)
{
    CHECK(n_base >= BYTES && n_base + n_control <= n_tokens);
    *v = (struct vocabulary){0};
    arena_init(&v->arena, 0);
    v->tokens = arena_alloc(&v->arena, n_tokens * sizeof(*v->tokens));
    v->merges = arena_alloc(&v->arena, n_tokens * sizeof(*v->merges));
    v->types = arena_alloc(&v->arena, n_tokens * sizeof(*v->types));
    struct node *nodes = calloc(n_base + 1 + BYTES, sizeof(*nodes));
    CHECK(v->tokens && v->merges && v->types && nodes);
    for (int others = 0; others < 2; others++) { /* those that stand for themselves come first */
        for (unsigned b = 0; b < BYTES; b++) {
            if (is_itself(b) == !others) {
                char byte = (char)b;
                nodes[1 + b] = (struct node){.token = (uint32_t)v->n_tokens, .c = byte};
                v->types[v->n_tokens] = TYPE_NORMAL;
                v->tokens[v->n_tokens++] = text_of(&v->arena, &byte, 1);
            }
        }
    }
    while (v->n_tokens < n_base) {
        char word[WORD_BYTES];
        size_t n = make_word(&seed, word);
        add_word(v, nodes, n_base, word, n);
    }
    free(nodes);
    for (size_t i = 0; v->n_tokens < n_tokens; i++) {
        char name[32];
        snprintf(name, sizeof(name), "[PAD%zu]", v->n_tokens);
        const char *text = i < n_control ? control[i] : name;
        v->types[v->n_tokens] = i < n_control ? TYPE_CONTROL : TYPE_UNUSED;
        v->tokens[v->n_tokens++] =
            (struct gguf_str){arena_str(&v->arena, text, strlen(text)), strlen(text)};
    }
}

void vocabulary_finish(struct vocabulary *v)
{
    arena_finish(&v->arena);
    *v = (struct vocabulary){0};
}
