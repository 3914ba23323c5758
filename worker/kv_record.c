/* Records of published blocks, and a pool from the records that another process left (see
 * kv_record.h). The token loop's thread; never blocks, allocates in kv_record_restore only.
 * Invariant: nothing that stands in the memory is used as an index before it was compared. */
#include "worker/kv_record.h"

#include "shared/hash.h"
#include "shared/num.h"
#include "worker/kv_tree.h"
#include "worker/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HUGE_FROM_BYTES ((uint64_t)64 << 20)

/* --- where things stand ---------------------------------------------------------------------- */

static bool add(size_t *at, uint64_t n, uint64_t item_bytes, size_t align)
{
    uint64_t bytes, end;
    if (!num_mul(n, item_bytes, &bytes) || !num_add(*at, bytes, &end) ||
        end > SIZE_MAX / 2 - align) {
        return false;
    }
    *at = num_pad((size_t)end, align);
    return true;
}

bool kv_record_places(const struct kv_layer *layers, size_t n_layers, const struct kv_shape *shape,
                      struct kv_places *ret)
{
    uint64_t n = (uint64_t)shape->n_blocks, n_snapshots = (uint64_t)shape->n_snapshots;
    struct kv_places at = {0};
    /* A large cache begins with a huge page: its layers, often a multiple of one, then use one less
     * each. */
    uint64_t block_bytes = kv_bytes_per_block(layers, n_layers);
    bool is_large = n >= HUGE_FROM_BYTES / MAX(block_bytes, (uint64_t)1);
    size_t align = is_large ? MEMORY_HUGE_BYTES : (size_t)KV_DATA_ALIGN;
    if (shape->n_blocks < 0 || shape->n_blocks >= INT32_MAX / KV_BLOCK || shape->n_snapshots < 0) {
        return false;
    }
    size_t end = 0;
    bool ok = add(&end, n, sizeof(struct kv_record), 64);
    at.ids = end;
    ok = ok && add(&end, n, KV_BLOCK * sizeof(int32_t), 64);
    at.snapshot_records = end;
    ok = ok && add(&end, n_snapshots, sizeof(struct kv_snapshot_record), align);
    at.data = end;
    ok = ok && add(&end, n, block_bytes, KV_DATA_ALIGN);
    at.snapshot_data = end;
    ok = ok && add(&end, n_snapshots, shape->snapshot_bytes, KV_DATA_ALIGN);
    at.bytes = end;
    *ret = at;
    return ok && at.bytes > 0;
}

/* --- records --------------------------------------------------------------------------------- */

static const int32_t *ids_of(const struct kv_pool *p, int32_t block)
{
    return p->ids + (int64_t)block * KV_BLOCK;
}

/* Of everything that says what the block is; never 0. */
static uint64_t digest(const struct kv_pool *p, int32_t block, const struct kv_record *r)
{
    const uint64_t words[] = {(uint64_t)block, r->hash,
                              (uint64_t)(uint32_t)r->parent << 32 | r->sum,
                              (uint64_t)(uint32_t)r->depth};
    uint64_t h = hash64(words, sizeof words, p->seed);
    return hash64(ids_of(p, block), KV_BLOCK * sizeof(int32_t), h) | 1;
}

static uint32_t sum_of(const struct kv_pool *p, int32_t block)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < p->n_layers; i++) {
        size_t bytes = kv_block_bytes(&p->layers[i]);
        sum = hash_crc32c(sum, p->host[i] + (size_t)block * bytes, bytes);
    }
    return sum;
}

/* The sum of the content stands. */
static void commit(struct kv_pool *p, int32_t block)
{
    const struct kv_block *b = &p->blocks[block];
    struct kv_record *r = &p->records[block];
    r->hash = b->hash;
    r->parent = b->parent;
    r->depth = b->depth;
    r->used = ++p->tick;
    atomic_store_explicit(&r->commit, digest(p, block, r), memory_order_release);
}

void kv_record_commit(struct kv_pool *p, int32_t block)
{
    if (!p->device.copy) {
        p->records[block].sum = sum_of(p, block);
        commit(p, block);
    } else if (block < p->device.n_kept) { /* else it dies with the process */
        p->blocks[block].is_saving = true;
        p->device.save(p->device.arg, block);
    }
}

void kv_save(struct kv_pool *p, int32_t block, size_t layer, const void *from)
{
    struct kv_record *r = &p->records[block];
    size_t bytes = kv_block_bytes(&p->layers[layer]);
    char *at = p->host[layer] + (size_t)block * bytes;
    ASSERT(p->blocks[block].is_saving);
    if (from) {
        memcpy(at, from, bytes);
    }
    r->sum = hash_crc32c(layer == 0 ? 0 : r->sum, at, bytes);
    if (layer + 1 == p->n_layers) {
        p->blocks[block].is_saving = false;
        commit(p, block);
    }
}

