/* Tries that another process made: the same answers as from the one that was built, never believed
 * when a byte of them is another, and much sooner there. */
#include "shared/hash.h"
#include "tests/test.h"
#include "worker/tokenizer_trie.h"

#include <time.h>

enum { N = 250 * 1000, N_SMALL = 300 };

static size_t text_of(int32_t i, char ret[24])
{
    uint64_t seed = (uint64_t)i + 1;
    size_t n = 1 + test_random(&seed) % 12;
    for (size_t k = 0; k < n; k++) {
        ret[k] = (char)("etaoinshrdlu "[test_random(&seed) % 13]);
    }
    return n;
}

static int32_t find(const struct tokenizer_trie *t, const char *s, size_t n)
{
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        node = tokenizer_trie_step(t, node, (unsigned char)s[i]);
        if (!node) {
            return -1;
        }
    }
    return t->value[node];
}

static void make(struct tokenizer_trie *t, int32_t n)
{
    char s[24];
    CHECK_INT(tokenizer_trie_init(t), 0);
    for (int32_t i = 0; i < n; i++) {
        size_t len = text_of(i, s);
        CHECK_INT(tokenizer_trie_insert(t, s, len, i), 0);
    }
    CHECK_INT(tokenizer_trie_pack(t), 0);
}

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void same_and_sooner(void)
{
    struct tokenizer_trie t, again;
    double t0 = cpu_ms();
    make(&t, N);
    double t1 = cpu_ms();
    void *copy = malloc(t.packed_bytes);
    CHECK(copy);
    memcpy(copy, t.packed, t.packed_bytes);
    double t2 = cpu_ms();
    CHECK(tokenizer_trie_use(&again, copy, t.packed_bytes, N));
    double t3 = cpu_ms();
    for (int32_t i = 0; i < N + 1000; i++) {
        char s[24];
        size_t len = text_of(i, s);
        CHECK_INT(find(&again, s, len), find(&t, s, len));
    }
    printf("%d strings, %.1f MB: built in %.1f ms, taken over in %.1f ms\n", N,
           (double)t.packed_bytes / 1e6, t1 - t0, t3 - t2);
    tokenizer_trie_finish(&t);
    tokenizer_trie_finish(&again);
    CHECK(!tokenizer_trie_use(&again, copy, 8, N) && !tokenizer_trie_use(&again, NULL, 0, N));
    free(copy);
}

/* Every byte counts; and one that keeps the sum right follows no number out of the block. */
static void damage(void)
{
    struct tokenizer_trie t, other;
    make(&t, N_SMALL);
    size_t bytes = t.packed_bytes;
    uint8_t *copy = malloc(bytes);
    CHECK(copy);
    memcpy(copy, t.packed, bytes);
    CHECK(!tokenizer_trie_use(&other, copy, bytes, 10)); /* of a larger vocabulary */
    CHECK(!tokenizer_trie_use(&other, copy, bytes - 8, N_SMALL));
    uint64_t seed = 5;
    for (size_t i = 0; i < bytes; i += 1 + test_random(&seed) % 16) {
        uint8_t flip = (uint8_t)(1 << test_random(&seed) % 8);
        bool is_count = i >= 16 && i < 20; /* how large its values may be: any that is enough */
        copy[i] ^= flip;
        CHECK(is_count || !tokenizer_trie_use(&other, copy, bytes, N_SMALL));
        copy[i] ^= flip;
    }
    CHECK(tokenizer_trie_use(&other, copy, bytes, N_SMALL));
    free(copy);
    tokenizer_trie_finish(&t);
}

/* A table of edges without a free slot, its sum right: a search for what is not there would never
 * end. */
static void full_table(void)
{
    struct {
        uint64_t magic;
        uint32_t n_nodes, n_slots;
        int32_t n_values;
        uint32_t sum, root[256];
        uint64_t edge[1];
        int32_t value[2];
    } block = {.n_nodes = 2,
               .n_slots = 1,
               .n_values = 1,
               .root['a'] = 1,
               .edge = {(uint64_t)(1 << 8 | 'b') << 32 | 1},
               .value = {-1, 0}};
    struct tokenizer_trie t, other;
    make(&t, N_SMALL);
    memcpy(&block.magic, t.packed, sizeof block.magic);
    tokenizer_trie_finish(&t);
    uint64_t edge = block.edge[0];
    for (int is_full = 0; is_full < 2; is_full++) {
        block.edge[0] = is_full ? edge : 0;
        uint32_t sum = hash_crc32c(0, block.root, sizeof block.root);
        sum = hash_crc32c(sum, block.edge, sizeof block.edge);
        block.sum = hash_crc32c(sum, block.value, sizeof block.value);
        CHECK(tokenizer_trie_use(&other, &block, sizeof block, 1) == !is_full);
    }
}

int main(void)
{
    same_and_sooner();
    damage();
    full_table();
    return 0;
}
