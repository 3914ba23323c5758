/* The requests that are refused because workers died of them: digests (gateway/journal.h), each for
 * LIMIT_POISON_S. The gateway refuses by its list; the supervisor keeps another, so that the next
 * gateway refuses them, too. In memory only; a full list forgets the oldest. Pure. */
#ifndef IPC_POISON_H
#define IPC_POISON_H

#include "shared/base.h"
#include "shared/hash.h"
#include "shared/limits.h"

struct poison_row {
    uint8_t digest[HASH_SHA256_BYTES];
    int64_t since_unix_s;
    uint64_t until_ms; /* clock_ms */
    uint64_t n_refused;
};

struct poison {
    struct poison_row rows[LIMIT_POISON]; /* oldest first */
    size_t n;
    uint64_t n_refused; /* ever */
};

/* until_ms: when it may be sent again; never before those that are on the list. */
void poison_add(struct poison *p, const uint8_t digest[HASH_SHA256_BYTES], int64_t since_unix_s,
                uint64_t until_ms, uint64_t now_ms);
/* The row of that digest, or NULL. Rows whose time is over are dropped. */
struct poison_row *poison_find(struct poison *p, const uint8_t digest[HASH_SHA256_BYTES],
                               uint64_t now_ms);
void poison_expire(struct poison *p, uint64_t now_ms);
void poison_clear(struct poison *p);

#endif
