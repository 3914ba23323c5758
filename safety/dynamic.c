/* Opening a library by name (see dynamic.h). */
#include "safety/dynamic.h"

#include <dlfcn.h>
#include <string.h>

int dynamic_load(const char *const *names, size_t n_names, const struct dynamic_symbol *symbols,
                 size_t n_symbols, void *functions, void **ret_handle, const char **ret_name,
                 struct err *e)
{
    *ret_handle = NULL;
    for (size_t i = 0; !*ret_handle && i < n_names; i++) {
        *ret_name = names[i];
        *ret_handle = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    }
    if (!*ret_handle) {
        return ERR_NO_GPU;
    }
    for (size_t i = 0; i < n_symbols; i++) {
        void *symbol = dlsym(*ret_handle, symbols[i].name);
        if (!symbol && symbols[i].need == DYNAMIC_MUST) {
            return err_set(e, ERR_NO_GPU, "%s has no %s", *ret_name, symbols[i].name);
        }
        memcpy((char *)functions + symbols[i].offset, &symbol, sizeof(symbol));
    }
    return 0;
}
