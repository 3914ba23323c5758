/* Where the state folder is. Pure but for the environment. */
#include "safety/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void state_dir(const char *setting, char *ret, size_t bytes)
{
    const char *service = getenv("STATE_DIRECTORY"), *xdg = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    int n = -1;
    if (*setting) {
        n = snprintf(ret, bytes, "%s", setting);
    } else if (service && *service == '/') { /* the first of a list */
        n = snprintf(ret, bytes, "%.*s", (int)strcspn(service, ":"), service);
    } else if (xdg && *xdg == '/') {
        n = snprintf(ret, bytes, "%s/rocmforge", xdg);
    } else if (home && *home == '/') {
        n = snprintf(ret, bytes, "%s/.local/state/rocmforge", home);
    }
    if (n <= 0 || (size_t)n >= bytes) {
        ret[0] = '\0';
    }
}
