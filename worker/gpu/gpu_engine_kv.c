/* Memory of the KV cache on the device: a few pieces, so that it can be made smaller and larger
 * (see gpu_engine.h). The token loop's thread; at first the one that loads. */
#include "worker/gpu/gpu_engine_state.h"

#include "shared/log.h"
#include "shared/num.h"

#include <errno.h>
#include <string.h>

/* The piece's layers in memory for n_blocks: those blocks that fit both keep what they hold. */
static int place_piece(struct gpu_engine *g, struct kv_piece *piece, int64_t n_blocks,
                       struct err *e)
{
    struct gpu_arena plan = {0}, fresh = {0};
    void *memory;
    for (size_t i = piece->first; i < piece->end; i++) {
        size_t bytes = g->is_kv_here[i] ? 0 : kv_block_bytes(&g->p->kv[i]) * (size_t)n_blocks;
        gpu_arena_take(&plan, GPU_LABEL_KV, bytes);
    }
    if (plan.used == 0) { /* all of them on the CPU */
        piece->n_blocks = n_blocks;
        return 0;
    }
    int err = door_allocate(g->door, plan.used, &memory, e);
    if (err < 0) {
        return err;
    }
    fresh.base = memory;
    for (size_t i = piece->first; i < piece->end; i++) {
        struct kv_layer *l = &g->p->kv[i];
        if (g->is_kv_here[i]) {
            continue;
        }
        size_t bytes = kv_block_bytes(l) * (size_t)n_blocks;
        size_t kept = kv_block_bytes(l) * (size_t)MIN(n_blocks, piece->n_blocks);
        char *data = gpu_arena_take(&fresh, GPU_LABEL_KV, bytes);
        if (kept > 0) {
            door_copy(g->door, data, l->data, kept);
        }
        /* Attention loads whole blocks, and drops what nobody wrote. */
        door_zero_now(g->door, data + kept, bytes - kept);
        l->data = data;
    }
    if (piece->memory) {
        door_wait(g->door, 0);
        door_free(g->door, piece->memory);
    }
    piece->memory = memory;
    piece->n_blocks = n_blocks;
    return 0;
}

int gpu_engine_take_kv(struct gpu_engine *g, int64_t n_blocks, struct err *e)
{
    size_t n = g->p->n_kv;
    int err = 0;
    for (size_t i = 0; i < GPU_ENGINE_KV_PIECES && err == 0; i++) {
        struct kv_piece *k = &g->kv[i];
        *k = (struct kv_piece){.first = i * n / GPU_ENGINE_KV_PIECES,
                               .end = (i + 1) * n / GPU_ENGINE_KV_PIECES};
        err = k->first < k->end ? place_piece(g, k, n_blocks, e) : 0;
    }
    return err;
}

int64_t gpu_engine_resize_kv(struct gpu_engine *g, int64_t n_blocks)
{
    int64_t least = n_blocks;
    door_wait(g->door, 0); /* what moved in the pool stands there when it is fetched */
    for (size_t i = 0; i < GPU_ENGINE_KV_PIECES; i++) {
        struct kv_piece *k = &g->kv[i];
        struct err e;
        if (k->first == k->end || k->n_blocks == n_blocks) {
            continue;
        }
        if (place_piece(g, k, n_blocks, &e) < 0) {
            log_info("a part of the KV cache keeps its size: %s", e.detail);
        }
        gpu_graphs_forget(&g->graphs);
        least = MIN(least, k->n_blocks);
    }
    return least < n_blocks ? gpu_engine_resize_kv(g, least) : n_blocks; /* a part could not grow */
}

void gpu_engine_forget(struct gpu_engine *g)
{
    gpu_graphs_forget(&g->graphs);
}

void gpu_engine_free_kv(struct gpu_engine *g)
{
    for (size_t i = 0; i < GPU_ENGINE_KV_PIECES; i++) {
        door_free(g->door, g->kv[i].memory);
    }
}

void gpu_engine_add_kv(const struct gpu_engine *g, struct gpu_arena *a)
{
    for (size_t i = 0; i < GPU_ENGINE_KV_PIECES; i++) {
        const struct kv_piece *k = &g->kv[i];
        for (size_t layer = k->first; layer < k->end; layer++) {
            size_t one = g->is_kv_here[layer] ? 0 : kv_block_bytes(&g->p->kv[layer]);
            gpu_arena_take(a, GPU_LABEL_KV, one * (size_t)k->n_blocks);
        }
    }
}

/* --- for the pool -----------------------------------------------------------------------------*/

static void copy_block(void *gpu_engine, int32_t from, int32_t to)
{
    struct gpu_engine *g = gpu_engine;
    for (size_t i = 0; i < g->p->n_kv; i++) {
        const struct kv_layer *l = &g->p->kv[i];
        size_t bytes = kv_block_bytes(l);
        char *at = l->data + (size_t)to * bytes;
        const char *source = l->data + (size_t)from * bytes;
        if (g->is_kv_here[i]) {
            memcpy(at, source, bytes);
        } else {
            door_copy(g->door, at, source, bytes);
        }
    }
}

static void save_block(void *gpu_engine, int32_t block)
{
    struct gpu_engine *g = gpu_engine;
    gpu_mirror_save(&g->mirror, block);
}

static void load_block(void *gpu_engine, int32_t block)
{
    struct gpu_engine *g = gpu_engine;
    gpu_mirror_load(&g->mirror, block);
}

int gpu_engine_hold(struct gpu_engine *g, struct kv_pool *pool, int32_t n_kept)
{
    if (n_kept > 0 && !gpu_mirror_open(&g->mirror, g->door, pool, g->is_kv_here)) {
        return -ENOMEM;
    }
    pool->device = (struct kv_device){.copy = copy_block,
                                      .save = save_block,
                                      .load = load_block,
                                      .arg = g,
                                      .n_kept = g->mirror.n_slots > 0 ? n_kept : 0};
    return 0;
}

bool gpu_engine_settle(struct gpu_engine *g)
{
    return gpu_mirror_settle(&g->mirror);
}
