/* Merging of symbols with a priority queue. Pure; any thread.
 *
 * A queue entry is rank << 32 | index of the left symbol. It is stale when that symbol is gone or
 * its pair has another rank by now; a pair that changed has its own newer entry. A removed symbol
 * has rank NEVER, which no entry has. */
#include "worker/tokenizer_merge.h"

#include <errno.h>
#include <stdlib.h>

void *tokenizer_room_get(struct tokenizer_room *r, size_t bytes)
{
    if (bytes > r->bytes || !r->data) {
        size_t want = MAX(MAX(bytes, r->bytes * 2), (size_t)256);
        free(r->data);
        r->data = malloc(want);
        r->bytes = r->data ? want : 0;
    }
    return r->data;
}

void tokenizer_room_finish(struct tokenizer_room *r)
{
    free(r->data);
    *r = (struct tokenizer_room){0};
}

static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    uint64_t v = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) {
            child++;
        }
        if (v <= heap[child]) {
            break;
        }
        heap[i] = heap[child];
    }
    heap[i] = v;
}

static void push(uint64_t *heap, size_t *n, uint64_t v)
{
    size_t i = (*n)++;
    while (i > 0 && v < heap[(i - 1) / 2]) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = v;
}

static uint64_t pop(uint64_t *heap, size_t *n)
{
    uint64_t top = heap[0];
    heap[0] = heap[--*n];
    if (*n > 0) {
        sift_down(heap, *n, 0);
    }
    return top;
}

/* Ranks the pair that begins at symbol i. */
static void rank_pair(struct tokenizer_symbol *s, uint32_t i, uint32_t end,
                      tokenizer_merge_rank *rank, const void *ctx)
{
    s[i].rank = TOKENIZER_MERGE_NEVER;
    uint32_t j = s[i].next;
    if (j != TOKENIZER_MERGE_NONE) {
        uint32_t pair_end = s[j].next == TOKENIZER_MERGE_NONE ? end : s[s[j].next].start;
        s[i].rank = rank(ctx, &s[i], &s[j], pair_end, &s[i].joined_id);
    }
}

/* Joins symbol i with the next, which leaves the chain. Both new pairs are ranked. */
static void join(struct tokenizer_symbol *s, uint32_t i, uint32_t end, tokenizer_merge_rank *rank,
                 const void *ctx)
{
    uint32_t gone = s[i].next;
    s[i].id = s[i].joined_id;
    s[i].next = s[gone].next;
    s[gone].rank = TOKENIZER_MERGE_NEVER;
    if (s[i].next != TOKENIZER_MERGE_NONE) {
        s[s[i].next].prev = i;
    }
    rank_pair(s, i, end, rank, ctx);
    if (s[i].prev != TOKENIZER_MERGE_NONE) {
        rank_pair(s, s[i].prev, end, rank, ctx);
    }
}

/* Most pieces are short words: looking through all pairs is faster than keeping a queue. */
static void merge_short(struct tokenizer_symbol *s, uint32_t end, tokenizer_merge_rank *rank,
                        const void *ctx)
{
    for (;;) {
        uint32_t best = TOKENIZER_MERGE_NEVER, at = 0;
        for (uint32_t i = 0; i != TOKENIZER_MERGE_NONE; i = s[i].next) {
            if (s[i].rank < best) {
                best = s[i].rank;
                at = i;
            }
        }
        if (best == TOKENIZER_MERGE_NEVER) {
            break;
        }
        join(s, at, end, rank, ctx);
    }
}

static void add_pair(const struct tokenizer_symbol *s, uint32_t i, uint64_t *heap, size_t *n)
{
    if (i != TOKENIZER_MERGE_NONE && s[i].rank != TOKENIZER_MERGE_NEVER) {
        push(heap, n, (uint64_t)s[i].rank << 32 | i);
    }
}

static int merge_long(struct tokenizer_symbol *s, uint32_t n, uint32_t end,
                      tokenizer_merge_rank *rank, const void *ctx, struct tokenizer_room *room)
{
    /* At most n - 1 at first; each of the n - 1 joins takes its own out and adds two. */
    uint64_t *heap = tokenizer_room_get(room, (size_t)n * 2 * sizeof(*heap));
    if (!heap) {
        return -ENOMEM;
    }
    size_t n_heap = 0;
    for (uint32_t i = 0; i < n; i++) {
        add_pair(s, i, heap, &n_heap);
    }
    while (n_heap > 0) {
        uint64_t top = pop(heap, &n_heap);
        uint32_t i = (uint32_t)top;
        if (s[i].rank == top >> 32) {
            join(s, i, end, rank, ctx);
            add_pair(s, i, heap, &n_heap);
            add_pair(s, s[i].prev, heap, &n_heap);
        }
    }
    return 0;
}

int tokenizer_merge(struct tokenizer_symbol *s, uint32_t n, uint32_t end,
                    tokenizer_merge_rank *rank, const void *ctx, struct tokenizer_room *heap)
{
    enum { SHORT = 32 };
    for (uint32_t i = 0; i < n; i++) {
        s[i].prev = i == 0 ? TOKENIZER_MERGE_NONE : i - 1;
        s[i].next = i + 1 == n ? TOKENIZER_MERGE_NONE : i + 1;
    }
    for (uint32_t i = 0; i < n; i++) {
        rank_pair(s, i, end, rank, ctx);
    }
    if (n > SHORT) {
        return merge_long(s, n, end, rank, ctx, heap);
    }
    merge_short(s, end, rank, ctx);
    return 0;
}
