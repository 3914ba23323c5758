/* A single-producer single-consumer ring of records between two processes that do not trust each
 * other, in a sealed memfd, with an eventfd bell.
 *
 * Memory layout (struct ring_shared in ring.c): a header page written once by the supervisor
 * (magic, ABI, capacity, epoch), the producer's line {tail, sleeping hint}, the consumer's line
 * {head}, each alone on 128 bytes, then 2^k payload bytes. tail and head are free-running byte
 * counters; a record is {len, type, seq, epoch, crc32c} + payload, padded to 16 bytes, and may
 * wrap.
 *
 * Who writes what: the producer alone writes tail and payload, the consumer alone writes head; each
 * keeps a private copy of its own counter and never reads it back from shared memory. The producer
 * publishes with a release store of tail after the payload; the consumer acquires tail, copies the
 * record to private memory, checks length, epoch, sequence and checksum on the copy, and only then
 * releases head. Anything wrong is ERR_PROTOCOL, for good: the ring is dead, never repaired.
 *
 * The bell is rung when the consumer said it sleeps (a flag with full fences on both sides). */
#ifndef IPC_RING_H
#define IPC_RING_H

#include "shared/base.h"

struct ring {
    struct ring_shared *shared; /* borrowed mapping */
    size_t map_bytes;
    uint8_t *payload;
    uint64_t epoch;
    uint64_t own;       /* private copy of my counter: tail of a producer, head of a consumer */
    uint32_t seq;       /* next sequence number */
    uint32_t mask;      /* capacity - 1, private copy */
    int bell;           /* eventfd; borrowed */
    bool dead;          /* the peer broke the protocol */
};

struct ring_record {
    uint32_t type; /* enum msg_type */
    uint32_t len;  /* payload bytes */
};

/* Bytes of a memfd for a ring of capacity payload bytes (a power of two). */
size_t ring_memfd_bytes(size_t capacity);

/* Once, by the maker, in a fresh zeroed mapping. */
void ring_format(void *map, size_t capacity, uint64_t epoch);

/* Joins as producer or consumer. Checks the header. 0 or ERR_PROTOCOL. */
MUST_CHECK int ring_attach(struct ring *r, void *map, size_t map_bytes, uint64_t epoch, int bell);

/* Puts one record made of two pieces (b may be NULL). Returns 0, -EAGAIN when there is no room now,
 * -EMSGSIZE above LIMIT_RECORD_BYTES, ERR_PROTOCOL. Rings the bell when the consumer sleeps. */
MUST_CHECK int ring_put(struct ring *r, uint32_t type, const void *a, size_t a_len, const void *b,
                        size_t b_len);

/* Takes one record into buf (LIMIT_RECORD_BYTES large). Returns 1 and fills *ret, 0 when empty,
 * ERR_PROTOCOL. */
MUST_CHECK int ring_take(struct ring *r, void *buf, struct ring_record *ret);

/* Consumer side of sleeping: announces sleep and returns true if the ring is still empty, so that
 * it is safe to wait on the bell; false: take records first. ring_wake clears flag and bell. */
bool ring_sleep(struct ring *r);
void ring_wake(struct ring *r);

/* Producer side: bytes free now; for back-pressure decisions. */
size_t ring_room(const struct ring *r);
/* The consumer has taken everything. */
bool ring_is_read(const struct ring *r);

#endif