void kv_record_void(struct kv_pool *p, int32_t block)
{
    p->blocks[block].is_saving = false;
    atomic_store_explicit(&p->records[block].commit, 0, memory_order_relaxed);
    /* Whatever is written to the block from now on, is written after it. */
    atomic_thread_fence(memory_order_release);
}

void kv_record_use(struct kv_pool *p, int32_t block)
{
    p->records[block].used = ++p->tick;
}

/* The sum stays: what nobody has checked yet is not vouched for. */
static void rewrite(struct kv_pool *p, int32_t block, struct kv_record r)
{
    kv_record_void(p, block);
    p->records[block].hash = r.hash;
    p->records[block].parent = r.parent;
    p->records[block].depth = r.depth;
    p->records[block].sum = r.sum;
    p->records[block].used = r.used;
    atomic_store_explicit(&p->records[block].commit, digest(p, block, &r), memory_order_release);
}

static bool is_committed(const struct kv_pool *p, int32_t block)
{
    return atomic_load_explicit(&p->records[block].commit, memory_order_relaxed) != 0;
}

void kv_record_move(struct kv_pool *p, int32_t from, int32_t to)
{
    const struct kv_block *b = &p->blocks[from];
    if (is_committed(p, from)) {
        if (p->device.copy) {
            kv_copy_host(p, from, to);
        }
        rewrite(p, to, p->records[from]);
        kv_record_void(p, from);
    }
    for (int32_t i = b->child; b->n_children > 0 && i != KV_NONE; i = p->blocks[i].next_sibling) {
        if (is_committed(p, i)) {
            struct kv_record r = p->records[i];
            r.parent = to;
            rewrite(p, i, r);
        }
    }
}

bool kv_record_check(struct kv_pool *p, int32_t block)
{
    if (sum_of(p, block) != p->records[block].sum) {
        p->stats.n_broken++;
        return false;
    }
    p->blocks[block].is_unchecked = false;
    if (p->device.load) {
        p->device.load(p->device.arg, block);
    }
    return true;
}

/* --- snapshots ------------------------------------------------------------------------------- */

static uint64_t snapshot_digest(const struct kv_pool *p, int32_t snapshot,
                                const struct kv_snapshot_record *r)
{
    const uint64_t words[] = {(uint64_t)snapshot, r->hash,
                              (uint64_t)(uint32_t)r->block << 32 | r->sum};
    return hash64(words, sizeof words, p->seed ^ 1) | 1;
}

static uint32_t snapshot_sum(const struct kv_pool *p, int32_t snapshot)
{
    return hash_crc32c(0, p->snapshot_data + (size_t)snapshot * p->snapshot_bytes,
                       p->snapshot_bytes);
}

void kv_record_commit_snapshot(struct kv_pool *p, int32_t snapshot)
{
    struct kv_snapshot_record *r = &p->snapshot_records[snapshot];
    r->block = p->snapshots[snapshot].block;
    r->hash = p->blocks[r->block].hash;
    r->sum = snapshot_sum(p, snapshot);
    atomic_store_explicit(&r->commit, snapshot_digest(p, snapshot, r), memory_order_release);
}

