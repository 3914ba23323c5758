/* The requests that are refused because workers died of them: digests (journal_digest), each for
 * LIMIT_POISON_S. In memory only; a full list forgets the oldest. Pure. */
#ifndef GATEWAY_POISON_H
#define GATEWAY_POISON_H

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

void poison_add(struct poison *p, const uint8_t digest[HASH_SHA256_BYTES], int64_t now_unix_s,
                uint64_t now_ms);
/* The row of that digest, or NULL. Rows whose time is over are dropped. */
struct poison_row *poison_find(struct poison *p, const uint8_t digest[HASH_SHA256_BYTES],
                               uint64_t now_ms);
void poison_expire(struct poison *p, uint64_t now_ms);
void poison_clear(struct poison *p);

#endif
