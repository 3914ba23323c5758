/* The stores (ipc/store.h) of this worker: those that the supervisor handed over, and those it
 * made. Safe for any thread. Every function takes NULL for a process without a supervisor (the
 * tools): nothing is found, nothing is kept. */
#ifndef WORKER_STORES_H
#define WORKER_STORES_H

#include "ipc/channel.h"
#include "ipc/store.h"

struct stores;

/* channel: to the supervisor, borrowed. */
struct stores *stores_create(struct channel *channel, uint64_t epoch);
/* Closes the descriptors; the supervisor keeps its own. NULL-safe. */
void stores_destroy(struct stores **s);
uint64_t stores_epoch(const struct stores *s); /* 0 with NULL */

/* Takes a STORE message of the handshake. ERR_PROTOCOL. */
MUST_CHECK int stores_receive(struct stores *s, struct channel_msg *m);

/* A digest of the kind and of n parts that say what a store holds and in which form. */
struct stores_part {
    const void *data;
    size_t bytes;
};
void stores_key(enum store_kind kind, const struct stores_part *parts, size_t n,
                uint8_t ret[STORE_KEY_BYTES]);

/* The store's descriptor (borrowed) and size; -ENOENT: there is none, or it is writable and taken.
 * It is the caller's to use until stores_release. */
MUST_CHECK int stores_take(struct stores *s, enum store_kind kind, const uint8_t *key,
                           size_t *ret_bytes);
/* A new store, taken by the caller. The descriptor is taken over in any case. False: nobody keeps
 * it, and it is the caller's memory as any other. */
bool stores_put(struct stores *s, enum store_kind kind, const uint8_t *key, int fd, size_t bytes);
void stores_release(struct stores *s, enum store_kind kind, const uint8_t *key);

/* Somebody will want it, if it is there. */
void stores_claim(struct stores *s, enum store_kind kind, const uint8_t *key);
/* Drops what nobody ever took or claimed: of models or settings that are no more. */
void stores_drop_unclaimed(struct stores *s);
/* Gives up a store, unless somebody has it. */
void stores_drop(struct stores *s, enum store_kind kind, const uint8_t *key);
/* Gives up all of a kind, whoever has them: what stands there is not to be believed. */
void stores_drop_kind(struct stores *s, enum store_kind kind);
/* Gives up all that nobody has and that take memory worth having. Returns whether there was any. */
bool stores_drop_idle(struct stores *s);

/* Memory that the stores of a kind take just now. */
uint64_t stores_resident_bytes(struct stores *s, enum store_kind kind);

#endif
