/* The KV block pool: memory, references, snapshots. The tree of published blocks: kv_tree.c; what
 * outlives the process: kv_record.c. The token loop's thread; never blocks, allocates nothing after
 * the start. */
#include "worker/kv.h"
#include "shared/num.h"
#include "worker/kv_record.h"
#include "worker/kv_tree.h"
#include "worker/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

size_t kv_bytes_per_block(const struct kv_layer *layers, size_t n_layers)
{
    size_t n = 0;
    for (size_t i = 0; i < n_layers; i++) {
        n += kv_block_bytes(&layers[i]);
    }
    return n;
}

static bool allocate(struct kv_pool *p)
{
    size_t n = (size_t)p->n_blocks + 1;
    p->n_buckets = 64;
    while (p->n_buckets < n) {
        p->n_buckets *= 2;
    }
    p->free = malloc(n * sizeof *p->free);
    p->moved = malloc(n * sizeof *p->moved);
    p->blocks = calloc(n, sizeof *p->blocks);
    p->buckets = malloc(p->n_buckets * sizeof *p->buckets);
    p->snapshots = calloc((size_t)p->n_snapshots + 1, sizeof *p->snapshots);
    p->host = calloc(p->n_layers + 1, sizeof *p->host);
    return p->host && p->free && p->moved && p->blocks && p->buckets && p->snapshots;
}

static void fill_free(struct kv_pool *p)
{
    p->n_free = 0;
    for (int64_t i = p->limit; i-- > 0;) { /* so that they are taken in ascending order */
        if (p->blocks[i].n_refs == 0 && p->blocks[i].n_ids == 0) {
            p->free[p->n_free++] = (int32_t)i;
        }
    }
}

int kv_pool_init_at(struct kv_pool *p, struct kv_layer *layers, size_t n_layers,
                    const struct kv_shape *shape, void *memory)
{
    struct kv_places at;
    *p = (struct kv_pool){.n_blocks = shape->n_blocks,
                          .limit = shape->n_blocks,
                          .layers = layers,
                          .n_layers = n_layers,
                          .n_snapshots = shape->n_snapshots,
                          .snapshot_bytes = shape->snapshot_bytes,
                          .seed = shape->seed};
    if (!kv_record_places(layers, n_layers, shape, &at) || !allocate(p)) {
        kv_pool_finish(p);
        return -ENOMEM;
    }
    p->memory = memory;
    p->bytes = at.bytes;
    p->records = (void *)(p->memory + at.records);
    p->ids = (void *)(p->memory + at.ids);
    p->snapshot_records = (void *)(p->memory + at.snapshot_records);
    p->snapshot_data = p->memory + at.snapshot_data;
    for (int32_t i = 0; i < p->n_snapshots; i++) {
        p->snapshots[i].block = KV_NONE;
    }
    size_t offset = at.data;
    for (size_t i = 0; i < n_layers; i++) {
        layers[i].data = p->host[i] = p->memory + offset;
        offset += kv_block_bytes(&layers[i]) * (size_t)p->n_blocks;
    }
    kv_tree_init(p);
    if (kv_record_restore(p) < 0) {
        kv_pool_finish(p);
        return -ENOMEM;
    }
    fill_free(p);
    return 0;
}

size_t kv_pool_bytes(const struct kv_layer *layers, size_t n_layers, const struct kv_shape *shape)
{
    struct kv_places at;
    return kv_record_places(layers, n_layers, shape, &at) ? at.bytes : 0;
}

int kv_pool_init(struct kv_pool *p, struct kv_layer *layers, size_t n_layers, int64_t n_blocks,
                 int32_t n_snapshots, uint64_t seed)
{
    struct kv_shape shape = {.n_blocks = n_blocks, .n_snapshots = n_snapshots, .seed = seed};
    size_t bytes = kv_pool_bytes(layers, n_layers, &shape);
    void *map = bytes == 0 ? MAP_FAILED
                           : mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        *p = (struct kv_pool){0};
        return -ENOMEM;
    }
    int err = kv_pool_init_at(p, layers, n_layers, &shape, map);
    if (err < 0) {
        munmap(map, bytes);
        return err;
    }
    p->owns_memory = true;
    return 0;
}

void kv_pool_finish(struct kv_pool *p)
{
    if (p->owns_memory) {
        munmap(p->memory, p->bytes);
    }
    free(p->free);
    free(p->moved);
    free(p->blocks);
    free(p->buckets);
    free(p->snapshots);
    free(p->host);
    free(p->huge.is_wanted);
    free(p->huge.queue);
    *p = (struct kv_pool){0};
}

