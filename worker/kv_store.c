/* KV pools in memfds that outlive the worker (see kv_store.h). The thread that opens a model; never
 * blocks. */
#include "worker/kv_store.h"

#include "ipc/memfd.h"
#include "shared/err.h"
#include "shared/hash.h"
#include "shared/log.h"
#include "worker/kv_record.h"
#include "worker/memory.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define KV_STORE_MAGIC 0x31657261767375u

enum { HEADER_BYTES = KV_DATA_ALIGN };

struct header {
    struct {
        uint64_t magic;
        uint64_t pool_bytes;
        struct kv_size size;
        uint8_t key[STORE_KEY_BYTES];
    } said;
    uint64_t digest;        /* of what is said; written last */
    _Atomic uint64_t epoch; /* of the worker that has it */
};
_Static_assert(sizeof(struct header) <= HEADER_BYTES, "a header is a page");

static uint64_t digest(const struct header *h)
{
    return hash64(&h->said, sizeof h->said, KV_STORE_MAGIC);
}

static bool is_whole(const struct kv_store *s)
{
    const struct header *h = (const void *)s->map;
    return h->said.magic == KV_STORE_MAGIC && h->digest == digest(h) &&
           h->said.pool_bytes == s->bytes - HEADER_BYTES &&
           memcmp(h->said.key, s->key, sizeof s->key) == 0 &&
           atomic_load(&h->epoch) <= stores_epoch(s->stores);
}

int kv_store_find(struct kv_store *ret, struct stores *stores, const uint8_t key[STORE_KEY_BYTES])
{
    struct kv_store s = {.stores = stores, .was_kept = true};
    int fd = stores_take(stores, STORE_KV, key, &s.bytes);
    if (fd < 0) {
        return -ENOENT;
    }
    memcpy(s.key, key, sizeof s.key);
    s.map = s.bytes > HEADER_BYTES ? memory_map_fd(fd, s.bytes, true) : NULL;
    if (s.map && is_whole(&s)) {
        struct header *h = (void *)s.map;
        s.size = h->said.size;
        atomic_store(&h->epoch, stores_epoch(stores));
        *ret = s;
        return 0;
    }
    log_warn("what was kept of a KV cache is not whole; it is made anew");
    memory_unmap(s.map, s.bytes);
    stores_release(stores, STORE_KV, key);
    stores_drop(stores, STORE_KV, key);
    return -ENOENT;
}

int kv_store_make(struct kv_store *ret, struct stores *stores, const uint8_t key[STORE_KEY_BYTES],
                  const struct kv_size *size, size_t pool_bytes)
{
    struct kv_store s = {.stores = stores, .size = *size, .bytes = pool_bytes + HEADER_BYTES};
    int fd = memfd_create_shared("rocmforge-kv", s.bytes);
    if (fd < 0) {
        return fd;
    }
    s.map = memory_map_fd(fd, s.bytes, true);
    if (!s.map) {
        close(fd);
        return -ENOMEM;
    }
    memcpy(s.key, key, sizeof s.key);
    struct header *h = (void *)s.map;
    h->said.magic = KV_STORE_MAGIC;
    h->said.pool_bytes = pool_bytes;
    h->said.size = *size;
    memcpy(h->said.key, key, sizeof h->said.key);
    atomic_store(&h->epoch, stores_epoch(stores));
    h->digest = digest(h);
    if (!stores_put(stores, STORE_KV, key, fd, s.bytes)) {
        s.stores = NULL;
    }
    *ret = s;
    return 0;
}

void *kv_store_pool(const struct kv_store *s, size_t pool_bytes)
{
    return s->map && s->bytes == pool_bytes + HEADER_BYTES ? s->map + HEADER_BYTES : NULL;
}

void kv_store_close(struct kv_store *s)
{
    if (s->map) {
        memory_unmap(s->map, s->bytes);
        stores_release(s->stores, STORE_KV, s->key);
    }
    *s = (struct kv_store){0};
}
