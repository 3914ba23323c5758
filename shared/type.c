/* The tensor type table. Pure. */
#include "shared/type.h"

#include <strings.h>

static const struct type_info types[TYPE_ID_END] = {
#define TYPE(name, id, elems, bytes) [id] = {#name, elems, bytes},
#include "shared/type.def"
#undef TYPE
};

const struct type_info *type_info(uint32_t id)
{
    static const struct type_info unknown = {NULL, 1, 1};
    return id < TYPE_ID_END && types[id].name ? &types[id] : &unknown;
}

int type_by_name(const char *name)
{
    for (int i = 0; i < TYPE_ID_END; i++) {
        if (types[i].name && strcasecmp(types[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}
