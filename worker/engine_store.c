/* What of an engine outlives the process: under which keys it is kept, and the memory of its KV
 * pool. The thread that opens a model; the keys: any. */
#include "worker/build_id.h"
#include "worker/canary.h"
#include "worker/engine_state.h"

#include "shared/hash.h"
#include "worker/kv_record.h"
#include "worker/memory.h"

#include <errno.h>
#include <string.h>

/* Everything that decides bits or sizes of the cache. */
static void kv_key(const struct engine_options *o, const uint8_t fingerprint[32],
                   uint8_t ret[STORE_KEY_BYTES])
{
    const uint32_t layout = KV_RECORD_LAYOUT;
    size_t n_build;
    const void *build = build_id(&n_build); /* another build's kernels may compute other bits */
    const int64_t sizes[] = {(int64_t)o->kv_type, o->n_ctx, o->n_seqs,
                             (int64_t)o->kv_memory_bytes, o->is_unfused};
    const char *device = o->door ? door_arch(o->door) : "cpu";
    const uint64_t kernels = o->door ? door_kernels(o->door) : 0;
    const struct stores_part parts[] = {{&layout, sizeof layout},
                                        {build, n_build},
                                        {device, strlen(device)},
                                        {&kernels, sizeof kernels},
                                        {isa_name(o->isa), strlen(isa_name(o->isa))},
                                        {fingerprint, 32},
                                        {sizes, sizeof sizes},
                                        {&o->kv_memory_share, sizeof o->kv_memory_share}};
    stores_key(STORE_KV, parts, COUNT_OF(parts), ret);
}

void engine_claim_stores(const struct engine_options *o, const uint8_t fingerprint[32])
{
    uint8_t key[STORE_KEY_BYTES];
    weights_key(o->isa, fingerprint, key);
    stores_claim(o->stores, STORE_WEIGHTS, key);
    kv_key(o, fingerprint, key);
    stores_claim(o->stores, STORE_KV, key);
    if (o->door) {
        canary_key(o, fingerprint, key);
        stores_claim(o->stores, STORE_CANARY, key);
    }
}

void engine_drop_stores(const struct engine_options *o, const uint8_t fingerprint[32],
                        bool keeps_cache)
{
    uint8_t key[STORE_KEY_BYTES];
    struct engine_options here = *o; /* which it may have been opened with in the end */
    here.door = NULL;
    weights_key(o->isa, fingerprint, key);
    stores_drop(o->stores, STORE_WEIGHTS, key);
    if (!keeps_cache) {
        kv_key(o, fingerprint, key);
        stores_drop(o->stores, STORE_KV, key);
        kv_key(&here, fingerprint, key);
        stores_drop(o->stores, STORE_KV, key);
    }
    if (o->door && !keeps_cache) {
        canary_key(o, fingerprint, key);
        stores_drop(o->stores, STORE_CANARY, key);
    }
}

void engine_find_kv(struct engine *en)
{
    uint8_t key[STORE_KEY_BYTES];
    kv_key(&en->options, en->info.fingerprint, key);
    if (kv_store_find(&en->kv_store, en->options.stores, key) < 0) {
        en->kv_store = (struct kv_store){0};
    }
}

int engine_open_kv(struct engine *en, struct err *e)
{
    const struct engine_info *i = &en->info;
    struct program *p = &en->program;
    struct kv_shape shape = {
        .n_blocks = i->n_blocks,
        .n_snapshots = (int32_t)i->n_snapshots,
        .snapshot_bytes = en->options.door ? 0 : (size_t)en->snapshot_floats * sizeof(float),
        .seed = hash64(i->fingerprint, sizeof i->fingerprint, (uint64_t)en->options.kv_type)};
    if (en->options.door) { /* what the device computed may depend on what else it computed */
        shape.seed = hash64(i->profile, strlen(i->profile), shape.seed);
    }
    struct kv_size size = {i->n_blocks, i->n_snapshots, i->n_ctx, i->n_kept_blocks, shape.seed};
    size_t bytes = kv_pool_bytes(p->kv, p->n_kv, &shape);
    bool is_ours = bytes && en->kv_store.size.seed == shape.seed;
    void *memory = is_ours ? kv_store_pool(&en->kv_store, bytes) : NULL;
    int err = bytes ? 0 : -ENOMEM;
    if (bytes && !memory) {
        uint8_t key[STORE_KEY_BYTES];
        kv_key(&en->options, i->fingerprint, key);
        kv_store_close(&en->kv_store);
        stores_drop(en->options.stores, STORE_KV, key);
        if (engine_keeps_kv(en)) {
            err = kv_store_make(&en->kv_store, en->options.stores, key, &size, bytes);
        }
        memory = err < 0 ? NULL : kv_store_pool(&en->kv_store, bytes);
    }
    if (err == 0 && !memory) {
        err = kv_pool_init(&en->kv, p->kv, p->n_kv, shape.n_blocks, shape.n_snapshots, shape.seed);
    } else {
        err = err < 0 ? err : kv_pool_init_at(&en->kv, p->kv, p->n_kv, &shape, memory);
    }
    if (err == 0 && !en->options.door) {
        kv_use_huge_pages(&en->kv, memory_collapse);
    }
    if (err < 0) {
        return err_set(e, ERR_NO_MEMORY, "KV cache of %llu bytes",
                       (unsigned long long)i->kv_bytes);
    }
    return 0;
}
