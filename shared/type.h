/* Tensor types: ids as in the GGUF format. */
#ifndef SHARED_TYPE_H
#define SHARED_TYPE_H

#include "shared/base.h"

enum type {
#define TYPE(name, id, elems, bytes) TYPE_##name = id,
#include "shared/type.def"
#undef TYPE
    TYPE_ID_END = 43
};

struct type_info {
    const char *name;     /* NULL: no such type */
    uint32_t block_elems; /* elements of a block */
    uint32_t block_bytes;
};

/* Never NULL; an unknown or removed id gives an entry whose name is NULL. */
const struct type_info *type_info(uint32_t id);

/* By name as in type.def, case-insensitive. Returns the id or -1. */
int type_by_name(const char *name);

/* Bytes of a row of n elements; n must be a multiple of the block length (checked by the
 * loader). */
static inline size_t type_row_bytes(enum type t, size_t n)
{
    const struct type_info *i = type_info((uint32_t)t);
    return n / i->block_elems * i->block_bytes;
}

#endif