/* --- huge pages ------------------------------------------------------------------------------ */

static char *huge_page_of(char *at)
{
    return at - (uintptr_t)at % MEMORY_HUGE_BYTES;
}

static void want_huge(struct kv_pool *p, int64_t block)
{
    char *first = huge_page_of(p->memory);
    for (size_t i = 0; i < p->n_layers; i++) {
        size_t bytes = kv_block_bytes(&p->layers[i]);
        char *data = p->layers[i].data + (size_t)block * bytes;
        for (char *at = huge_page_of(data); at < data + bytes; at += MEMORY_HUGE_BYTES) {
            size_t page = (size_t)(at - first) / MEMORY_HUGE_BYTES;
            bool is_ours = at >= p->memory && at + MEMORY_HUGE_BYTES <= p->memory + p->bytes;
            if (is_ours && !p->huge.is_wanted[page]) {
                p->huge.is_wanted[page] = true;
                p->huge.queue[p->huge.n_wanted++] = page;
            }
        }
    }
}

void kv_make_huge(struct kv_pool *p, int64_t n)
{
    for (; n > 0 && p->huge.n_made < p->huge.n_wanted; n--) {
        size_t page = p->huge.queue[p->huge.n_made++];
        p->huge.collapse(huge_page_of(p->memory) + page * MEMORY_HUGE_BYTES);
    }
}

void kv_use_huge_pages(struct kv_pool *p, void (*collapse)(char *at))
{
    size_t n_pages = p->bytes / MEMORY_HUGE_BYTES + 2;
    p->huge.collapse = collapse;
    p->huge.is_wanted = calloc(n_pages, sizeof *p->huge.is_wanted);
    p->huge.queue = malloc(n_pages * sizeof *p->huge.queue);
    if (!p->huge.is_wanted || !p->huge.queue) { /* plain pages */
        free(p->huge.is_wanted);
        p->huge.is_wanted = NULL;
    } else if (p->n_blocks > 0) {
        want_huge(p, 0);
        kv_make_huge(p, INT64_MAX); /* the first prompt shall not wait for it */
    }
}

/* --- references ------------------------------------------------------------------------------ */

void kv_enter_idle(struct kv_pool *p, int32_t block)
{
    int32_t root = kv_root(p), last = p->blocks[root].prev_idle;
    p->blocks[block].prev_idle = last;
    p->blocks[block].next_idle = root;
    p->blocks[last].next_idle = p->blocks[root].prev_idle = block;
    p->n_idle++;
}

static void leave_idle(struct kv_pool *p, int32_t block)
{
    const struct kv_block *b = &p->blocks[block];
    p->blocks[b->prev_idle].next_idle = b->next_idle;
    p->blocks[b->next_idle].prev_idle = b->prev_idle;
    p->n_idle--;
}

int64_t kv_available(const struct kv_pool *p)
{
    return p->n_free + p->n_idle;
}

int32_t kv_take(struct kv_pool *p)
{
    if (p->n_free == 0) {
        int32_t oldest = p->blocks[kv_root(p)].next_idle;
        if (p->n_idle == 0) {
            return -ENOSPC;
        }
        kv_forget(p, oldest);
        p->stats.n_evicted++;
    }
    int32_t block = p->free[--p->n_free];
    ASSERT(p->blocks[block].n_refs == 0 && p->blocks[block].n_ids == 0);
    p->blocks[block].n_refs = 1;
    if (p->huge.is_wanted) { /* blocks of a new pool are taken in ascending order */
        want_huge(p, block);
        want_huge(p, MIN((int64_t)block + KV_HUGE_AHEAD, p->limit - 1));
    }
    return block;
}

void kv_ref(struct kv_pool *p, int32_t block)
{
    struct kv_block *b = &p->blocks[block];
    ASSERT(b->n_refs > 0 || b->n_ids > 0);
    if (b->n_refs++ == 0) {
        leave_idle(p, block);
    }
}

void kv_release(struct kv_pool *p, int32_t block)
{
    struct kv_block *b = &p->blocks[block];
    ASSERT(b->n_refs > 0);
    if (--b->n_refs > 0) {
        return;
    }
    if (b->n_ids > 0) {
        kv_enter_idle(p, block);
        kv_record_use(p, block);
    } else {
        p->free[p->n_free++] = block;
    }
}

