/* A trie over bytes, built once while a vocabulary loads and read by any thread after that.
 * Invariant: at most half of the edge slots are taken, so that every search ends. */
#include "worker/tokenizer_trie.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_NODES = 256 };

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
    free(t->edge);
    free(t->value);
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
