/* The list of refused digests (see poison.h). Pure; runs in the gateway's and in the supervisor's
 * loop. */
#include "ipc/poison.h"

#include <string.h>

static void drop_first(struct poison *p)
{
    p->n--;
    memmove(p->rows, p->rows + 1, p->n * sizeof(p->rows[0]));
}

void poison_expire(struct poison *p, uint64_t now_ms)
{
    while (p->n > 0 && p->rows[0].until_ms <= now_ms) { /* in the order in which they end */
        drop_first(p);
    }
}

void poison_add(struct poison *p, const uint8_t digest[HASH_SHA256_BYTES], int64_t since_unix_s,
                uint64_t until_ms, uint64_t now_ms)
{
    if (until_ms <= now_ms || poison_find(p, digest, now_ms)) {
        return;
    }
    if (p->n == LIMIT_POISON) {
        drop_first(p);
    }
    struct poison_row *row = &p->rows[p->n++];
    uint64_t last_ms = p->n > 1 ? row[-1].until_ms : 0;
    *row = (struct poison_row){.since_unix_s = since_unix_s, .until_ms = MAX(until_ms, last_ms)};
    memcpy(row->digest, digest, sizeof(row->digest));
}

struct poison_row *poison_find(struct poison *p, const uint8_t digest[HASH_SHA256_BYTES],
                               uint64_t now_ms)
{
    poison_expire(p, now_ms);
    for (size_t i = 0; i < p->n; i++) {
        if (memcmp(p->rows[i].digest, digest, HASH_SHA256_BYTES) == 0) {
            return &p->rows[i];
        }
    }
    return NULL;
}

void poison_clear(struct poison *p)
{
    p->n = 0;
}
