/* Published blocks as a tree of texts, found by a hash over the chain of tokens. The token loop's
 * thread; never blocks, allocates nothing. Invariant: of full blocks no two have the same parent
 * and tokens, so a block's number stands for its whole text. */
#include "worker/kv_record.h"
#include "worker/kv_tree.h"
#include "shared/hash.h"

#include <string.h>

/* A text that many go on from differently (an empty one, say) has many children: only so many are
 * looked at for a partial match. */
enum { MAX_SIBLINGS_READ = 32 };

static const int32_t *ids_of(const struct kv_pool *p, int32_t block)
{
    return p->ids + (int64_t)block * KV_BLOCK;
}

static int32_t *bucket(const struct kv_pool *p, uint64_t hash)
{
    return &p->buckets[hash & (p->n_buckets - 1)];
}

uint64_t kv_tree_hash(const struct kv_pool *p, int32_t parent, const int32_t *ids)
{
    return hash64(ids, KV_BLOCK * sizeof *ids, p->blocks[parent].hash);
}

static int32_t n_common(const int32_t *a, const int32_t *b, int64_t n)
{
    int32_t i = 0;
    while (i < n && a[i] == b[i]) {
        i++;
    }
    return i;
}

void kv_tree_init(struct kv_pool *p)
{
    int32_t root = kv_root(p);
    for (size_t i = 0; i < p->n_buckets; i++) {
        p->buckets[i] = KV_NONE;
    }
    p->blocks[root] = (struct kv_block){.n_refs = 1,
                                        .parent = KV_NONE,
                                        .child = KV_NONE,
                                        .prev_idle = root,
                                        .next_idle = root,
                                        .snapshot = KV_NONE,
                                        .hash = p->seed};
}

int32_t kv_root(const struct kv_pool *p)
{
    return (int32_t)p->n_blocks;
}

int32_t kv_tree_find(const struct kv_pool *p, int32_t parent, const int32_t *ids)
{
    uint64_t hash = kv_tree_hash(p, parent, ids);
    for (int32_t i = *bucket(p, hash); i != KV_NONE; i = p->blocks[i].next_in_bucket) {
        if (p->blocks[i].hash == hash && p->blocks[i].parent == parent &&
            n_common(ids_of(p, i), ids, KV_BLOCK) == KV_BLOCK) {
            return i;
        }
    }
    return KV_NONE;
}

/* Nobody holds it, nor what is behind it: who holds a block has found it, and so checked it. */
static void forget_all(struct kv_pool *p, int32_t block)
{
    for (int32_t i = block;;) {
        while (p->blocks[i].child != KV_NONE && p->blocks[i].n_children > 0) {
            i = p->blocks[i].child;
        }
        int32_t up = p->blocks[i].parent;
        kv_forget(p, i);
        if (i == block) {
            return;
        }
        i = up;
    }
}

/* Is it what was published? Else it is forgotten. */
static bool is_whole(struct kv_pool *p, int32_t block)
{
    if (p->blocks[block].is_unchecked && !kv_record_check(p, block)) {
        forget_all(p, block);
        return false;
    }
    return true;
}

int32_t kv_find(struct kv_pool *p, int32_t parent, const int32_t *ids)
{
    int32_t i = kv_tree_find(p, parent, ids);
    return i != KV_NONE && is_whole(p, i) ? i : KV_NONE;
}

int32_t kv_find_part(struct kv_pool *p, int32_t parent, const int32_t *ids, int64_t n,
                     int32_t *ret_n)
{
    int32_t best = KV_NONE, most = 0, i = p->blocks[parent].child;
    for (int k = 0; k < MAX_SIBLINGS_READ && i != KV_NONE; k++) {
        int32_t same = n_common(ids_of(p, i), ids, MIN(n, (int64_t)p->blocks[i].n_ids));
        if (same > most) {
            best = i;
            most = same;
        }
        i = p->blocks[i].next_sibling;
    }
    if (best == KV_NONE || !is_whole(p, best)) {
        return KV_NONE;
    }
    *ret_n = most;
    return best;
}

