/* The packed matrices of a program in one store: packed once, and by the next worker only mapped.
 *
 *   matrix 0, matrix 1, ...      in the order of the program, each at a multiple of 64
 *   struct weights_table         at the end: written last
 *
 * A kernel that streams weights misses the TLB less with huge pages; memfds get them where the
 * kernel can collapse pages (Linux 6.1) or is set to give shared memory huge pages. */
#ifndef WORKER_WEIGHTS_H
#define WORKER_WEIGHTS_H

#include "worker/program.h"
#include "worker/stores.h"

struct weights {
    void *map; /* owned, read-only; NULL: the instruction set reads the file's form */
    size_t bytes, huge_bytes;
    bool was_kept; /* by an earlier worker, or by this one before it unloaded the model */
    struct stores *stores; /* borrowed; NULL: it is not kept */
    uint8_t key[STORE_KEY_BYTES];
};

/* Gives the program's matrices their packed form: that of the store with this model's fingerprint,
 * or else packs and keeps it. progress may be NULL. Errors: ERR_MODEL_IO, ERR_MODEL_CHANGED,
 * ERR_NO_MEMORY, ERR_INTERNAL (what was sealed is not what was packed), -errno; *ret needs no close
 * then. */
MUST_CHECK int weights_open(struct weights *ret, struct program *p, enum isa isa, struct pool *pool,
                            struct stores *stores, const uint8_t fingerprint[32],
                            void (*progress)(void *arg, uint64_t done, uint64_t total),
                            void *progress_arg, struct err *e);
void weights_close(struct weights *w);

/* The key under which a model's packed weights are kept. */
void weights_key(enum isa isa, const uint8_t fingerprint[32], uint8_t ret[STORE_KEY_BYTES]);

#endif
