/* The ring (see ring.h for who writes what). Producer and consumer each live in one thread. */
#include "ipc/ring.h"
#include "shared/err.h"
#include "shared/hash.h"
#include "shared/limits.h"
#include "shared/num.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { RING_LINE = 128, RING_HEADER_BYTES = 4096, RING_ALIGN = 16 };
#define RING_MAGIC 0x31676e69726d66u /* "fmring1" */

struct ring_shared {
    /* Constant after ring_format. */
    uint64_t magic;
    uint64_t epoch;
    uint32_t capacity;
    /* Written by the producer alone. */
    _Alignas(RING_LINE) _Atomic uint64_t tail;
    /* Written by the consumer alone; `sleeping` is also cleared by nobody else. */
    _Alignas(RING_LINE) _Atomic uint64_t head;
    _Atomic uint32_t sleeping;
};
_Static_assert(sizeof(struct ring_shared) <= RING_HEADER_BYTES, "header page");

struct record { /* stands in the payload area, aligned to RING_ALIGN */
    uint32_t len;
    uint32_t type;
    uint32_t seq;
    uint32_t crc; /* of this struct with crc = 0, then the payload */
    uint64_t epoch;
    uint64_t reserved;
};
_Static_assert(sizeof(struct record) % RING_ALIGN == 0, "records stay aligned");

size_t ring_memfd_bytes(size_t capacity)
{
    return RING_HEADER_BYTES + capacity;
}

void ring_format(void *map, size_t capacity, uint64_t epoch)
{
    ASSERT(capacity >= 4096 && (capacity & (capacity - 1)) == 0 && capacity <= UINT32_MAX / 2);
    struct ring_shared *s = map;
    s->magic = RING_MAGIC;
    s->epoch = epoch;
    s->capacity = (uint32_t)capacity;
    atomic_init(&s->tail, 0);
    atomic_init(&s->head, 0);
    atomic_init(&s->sleeping, 0);
}

int ring_attach(struct ring *r, void *map, size_t map_bytes, uint64_t epoch, int bell)
{
    struct ring_shared *s = map;
    if (map_bytes < RING_HEADER_BYTES) {
        return ERR_PROTOCOL;
    }
    uint32_t capacity = *(volatile uint32_t *)&s->capacity; /* read once: the peer may scribble */
    if (s->magic != RING_MAGIC || s->epoch != epoch || capacity < 4096 ||
        (capacity & (capacity - 1)) != 0 || map_bytes != RING_HEADER_BYTES + (size_t)capacity) {
        return ERR_PROTOCOL;
    }
    *r = (struct ring){
        .shared = s,
        .map_bytes = map_bytes,
        .payload = (uint8_t *)map + RING_HEADER_BYTES,
        .epoch = epoch,
        .mask = capacity - 1,
        .bell = bell,
    };
    return 0;
}

static void copy_in(struct ring *r, uint64_t at, const void *data, size_t n)
{
    size_t offset = (size_t)(at & r->mask);
    size_t first = MIN(n, (size_t)r->mask + 1 - offset);
    if (first) {
        memcpy(r->payload + offset, data, first);
    }
    if (n > first) {
        memcpy(r->payload, (const uint8_t *)data + first, n - first);
    }
}

static void copy_out(const struct ring *r, uint64_t at, void *data, size_t n)
{
    size_t offset = (size_t)(at & r->mask);
    size_t first = MIN(n, (size_t)r->mask + 1 - offset);
    if (first) {
        memcpy(data, r->payload + offset, first);
    }
    if (n > first) {
        memcpy((uint8_t *)data + first, r->payload, n - first);
    }
}

static size_t record_bytes(size_t len)
{
    return sizeof(struct record) + num_pad(len, RING_ALIGN);
}

/* Bytes in use as the producer sees them; SIZE_MAX when the consumer's head is impossible. */
static size_t used_bytes(const struct ring *r)
{
    uint64_t head = atomic_load_explicit(&r->shared->head, memory_order_acquire);
    uint64_t used = r->own - head;
    return used <= (uint64_t)r->mask + 1 ? (size_t)used : SIZE_MAX;
}

