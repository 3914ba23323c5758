/* A trie over bytes, built once while a vocabulary loads and read by any thread after that.
 * Invariant: at most half of the edge slots are taken, so that every search ends. */
#include "worker/tokenizer_trie.h"
#include "shared/hash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_NODES = 256 };
#define TRIE_MAGIC 0x31656972746d66u /* "fmtrie1" */

/* A block: this, the edges, the values. */
struct trie_head {
    uint64_t magic;
    uint32_t n_nodes, n_slots;
    int32_t n_values; /* values are below */
    uint32_t sum;     /* CRC-32C of what follows the head, and of root */
    uint32_t root[256];
};

int tokenizer_trie_init(struct tokenizer_trie *t)
{
    *t = (struct tokenizer_trie){
        .n_nodes = 1, .cap_nodes = FIRST_NODES, .edge_mask = 2 * FIRST_NODES - 1};
    t->edge = calloc(2 * FIRST_NODES, sizeof(*t->edge));
    t->value = malloc(FIRST_NODES * sizeof(*t->value));
    if (!t->edge || !t->value) {
        tokenizer_trie_finish(t);
        return -ENOMEM;
    }
    t->value[0] = -1;
    return 0;
}

void tokenizer_trie_finish(struct tokenizer_trie *t)
{
    if (!t->packed) {
        free(t->edge);
        free(t->value);
    } else if (!t->is_borrowed) {
        free((struct trie_head *)(uintptr_t)t->packed);
    }
    *t = (struct tokenizer_trie){0};
}

static void put_edge(uint64_t *edge, uint32_t mask, uint64_t e)
{
    uint32_t i = tokenizer_trie_slot((uint32_t)(e >> 32), mask);
    while (edge[i]) {
        i = (i + 1) & mask;
    }
    edge[i] = e;
}

/* Doubles the room for nodes, and with it the edge table. */
static int grow(struct tokenizer_trie *t)
{
    if (t->cap_nodes >= TOKENIZER_TRIE_MAX_NODES) {
        return -ENOMEM;
    }
    uint32_t cap = t->cap_nodes * 2, mask = cap * 2 - 1;
    uint64_t *edge = calloc((size_t)mask + 1, sizeof(*edge));
    int32_t *value = edge ? realloc(t->value, cap * sizeof(*value)) : NULL;
    if (!value) {
        free(edge);
        return -ENOMEM;
    }
    for (size_t i = 0; i <= t->edge_mask; i++) {
        if (t->edge[i]) {
            put_edge(edge, mask, t->edge[i]);
        }
    }
    free(t->edge);
    t->edge = edge;
    t->edge_mask = mask;
    t->value = value;
    t->cap_nodes = cap;
    return 0;
}

int tokenizer_trie_insert(struct tokenizer_trie *t, const char *s, size_t n, int32_t value)
{
    ASSERT(n > 0 && value >= 0);
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        uint32_t child = tokenizer_trie_step(t, node, c);
        if (!child) {
            if (t->n_nodes == t->cap_nodes) {
                int rc = grow(t);
                if (rc < 0) {
                    return rc;
                }
            }
            child = t->n_nodes++;
            t->value[child] = -1;
            if (node == 0) {
                t->root[c] = child;
            } else {
                put_edge(t->edge, t->edge_mask, (uint64_t)(node << 8 | c) << 32 | child);
            }
        }
        node = child;
    }
    if (t->value[node] < 0) {
        t->value[node] = value;
    }
    return 0;
}

/* ---- blocks ---- */

static size_t block_bytes(uint64_t n_slots, uint64_t n_nodes)
{
    return sizeof(struct trie_head) + n_slots * sizeof(uint64_t) + n_nodes * sizeof(int32_t);
}

static uint32_t sum_of(const struct trie_head *h, size_t bytes)
{
    uint32_t sum = hash_crc32c(0, h->root, sizeof(h->root));
    return hash_crc32c(sum, h + 1, bytes - sizeof(*h));
}

static void point_into(struct tokenizer_trie *t, const struct trie_head *h, size_t bytes)
{
    uint64_t *edge = (uint64_t *)(uintptr_t)(h + 1); /* nobody writes there any more */
    *t = (struct tokenizer_trie){.edge = edge,
                                 .edge_mask = h->n_slots - 1,
                                 .value = (int32_t *)(void *)(edge + h->n_slots),
                                 .n_nodes = h->n_nodes,
                                 .cap_nodes = h->n_nodes,
                                 .packed = h,
                                 .packed_bytes = bytes};
    memcpy(t->root, h->root, sizeof(t->root));
}

int tokenizer_trie_pack(struct tokenizer_trie *t)
{
    ASSERT(!t->packed);
    uint32_t n_slots = t->edge_mask + 1;
    size_t bytes = block_bytes(n_slots, t->n_nodes);
    struct trie_head *h = malloc(bytes);
    if (!h) {
        return -ENOMEM;
    }
    *h = (struct trie_head){.magic = TRIE_MAGIC, .n_nodes = t->n_nodes, .n_slots = n_slots};
    memcpy(h->root, t->root, sizeof(h->root));
    uint64_t *edge = (uint64_t *)(void *)(h + 1);
    int32_t *value = (int32_t *)(void *)(edge + n_slots);
    memcpy(edge, t->edge, n_slots * sizeof(*edge));
    memcpy(value, t->value, t->n_nodes * sizeof(*value));
    for (uint32_t i = 0; i < t->n_nodes; i++) {
        h->n_values = MAX(h->n_values, value[i] + 1);
    }
    h->sum = sum_of(h, bytes);
    tokenizer_trie_finish(t);
    point_into(t, h, bytes);
    return 0;
}

/* Every number in it is one that a search may follow, and every search ends. */
static bool is_sound(const struct tokenizer_trie *t, int32_t n_values)
{
    uint32_t n_taken = 0;
    for (uint32_t i = 0; i <= t->edge_mask; i++) {
        uint64_t e = t->edge[i];
        n_taken += e != 0;
        if (e >> 40 >= t->n_nodes || (uint32_t)e >= t->n_nodes) {
            return false;
        }
    }
    for (uint32_t i = 0; i < t->n_nodes; i++) {
        if (t->value[i] < -1 || t->value[i] >= n_values) {
            return false;
        }
    }
    for (size_t i = 0; i < COUNT_OF(t->root); i++) {
        if (t->root[i] >= t->n_nodes) {
            return false;
        }
    }
    return n_taken <= (t->edge_mask + 1) / 2;
}

bool tokenizer_trie_use(struct tokenizer_trie *t, const void *data, size_t bytes, int32_t n_values)
{
    const struct trie_head *h = data;
    if (!data || bytes < sizeof(*h) || h->magic != TRIE_MAGIC || h->n_slots == 0 ||
        (h->n_slots & (h->n_slots - 1)) != 0 || h->n_nodes == 0 ||
        h->n_nodes > TOKENIZER_TRIE_MAX_NODES || bytes != block_bytes(h->n_slots, h->n_nodes) ||
        h->n_values > n_values || h->sum != sum_of(h, bytes)) {
        return false;
    }
    point_into(t, h, bytes);
    t->is_borrowed = true;
    if (!is_sound(t, n_values)) {
        *t = (struct tokenizer_trie){0};
        return false;
    }
    return true;
}
