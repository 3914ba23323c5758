/* The path table. Pure. */
#include "gateway/route.h"
#include "gateway/api.h"

#include <string.h>

enum { GET = ROUTE_GET, POST = ROUTE_POST, DELETE = ROUTE_DELETE };
enum {
    PUBLIC = ROUTE_PUBLIC,
    WORKER = ROUTE_NEEDS_WORKER,
    MODELS = ROUTE_NEEDS_MODELS,
    ADMIN = ROUTE_ADMIN,
};

static const struct route routes[] = {
#define ROUTE(NAME, path, methods, flags, handler) {ROUTE_##NAME, path, methods, flags, handler},
#include "gateway/route.def"
#undef ROUTE
};

const struct route *route_find(const char *path, size_t n)
{
    for (size_t i = 0; i < COUNT_OF(routes); i++) {
        size_t len = strlen(routes[i].path);
        bool is_prefix = len > 1 && routes[i].path[len - 1] == '/';
        if ((is_prefix ? n > len : n == len) && memcmp(path, routes[i].path, len) == 0) {
            return &routes[i];
        }
    }
    return NULL;
}

const char *route_path(enum route_id id)
{
    return id < ROUTE_NONE ? routes[id].path : "other";
}