size_t ring_room(const struct ring *r)
{
    size_t used = used_bytes(r);
    return used == SIZE_MAX ? 0 : (size_t)r->mask + 1 - used;
}

bool ring_is_read(const struct ring *r)
{
    return used_bytes(r) == 0;
}

int ring_put(struct ring *r, uint32_t type, const void *a, size_t a_len, const void *b,
             size_t b_len)
{
    if (r->dead) {
        return ERR_PROTOCOL;
    }
    size_t len = a_len + b_len;
    if (a_len > LIMIT_RECORD_BYTES || b_len > LIMIT_RECORD_BYTES || len > LIMIT_RECORD_BYTES) {
        return -EMSGSIZE;
    }
    size_t used = used_bytes(r);
    if (used == SIZE_MAX) {
        r->dead = true;
        return ERR_PROTOCOL;
    }
    if (record_bytes(len) > (size_t)r->mask + 1 - used) {
        return -EAGAIN;
    }
    struct record rec = {.len = (uint32_t)len, .type = type, .seq = r->seq, .epoch = r->epoch};
    uint32_t crc = hash_crc32c(0, &rec, sizeof(rec));
    crc = hash_crc32c(crc, a, a_len);
    rec.crc = hash_crc32c(crc, b, b_len);
    copy_in(r, r->own, &rec, sizeof(rec));
    copy_in(r, r->own + sizeof(rec), a, a_len);
    copy_in(r, r->own + sizeof(rec) + a_len, b, b_len);
    r->seq++;
    r->own += record_bytes(len);
    atomic_store_explicit(&r->shared->tail, r->own, memory_order_release);

    /* Either this load sees the consumer's flag, or the consumer's check after its flag sees the
     * new tail: both sides put a full fence between their store and their load. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&r->shared->sleeping, memory_order_relaxed) && r->bell >= 0) {
        uint64_t one = 1;
        ssize_t n = write(r->bell, &one, sizeof(one)); /* EAGAIN: it is ringing already */
        (void)n;
    }
    return 0;
}

int ring_take(struct ring *r, void *buf, struct ring_record *ret)
{
    if (r->dead) {
        return ERR_PROTOCOL;
    }
    uint64_t tail = atomic_load_explicit(&r->shared->tail, memory_order_acquire);
    uint64_t used = tail - r->own;
    if (used == 0) {
        return 0;
    }
    struct record rec;
    if (used > (uint64_t)r->mask + 1 || used < sizeof(rec) || used % RING_ALIGN != 0) {
        goto dead;
    }
    copy_out(r, r->own, &rec, sizeof(rec));
    if (rec.len > LIMIT_RECORD_BYTES || record_bytes(rec.len) > used || rec.seq != r->seq ||
        rec.epoch != r->epoch) {
        goto dead;
    }
    copy_out(r, r->own + sizeof(rec), buf, rec.len);
    uint32_t want = rec.crc;
    rec.crc = 0;
    if (hash_crc32c(hash_crc32c(0, &rec, sizeof(rec)), buf, rec.len) != want) {
        goto dead;
    }
    r->seq++;
    r->own += record_bytes(rec.len);
    atomic_store_explicit(&r->shared->head, r->own, memory_order_release);
    *ret = (struct ring_record){.type = rec.type, .len = rec.len};
    return 1;
dead:
    r->dead = true;
    return ERR_PROTOCOL;
}

bool ring_sleep(struct ring *r)
{
    atomic_store_explicit(&r->shared->sleeping, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (!r->dead &&
        atomic_load_explicit(&r->shared->tail, memory_order_acquire) == r->own) {
        return true;
    }
    ring_wake(r);
    return false;
}

void ring_wake(struct ring *r)
{
    atomic_store_explicit(&r->shared->sleeping, 0, memory_order_relaxed);
    uint64_t count;
    ssize_t n = r->bell >= 0 ? read(r->bell, &count, sizeof(count)) : 0; /* EAGAIN: not rung */
    (void)n;
}
