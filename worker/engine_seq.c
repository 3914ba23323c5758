/* Sequences: their block tables and recurrent states, what they take from the prefix cache and
 * leave in it. The token loop's thread; allocates nothing. */
#include "worker/engine_state.h"

#include <errno.h>
#include <string.h>

static float *state_of(const struct engine *en, size_t layer, int32_t slot)
{
    const struct op_state *s = &en->program.states[layer];
    return s->data + slot * s->slot_floats;
}

static void zero_states(struct engine *en, int32_t slot)
{
    if (en->device_states.zero) {
        en->device_states.zero(en->gpu, slot);
        return;
    }
    for (size_t i = 0; i < en->program.n_states; i++) {
        size_t floats = (size_t)en->program.states[i].slot_floats;
        memset(state_of(en, i, slot), 0, floats * sizeof(float));
    }
}

static struct engine_seq *free_slot(struct engine *en)
{
    for (int64_t i = 0; i < en->options.n_seqs; i++) {
        if (!en->seqs[i].is_used) {
            return &en->seqs[i];
        }
    }
    return NULL;
}

int engine_seq_create(struct engine *en, struct engine_seq **ret)
{
    struct engine_seq *s = free_slot(en);
    if (!s) {
        return -ENOSPC;
    }
    s->is_used = true;
    s->is_spoiled = false;
    s->decoded = KV_NONE;
    s->n_tokens = s->n_blocks = 0;
    zero_states(en, s->slot);
    *ret = s;
    return 0;
}

int engine_seq_fork(struct engine *en, const struct engine_seq *from, struct engine_seq **ret)
{
    struct engine_seq *s = free_slot(en);
    if (!s) {
        return -ENOSPC;
    }
    s->is_used = true;
    s->is_spoiled = from->is_spoiled;
    s->decoded = KV_NONE;
    s->n_tokens = from->n_tokens;
    /* Blocks that were only reserved stay with their owner. */
    s->n_blocks = (from->n_tokens + KV_BLOCK - 1) / KV_BLOCK;
    for (int64_t i = 0; i < s->n_blocks; i++) {
        s->blocks[i] = from->blocks[i];
        kv_ref(&en->kv, s->blocks[i]);
    }
    if (en->device_states.copy) {
        en->device_states.copy(en->gpu, from->slot, s->slot);
    }
    for (size_t i = 0; i < en->program.n_states && !en->device_states.copy; i++) {
        size_t floats = (size_t)en->program.states[i].slot_floats;
        memcpy(state_of(en, i, s->slot), state_of(en, i, from->slot), floats * sizeof(float));
    }
    *ret = s;
    return 0;
}

static int32_t last_full(const struct engine *en, const struct engine_seq *s)
{
    int64_t n = s->n_tokens / KV_BLOCK;
    return n > 0 ? s->blocks[n - 1] : kv_root(&en->kv);
}

/* What stands in the last block behind the full ones. A recurrent model has no states for it. */
static void publish_rest(struct engine *en, struct engine_seq *s)
{
    int64_t at = s->n_tokens / KV_BLOCK;
    int32_t rest = (int32_t)(s->n_tokens % KV_BLOCK);
    if (rest > 0 && !s->is_spoiled && en->program.n_states == 0 &&
        !kv_is_shared(&en->kv, s->blocks[at])) {
        s->blocks[at] = kv_publish(&en->kv, last_full(en, s), s->blocks[at], rest);
    }
}

void engine_seq_destroy(struct engine *en, struct engine_seq **at)
{
    struct engine_seq *s = *at;
    if (!s) {
        return;
    }
    *at = NULL;
    publish_rest(en, s);
    for (int64_t i = s->n_blocks; i-- > 0;) {
        kv_release(&en->kv, s->blocks[i]);
    }
    s->n_blocks = s->n_tokens = 0;
    s->is_used = false;
}

int64_t engine_seq_length(const struct engine_seq *s)
{
    return s->n_tokens;
}

int engine_seq_reserve(struct engine *en, struct engine_seq *s, int64_t n)
{
    if (n < 0 || n > en->info.n_ctx - s->n_tokens) {
        return -ENOSPC;
    }
    int64_t need = (s->n_tokens + n + KV_BLOCK - 1) / KV_BLOCK - s->n_blocks;
    int64_t last = s->n_tokens / KV_BLOCK;
    bool copies = n > 0 && s->n_tokens % KV_BLOCK != 0 && kv_is_shared(&en->kv, s->blocks[last]);
    if (need + copies > kv_available(&en->kv)) {
        return -ENOSPC;
    }
    if (copies) { /* the last block is about to be written: no longer shared */
        int32_t own = kv_take(&en->kv);
        kv_copy(&en->kv, s->blocks[last], own);
        kv_release(&en->kv, s->blocks[last]);
        s->blocks[last] = own;
    }
    for (; need > 0; need--) {
        s->blocks[s->n_blocks++] = kv_take(&en->kv);
    }
    return 0;
}

int64_t engine_free_blocks(const struct engine *en)
{
    return kv_available(&en->kv);
}

struct engine_cache engine_cache(const struct engine *en)
{
    const struct kv_pool *p = &en->kv;
    return (struct engine_cache){.n_blocks = p->limit,
                                 .n_used = p->limit - kv_available(p),
                                 .n_cached = p->n_idle,
                                 .n_evicted = p->stats.n_evicted,
                                 .n_restored = p->stats.n_restored,
                                 .n_broken = p->stats.n_broken};
}

