/* Stores: memory that outlives the worker that made it. A store is a memfd; the supervisor holds it
 * and hands it to every worker that comes after. It knows kind, key and size, and looks at nothing
 * inside.
 *
 *   const     written, unmapped, then sealed with F_SEAL_WRITE: whoever maps it can only read, and
 *             what was true of it once stays true. Never checked again.
 *   writable  sealed against resizing only. One worker at a time has it; what it finds was perhaps
 *             left by one that crashed while writing, so every part is checked before it is
 *             believed. One that cannot be killed may still write: its writable stores are given to
 *             nobody.
 *
 * A key is a digest of all that the content depends on: who finds a store under its key may use it,
 * and what changed (the file, a setting, a layout) has another key. */
#ifndef IPC_STORE_H
#define IPC_STORE_H

#include "shared/base.h"

enum store_kind {
#define STORE(name, word, is_const) STORE_##name,
#include "ipc/store.def"
#undef STORE
    STORE_KINDS
};

enum { STORE_KEY_BYTES = 32 };

struct store_info {
    const char *word; /* for people; NULL: no such kind */
    bool is_const;
};
const struct store_info *store_info(uint32_t kind); /* never NULL */

/* Is the memfd sealed as its kind demands, and of that size? 0 or ERR_PROTOCOL. */
MUST_CHECK int store_check(uint32_t kind, int fd, uint64_t bytes);

#endif
