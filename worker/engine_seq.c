/* Sequences: their block tables and recurrent states. The token loop's thread; allocates nothing. */
#include "worker/engine_state.h"

#include <errno.h>
#include <string.h>

static float *state_of(const struct engine *en, size_t layer, int32_t slot)
{
    const struct op_state *s = &en->program.states[layer];
    return s->data + slot * s->slot_floats;
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
    s->n_tokens = s->n_blocks = 0;
    for (size_t i = 0; i < en->program.n_states; i++) {
        size_t floats = (size_t)en->program.states[i].slot_floats;
        memset(state_of(en, i, s->slot), 0, floats * sizeof(float));
    }
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
    s->n_tokens = from->n_tokens;
    /* Blocks that were only reserved stay with their owner. */
    s->n_blocks = (from->n_tokens + KV_BLOCK - 1) / KV_BLOCK;
    for (int64_t i = 0; i < s->n_blocks; i++) {
        s->blocks[i] = from->blocks[i];
        kv_ref(&en->kv, s->blocks[i]);
    }
    for (size_t i = 0; i < en->program.n_states; i++) {
        size_t floats = (size_t)en->program.states[i].slot_floats;
        memcpy(state_of(en, i, s->slot), state_of(en, i, from->slot), floats * sizeof(float));
    }
    *ret = s;
    return 0;
}

void engine_seq_destroy(struct engine *en, struct engine_seq **at)
{
    struct engine_seq *s = *at;
    if (!s) {
        return;
    }
    *at = NULL;
    for (int64_t i = 0; i < s->n_blocks; i++) {
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
    if (need + copies > en->kv.n_free) {
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
    return en->kv.n_free;
}