int64_t engine_seq_limit(struct engine *en, int64_t n_blocks)
{
    int64_t limit = kv_limit(&en->kv, n_blocks);
    for (int64_t i = 0; i < en->options.n_seqs; i++) {
        struct engine_seq *s = &en->seqs[i];
        for (int64_t k = 0; s->is_used && k < s->n_blocks; k++) {
            s->blocks[k] = en->kv.moved[s->blocks[k]];
        }
        if (s->is_used && s->decoded != KV_NONE) {
            s->decoded = en->kv.moved[s->decoded];
        }
    }
    return limit;
}

/* --- the prefix cache --------------------------------------------------------------------------*/

/* Copies the states of all layers between a sequence and a snapshot. */
static void copy_states(struct engine *en, const struct engine_seq *s, int32_t snapshot,
                        bool is_restored)
{
    if (en->device_states.copy) {
        int64_t kept = en->options.n_seqs + snapshot;
        en->device_states.copy(en->gpu, is_restored ? kept : s->slot, is_restored ? s->slot : kept);
        return;
    }
    float *kept = en->snapshots + snapshot * en->snapshot_floats;
    for (size_t i = 0; i < en->program.n_states; i++) {
        size_t floats = (size_t)en->program.states[i].slot_floats;
        float *state = state_of(en, i, s->slot);
        memcpy(is_restored ? state : kept, is_restored ? kept : state, floats * sizeof(float));
        kept += floats;
    }
}

/* Of several snapshots that one answer passes by, the newest is what its continuation will want. */
static void keep_states(struct engine *en, struct engine_seq *s, bool is_decoding)
{
    int32_t block = last_full(en, s);
    if (is_decoding && s->decoded != KV_NONE && s->decoded != block) {
        kv_snapshot_drop(&en->kv, s->decoded);
    }
    s->decoded = KV_NONE;
    if (kv_snapshot_of(&en->kv, block, true) == KV_NONE) {
        int32_t snapshot = kv_snapshot_take(&en->kv, block);
        copy_states(en, s, snapshot, false);
        kv_snapshot_commit(&en->kv, snapshot);
        s->decoded = is_decoding ? block : KV_NONE;
    }
}

void engine_seq_advance(struct engine *en, struct engine_seq *s, const int32_t *ids, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t at = s->n_tokens / KV_BLOCK, place = s->n_tokens % KV_BLOCK;
        int32_t parent = last_full(en, s);
        en->kv.ids[(int64_t)s->blocks[at] * KV_BLOCK + place] = ids[i];
        s->n_tokens++;
        if (place == KV_BLOCK - 1 && !s->is_spoiled) {
            s->blocks[at] = kv_publish(&en->kv, parent, s->blocks[at], KV_BLOCK);
        }
    }
    if (en->kv.n_snapshots > 0 && s->n_tokens % KV_BLOCK == 0 && !s->is_spoiled) {
        keep_states(en, s, n == 1);
    }
}

/* The published blocks of these tokens, from the first; a recurrent model goes on from a snapshot
 * only. They are written to ret, unless that is NULL. */
static int64_t find_blocks(struct engine *en, const int32_t *ids, int64_t n, int32_t *ret,
                           int64_t *ret_held)
{
    int64_t found = 0, usable = 0, held = 0;
    int32_t at = kv_root(&en->kv);
    *ret_held = 0;
    while ((found + 1) * KV_BLOCK <= n) {
        at = kv_find(&en->kv, at, ids + found * KV_BLOCK);
        if (at == KV_NONE) {
            break;
        }
        held += en->kv.blocks[at].n_refs > 0;
        if (ret) {
            ret[found] = at;
        }
        found++;
        if (en->program.n_states == 0 || kv_snapshot_of(&en->kv, at, false) != KV_NONE) {
            usable = found;
            *ret_held = held;
        }
    }
    return usable;
}

int64_t engine_cached(struct engine *en, const int32_t *ids, int64_t n, int64_t *ret_held)
{
    return find_blocks(en, ids, n, NULL, ret_held) * KV_BLOCK;
}

/* The block in which the texts part: what they have in common is copied. */
static void reuse_part(struct engine *en, struct engine_seq *s, const int32_t *ids, int64_t n)
{
    int32_t same = 0, part = kv_find_part(&en->kv, last_full(en, s), ids, n, &same);
    if (part == KV_NONE || kv_available(&en->kv) < 2) {
        return;
    }
    kv_ref(&en->kv, part); /* taking a block must not evict it */
    int32_t own = kv_take(&en->kv);
    kv_copy(&en->kv, part, own);
    kv_release(&en->kv, part);
    s->blocks[s->n_blocks++] = own;
    s->n_tokens += same;
}

int64_t engine_seq_reuse(struct engine *en, struct engine_seq *s, const int32_t *ids, int64_t n)
{
    int64_t held;
    ASSERT(s->n_tokens == 0 && s->n_blocks == 0 && n <= en->info.n_ctx);
    s->n_blocks = find_blocks(en, ids, n, s->blocks, &held);
    s->n_tokens = s->n_blocks * KV_BLOCK;
    for (int64_t i = 0; i < s->n_blocks; i++) {
        kv_ref(&en->kv, s->blocks[i]);
    }
    if (en->program.n_states == 0) {
        reuse_part(en, s, ids + s->n_tokens, n - s->n_tokens);
    } else if (s->n_blocks > 0) {
        copy_states(en, s, kv_snapshot_of(&en->kv, s->blocks[s->n_blocks - 1], true), true);
    }
    return s->n_tokens;
}
