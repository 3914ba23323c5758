/* The table of stores' kinds. Any process; blocks never. */
#include "ipc/store.h"
#include "ipc/memfd.h"
#include "shared/err.h"

const struct store_info *store_info(uint32_t kind)
{
    static const struct store_info infos[STORE_KINDS] = {
#define STORE(name, word, is_const) [STORE_##name] = {word, is_const},
#include "ipc/store.def"
#undef STORE
    };
    static const struct store_info none;
    return kind < STORE_KINDS ? &infos[kind] : &none;
}

int store_check(uint32_t kind, int fd, uint64_t bytes)
{
    size_t have;
    if (!store_info(kind)->word || bytes == 0 ||
        memfd_check(fd, bytes, bytes, store_info(kind)->is_const, &have) < 0) {
        return ERR_PROTOCOL;
    }
    return 0;
}
