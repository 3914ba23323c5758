/* A trie over bytes: which strings of a set begin here. Nodes are numbers; edges stand in one hash
 * table, so that a step is one look-up and memory is about 20 bytes a node. */
#ifndef WORKER_TOKENIZER_TRIE_H
#define WORKER_TOKENIZER_TRIE_H

#include "shared/base.h"

enum { TOKENIZER_TRIE_MAX_NODES = 1 << 24 };

struct tokenizer_trie {
    uint64_t *edge;     /* owned until packed; (node << 8 | byte) << 32 | child; 0: free */
    uint32_t edge_mask; /* slots - 1 */
    int32_t *value;     /* likewise; by node, -1: no string ends here */
    uint32_t n_nodes, cap_nodes;
    uint32_t root[256]; /* children of node 0, without hashing */
    const void *packed; /* one block without pointers, in which edge and value stand; NULL: not yet */
    size_t packed_bytes;
    bool is_borrowed;   /* the block is somebody else's */
};

MUST_CHECK int tokenizer_trie_init(struct tokenizer_trie *t);
void tokenizer_trie_finish(struct tokenizer_trie *t);

/* Adds a string (n > 0) with its value (>= 0); of equal strings the first stays.
 * Errors: -ENOMEM, also when there would be too many nodes. */
MUST_CHECK int tokenizer_trie_insert(struct tokenizer_trie *t, const char *s, size_t n,
                                     int32_t value);

/* Nothing more is inserted: all that it is in one block, which another process can use. -ENOMEM. */
MUST_CHECK int tokenizer_trie_pack(struct tokenizer_trie *t);
/* From such a block, borrowed until the end. False: it is damaged, or not of n_values values. */
MUST_CHECK bool tokenizer_trie_use(struct tokenizer_trie *t, const void *data, size_t bytes,
                                   int32_t n_values);

static inline uint32_t tokenizer_trie_slot(uint32_t key, uint32_t mask)
{
    return (uint32_t)((key * 0x9e3779b97f4a7c15u) >> 32) & mask;
}

/* The child of a node (0: the root) along a byte; 0 when there is none. */
static inline uint32_t tokenizer_trie_step(const struct tokenizer_trie *t, uint32_t node,
                                           unsigned char byte)
{
    if (node == 0) {
        return t->root[byte];
    }
    uint32_t key = node << 8 | byte;
    for (uint32_t i = tokenizer_trie_slot(key, t->edge_mask);; i = (i + 1) & t->edge_mask) {
        uint64_t e = t->edge[i];
        if (e == 0) {
            return 0;
        }
        if (e >> 32 == key) {
            return (uint32_t)e;
        }
    }
}

#endif