/* Partial blocks that say no more than this one make room. */
static void forget_covered(struct kv_pool *p, int32_t parent, const int32_t *ids, int32_t n)
{
    int32_t i = p->blocks[parent].child, next;
    for (int k = 0; k < MAX_SIBLINGS_READ && i != KV_NONE; k++, i = next) {
        const struct kv_block *b = &p->blocks[i];
        next = b->next_sibling;
        if (b->n_refs == 0 && b->n_ids < KV_BLOCK && b->n_ids <= n &&
            n_common(ids_of(p, i), ids, b->n_ids) == b->n_ids) {
            kv_forget(p, i);
        }
    }
}

void kv_tree_insert(struct kv_pool *p, int32_t parent, int32_t block, int32_t n_ids)
{
    struct kv_block *b = &p->blocks[block], *up = &p->blocks[parent];
    b->n_ids = n_ids;
    b->parent = parent;
    b->depth = up->depth + 1;
    b->n_children = 0;
    b->child = b->prev_sibling = b->snapshot = KV_NONE;
    b->next_sibling = up->child;
    if (up->child != KV_NONE) {
        p->blocks[up->child].prev_sibling = block;
    }
    up->child = block;
    up->n_children++;
    if (n_ids == KV_BLOCK) {
        b->hash = kv_tree_hash(p, parent, ids_of(p, block));
        b->next_in_bucket = *bucket(p, b->hash);
        *bucket(p, b->hash) = block;
    }
}

int32_t kv_publish(struct kv_pool *p, int32_t parent, int32_t block, int32_t n_ids)
{
    const int32_t *ids = ids_of(p, block);
    int32_t same = 0;
    ASSERT(p->blocks[block].n_refs > 0 && p->blocks[block].n_ids == 0);
    ASSERT(parent == kv_root(p) || p->blocks[parent].n_ids == KV_BLOCK);
    if (n_ids == KV_BLOCK) {
        int32_t first = kv_find(p, parent, ids);
        if (first != KV_NONE) {
            kv_ref(p, first);
            kv_release(p, block);
            p->stats.n_merged++;
            return first;
        }
    } else if (kv_find_part(p, parent, ids, n_ids, &same) != KV_NONE && same == n_ids) {
        return block; /* as much is findable already */
    }
    forget_covered(p, parent, ids, n_ids);
    kv_tree_insert(p, parent, block, n_ids);
    p->stats.n_published++;
    if (n_ids == KV_BLOCK) { /* a part of a block is soon computed again */
        kv_record_commit(p, block);
    }
    return block;
}

void kv_tree_remove(struct kv_pool *p, int32_t block)
{
    struct kv_block *b = &p->blocks[block], *up = &p->blocks[b->parent];
    if (b->n_ids == KV_BLOCK) {
        int32_t *at = bucket(p, b->hash);
        while (*at != block) {
            at = &p->blocks[*at].next_in_bucket;
        }
        *at = b->next_in_bucket;
    }
    if (b->next_sibling != KV_NONE) {
        p->blocks[b->next_sibling].prev_sibling = b->prev_sibling;
    }
    *(b->prev_sibling != KV_NONE ? &p->blocks[b->prev_sibling].next_sibling : &up->child) =
        b->next_sibling;
    up->n_children--;
    b->n_ids = 0;
    b->is_unchecked = false;
}

void kv_tree_move(struct kv_pool *p, int32_t from, int32_t to)
{
    struct kv_block *b = &p->blocks[to];
    *b = p->blocks[from];
    p->blocks[from].n_refs = p->blocks[from].n_ids = 0;
    if (b->n_ids == 0) {
        return;
    }
    if (b->n_ids == KV_BLOCK) {
        int32_t *at = bucket(p, b->hash);
        while (*at != from) {
            at = &p->blocks[*at].next_in_bucket;
        }
        *at = to;
    }
    if (b->next_sibling != KV_NONE) {
        p->blocks[b->next_sibling].prev_sibling = to;
    }
    *(b->prev_sibling != KV_NONE ? &p->blocks[b->prev_sibling].next_sibling
                                 : &p->blocks[b->parent].child) = to;
    for (int32_t i = b->child; b->n_children > 0 && i != KV_NONE; i = p->blocks[i].next_sibling) {
        p->blocks[i].parent = to;
    }
    if (b->n_refs == 0) {
        p->blocks[b->prev_idle].next_idle = p->blocks[b->next_idle].prev_idle = to;
    }
    if (b->snapshot != KV_NONE) {
        p->snapshots[b->snapshot].block = to;
        kv_record_move_snapshot(p, b->snapshot);
    }
}