void kv_forget(struct kv_pool *p, int32_t block)
{
    struct kv_block *b = &p->blocks[block];
    ASSERT(b->n_refs == 0 && b->n_ids > 0 && b->n_children == 0);
    leave_idle(p, block);
    kv_snapshot_drop(p, block);
    kv_record_void(p, block);
    kv_tree_remove(p, block);
    p->free[p->n_free++] = block;
}

bool kv_is_shared(const struct kv_pool *p, int32_t block)
{
    return p->blocks[block].n_refs > 1 || p->blocks[block].n_ids > 0;
}

void kv_copy_host(struct kv_pool *p, int32_t from, int32_t to)
{
    for (size_t i = 0; i < p->n_layers; i++) {
        size_t bytes = kv_block_bytes(&p->layers[i]);
        memcpy(p->host[i] + (size_t)to * bytes, p->host[i] + (size_t)from * bytes, bytes);
    }
}

void kv_copy(struct kv_pool *p, int32_t from, int32_t to)
{
    if (!p->device.copy) {
        kv_copy_host(p, from, to);
    } else if (!p->blocks[from].is_unchecked) { /* whose content is not on the device */
        p->device.copy(p->device.arg, from, to);
    }
    memcpy(p->ids + (int64_t)to * KV_BLOCK, p->ids + (int64_t)from * KV_BLOCK,
           KV_BLOCK * sizeof *p->ids);
    p->stats.n_copied++;
}

/* --- fewer blocks and more ------------------------------------------------------------------- */

int64_t kv_limit(struct kv_pool *p, int64_t n)
{
    int64_t n_held = p->limit - p->n_free - p->n_idle;
    n = MIN(MAX(n, n_held), p->n_blocks);
    while (n_held + p->n_idle > n) {
        kv_forget(p, p->blocks[kv_root(p)].next_idle);
        p->stats.n_evicted++;
    }
    int32_t to = 0;
    for (int32_t i = 0; i < p->n_blocks; i++) {
        p->moved[i] = i;
        if (i < n || (p->blocks[i].n_refs == 0 && p->blocks[i].n_ids == 0)) {
            continue;
        }
        while (p->blocks[to].n_refs > 0 || p->blocks[to].n_ids > 0) {
            to++;
        }
        kv_copy(p, i, to);
        kv_record_move(p, i, to);
        kv_tree_move(p, i, to);
        p->moved[i] = to;
        if (p->blocks[i].is_saving) { /* who saves knows it by its number */
            p->blocks[i].is_saving = false;
            p->device.save(p->device.arg, to);
        }
    }
    p->limit = n;
    fill_free(p);
    return n;
}

/* --- snapshots ------------------------------------------------------------------------------- */

int32_t kv_snapshot_take(struct kv_pool *p, int32_t block)
{
    ASSERT(p->n_snapshots > 0 && p->blocks[block].n_ids == KV_BLOCK);
    int32_t at = p->blocks[block].snapshot;
    if (at == KV_NONE) {
        at = 0;
        for (int32_t i = 0; i < p->n_snapshots && p->snapshots[at].block != KV_NONE; i++) {
            bool is_free = p->snapshots[i].block == KV_NONE;
            at = is_free || p->snapshots[i].used_at < p->snapshots[at].used_at ? i : at;
        }
    }
    if (p->snapshots[at].block != KV_NONE) {
        kv_snapshot_drop(p, p->snapshots[at].block);
    }
    p->snapshots[at] = (struct kv_snapshot){.block = block, .used_at = ++p->tick};
    p->blocks[block].snapshot = at;
    return at;
}

void kv_snapshot_commit(struct kv_pool *p, int32_t snapshot)
{
    kv_record_commit_snapshot(p, snapshot);
}

int32_t kv_snapshot_of(struct kv_pool *p, int32_t block, bool touch)
{
    int32_t at = p->blocks[block].snapshot;
    if (at != KV_NONE && p->snapshots[at].is_unchecked && !kv_record_check_snapshot(p, at)) {
        kv_snapshot_drop(p, block);
        return KV_NONE;
    }
    if (at != KV_NONE && touch) {
        p->snapshots[at].used_at = ++p->tick;
    }
    return at;
}

void kv_snapshot_drop(struct kv_pool *p, int32_t block)
{
    int32_t at = p->blocks[block].snapshot;
    if (at != KV_NONE) {
        kv_record_void_snapshot(p, at);
        p->snapshots[at].block = KV_NONE;
        p->blocks[block].snapshot = KV_NONE;
    }
}
