/* Putting the ceiling of device memory into effect (see budget.h). Blocks while the device
 * copies what stays of a KV cache. */
#include "worker/budget.h"

#include "safety/vram.h"
#include "shared/log.h"

enum { STEPS = 16 }; /* a KV cache changes by such parts of its full size, not by megabytes */
_Static_assert(VRAM_MAX_MODELS >= (int)LIMIT_MODELS,
               "every model is among what could be given back");

void budget_take(struct budget *b, const struct msg_budget *m)
{
    b->asked = *m;
    b->is_due = true;
}

static int64_t step_of(const struct engine *en)
{
    return MAX(engine_info(en)->n_blocks / STEPS, 1);
}

/* Blocks that a cache keeps: those of sequences, and some into which these can grow. */
static int64_t least_blocks(const struct engine *en)
{
    struct engine_cache c = engine_cache(en);
    return MIN(c.n_used + step_of(en), c.n_blocks);
}

static uint64_t cache_bytes(const struct engine *en, int64_t n_blocks)
{
    return (uint64_t)n_blocks * engine_vram_block_bytes(en);
}

static uint64_t held_bytes(const struct models *m)
{
    uint64_t n = 0;
    for (size_t i = 0; i < m->n; i++) {
        n += m->v[i].engine ? engine_vram_bytes(m->v[i].engine) : 0;
    }
    return n;
}

/* Of the KV caches, that is not there at present. */
static uint64_t given_bytes(const struct models *m)
{
    uint64_t n = 0;
    for (size_t i = 0; i < m->n; i++) {
        const struct engine *en = m->v[i].engine;
        n += en ? cache_bytes(en, engine_info(en)->n_blocks - engine_cache(en).n_blocks) : 0;
    }
    return n;
}

static struct vram_holdings look(const struct fleet *f, bool may_unload)
{
    struct vram_holdings h = {.n_models = f->models->n};
    for (size_t i = 0; i < f->models->n; i++) {
        const struct model *v = &f->models->v[i];
        uint64_t bytes = v->engine ? engine_vram_bytes(v->engine) : 0;
        if (bytes == 0) {
            continue;
        }
        uint64_t kv = cache_bytes(v->engine, engine_cache(v->engine).n_blocks);
        uint64_t least = cache_bytes(v->engine, least_blocks(v->engine));
        h.kv_bytes += kv;
        h.kv_least_bytes += least;
        h.models[i].bytes = bytes - MIN(kv - least, bytes);
        h.models[i].used_ns = v->used_ns;
        h.models[i].is_idle = may_unload && !f->is_used[i];
    }
    return h;
}

/* Takes this much of the caches, of those first whose models nobody uses. */
static void shrink(struct fleet *f, uint64_t bytes)
{
    for (int used = 0; used < 2; used++) {
        for (size_t i = 0; i < f->models->n && bytes > 0; i++) {
            struct engine *en = f->models->v[i].engine;
            if (!en || f->is_used[i] != (used == 1) || engine_vram_block_bytes(en) == 0) {
                continue;
            }
            uint64_t before = engine_vram_bytes(en), one = engine_vram_block_bytes(en);
            int64_t now = engine_cache(en).n_blocks, step = step_of(en);
            int64_t n = (int64_t)MIN((bytes + one - 1) / one, (uint64_t)now);
            engine_resize_kv(en, MAX((now - n) / step * step, least_blocks(en)));
            bytes -= MIN(before - MIN(engine_vram_bytes(en), before), bytes);
        }
    }
}

static void grow(struct fleet *f, uint64_t room)
{
    for (size_t i = 0; i < f->models->n; i++) {
        struct engine *en = f->models->v[i].engine;
        uint64_t one = en ? engine_vram_block_bytes(en) : 0;
        if (one == 0) {
            continue;
        }
        int64_t full = engine_info(en)->n_blocks, now = engine_cache(en).n_blocks;
        int64_t step = step_of(en);
        int64_t n = now + (int64_t)MIN(room / one, (uint64_t)(full - now));
        n = n == full ? full : n / step * step;
        if (n > now) {
            n = engine_resize_kv(en, n);
            room -= MIN(cache_bytes(en, n - now), room);
        }
    }
}

/* Models that are loaded from now on have no more than their share of it. */
static void bound_loads(struct models *m, uint64_t allowed)
{
    uint64_t first = m->device ? m->device->vram_bytes : 0;
    m->options.vram_bytes = MIN(first, allowed) / MAX(m->max_loaded, (size_t)1);
}

bool budget_apply(struct budget *b, struct fleet *f, bool may_unload, struct msg_gave *ret)
{
    if (!b->is_due || loader_is_busy(f->loader)) {
        return false;
    }
    struct models *m = f->models;
    uint64_t before = held_bytes(m), left = 0;
    /* What is ours and no model's is the runtime's, and stays. */
    uint64_t allowed =
        b->asked.ceiling_bytes - MIN(b->asked.overhead_bytes, b->asked.ceiling_bytes);
    uint32_t n_unloaded = 0;
    if (before > allowed) {
        struct vram_holdings h = look(f, may_unload);
        struct vram_plan p = vram_give_back(&h, before - allowed);
        shrink(f, p.kv_bytes);
        for (size_t i = 0; i < m->n; i++) {
            if (p.unloads[i]) {
                fleet_unload_idle(f, &m->v[i]);
                n_unloaded++;
            }
        }
        uint64_t now = held_bytes(m);
        left = now - MIN(allowed, now);
    } else {
        grow(f, allowed - before);
    }
    bound_loads(m, allowed);
    uint64_t after = held_bytes(m);
    *ret = (struct msg_gave){.round = b->asked.round,
                             .held_bytes = after,
                             .freed_bytes = before - MIN(after, before),
                             .given_bytes = given_bytes(m),
                             .left_bytes = left,
                             .n_unloaded = n_unloaded};
    b->is_due = false;
    return true;
}