void kv_record_void_snapshot(struct kv_pool *p, int32_t snapshot)
{
    atomic_store_explicit(&p->snapshot_records[snapshot].commit, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

void kv_record_move_snapshot(struct kv_pool *p, int32_t snapshot)
{
    struct kv_snapshot_record *r = &p->snapshot_records[snapshot];
    if (atomic_load_explicit(&r->commit, memory_order_relaxed) != 0) {
        kv_record_void_snapshot(p, snapshot);
        r->block = p->snapshots[snapshot].block;
        atomic_store_explicit(&r->commit, snapshot_digest(p, snapshot, r), memory_order_release);
    }
}

bool kv_record_check_snapshot(struct kv_pool *p, int32_t snapshot)
{
    if (snapshot_sum(p, snapshot) != p->snapshot_records[snapshot].sum) {
        p->stats.n_broken++;
        return false;
    }
    p->snapshots[snapshot].is_unchecked = false;
    return true;
}

/* --- going on -------------------------------------------------------------------------------- */

struct found {
    int32_t block, depth;
    uint64_t used;
};

/* A record that says of itself that it is whole, copied so that what is checked is what is used. */
static bool read_record(struct kv_pool *p, int32_t block, struct kv_record *ret)
{
    struct kv_record *r = &p->records[block];
    uint64_t commit = atomic_load_explicit(&r->commit, memory_order_acquire);
    if (commit == 0) {
        return false;
    }
    *ret = (struct kv_record){.hash = r->hash,
                              .parent = r->parent,
                              .depth = r->depth,
                              .sum = r->sum,
                              .used = r->used};
    return commit == digest(p, block, ret) && ret->parent >= 0 && ret->parent <= kv_root(p) &&
           ret->depth >= 1 && ret->depth <= p->n_blocks;
}

static int by_depth(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return x->depth != y->depth ? (x->depth > y->depth) - (x->depth < y->depth)
                                : (x->block > y->block) - (x->block < y->block);
}

/* Those unused for longest first, and children before their parents. */
static int by_use(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return x->used != y->used ? (x->used > y->used) - (x->used < y->used)
                              : (x->depth < y->depth) - (x->depth > y->depth);
}

/* Takes a block into the tree, if its parent is there and the chain is the one it was. */
static bool link_block(struct kv_pool *p, int32_t block)
{
    struct kv_record r;
    const int32_t *ids = ids_of(p, block);
    if (!read_record(p, block, &r)) {
        return false;
    }
    const struct kv_block *up = &p->blocks[r.parent];
    bool has_parent = r.parent == kv_root(p) || up->n_ids == KV_BLOCK;
    if (!has_parent || up->depth + 1 != r.depth || kv_tree_hash(p, r.parent, ids) != r.hash ||
        kv_tree_find(p, r.parent, ids) != KV_NONE) {
        return false;
    }
    kv_tree_insert(p, r.parent, block, KV_BLOCK);
    p->blocks[block].is_unchecked = true;
    return true;
}

/* A parent was used whenever one of its children was. found is in order of depth. at: scratch. */
static void raise_use(struct kv_pool *p, struct found *found, size_t n, size_t *at)
{
    for (size_t i = 0; i < n; i++) {
        at[found[i].block] = i;
    }
    for (size_t i = n; i-- > 0;) {
        int32_t parent = p->blocks[found[i].block].parent;
        if (parent != kv_root(p)) {
            struct found *up = &found[at[parent]];
            up->used = MAX(up->used, found[i].used);
        }
    }
}

static void restore_snapshots(struct kv_pool *p)
{
    for (int32_t i = 0; i < p->n_snapshots; i++) {
        struct kv_snapshot_record *r = &p->snapshot_records[i];
        uint64_t commit = atomic_load_explicit(&r->commit, memory_order_acquire);
        struct kv_snapshot_record copy = {.hash = r->hash, .block = r->block, .sum = r->sum};
        if (commit != 0 && commit == snapshot_digest(p, i, &copy) && copy.block >= 0 &&
            copy.block < p->n_blocks && p->blocks[copy.block].n_ids == KV_BLOCK &&
            p->blocks[copy.block].hash == copy.hash &&
            p->blocks[copy.block].snapshot == KV_NONE) {
            p->blocks[copy.block].snapshot = i;
            p->snapshots[i] = (struct kv_snapshot){
                .block = copy.block, .is_unchecked = true, .used_at = ++p->tick};
        } else if (commit != 0) {
            kv_record_void_snapshot(p, i);
        }
    }
}

int kv_record_restore(struct kv_pool *p)
{
    size_t n = 0, n_linked = 0;
    struct kv_record r;
    for (int32_t i = 0; i < p->n_blocks; i++) {
        n += atomic_load_explicit(&p->records[i].commit, memory_order_relaxed) != 0;
    }
    if (n == 0) {
        restore_snapshots(p);
        return 0;
    }
    struct found *found = malloc(n * sizeof *found);
    size_t *at = malloc((size_t)p->n_blocks * sizeof *at);
    if (!found || !at) {
        free(found);
        free(at);
        return -ENOMEM;
    }
    n = 0;
    for (int32_t i = 0; i < p->n_blocks; i++) {
        if (read_record(p, i, &r)) {
            found[n++] = (struct found){i, r.depth, r.used};
        } else if (atomic_load_explicit(&p->records[i].commit, memory_order_relaxed) != 0) {
            kv_record_void(p, i);
            p->stats.n_broken++;
        }
    }
    qsort(found, n, sizeof *found, by_depth);
    for (size_t i = 0; i < n; i++) {
        if (link_block(p, found[i].block)) {
            found[n_linked++] = found[i];
        } else { /* behind one that is broken, or had not come from the device, it is never found */
            kv_record_void(p, found[i].block);
        }
    }
    raise_use(p, found, n_linked, at);
    qsort(found, n_linked, sizeof *found, by_use);
    for (size_t i = 0; i < n_linked; i++) {
        kv_enter_idle(p, found[i].block);
        kv_record_use(p, found[i].block);
    }
    p->stats.n_restored = n_linked;
    free(found);
    free(at);
    restore_snapshots(p);
    return 0;
}
