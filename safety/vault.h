/* The stores (ipc/store.h) that outlive workers: descriptors by kind and key. The supervisor maps
 * none of them and reads none. */
#ifndef SAFETY_VAULT_H
#define SAFETY_VAULT_H

#include "ipc/channel.h"
#include "ipc/store.h"

struct vault_item {
    struct msg_store store;
    int fd; /* owned */
};

struct vault {
    struct vault_item v[LIMIT_STORES];
    size_t n;
};

/* Takes the descriptor of a STORE message, in place of one of the same kind and key. ERR_PROTOCOL:
 * it is not sealed as promised, or there are too many; it is the caller's still. */
MUST_CHECK int vault_keep(struct vault *v, const struct msg_store *store, int fd);
void vault_drop(struct vault *v, const struct msg_store *store);
/* Somebody who cannot be stopped may still write to these. */
void vault_drop_writable(struct vault *v);
void vault_clear(struct vault *v);

/* Sends all to a worker that has greeted. Errors as channel_send. */
MUST_CHECK int vault_give(const struct vault *v, struct channel *c, uint64_t epoch);

/* Memory that they take just now. */
uint64_t vault_resident_bytes(const struct vault *v);

#endif
