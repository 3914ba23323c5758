/* Paths to handlers, from route.def. */
#ifndef GATEWAY_ROUTE_H
#define GATEWAY_ROUTE_H

#include "shared/base.h"

struct exchange;
typedef void route_fn(struct exchange *x);

enum route_id {
#define ROUTE(NAME, path, methods, flags, handler) ROUTE_##NAME,
#include "gateway/route.def"
#undef ROUTE
    ROUTE_NONE, /* an unknown path; last, so that metrics can count it */
    ROUTE_COUNT
};

enum { ROUTE_GET = 1, ROUTE_POST = 2, ROUTE_DELETE = 4 };
enum route_flags {
    ROUTE_PUBLIC = 1,
    ROUTE_NEEDS_WORKER = 2,
    ROUTE_NEEDS_MODELS = 4,
    ROUTE_ADMIN = 8
};

struct route {
    enum route_id id;
    const char *path;
    unsigned methods, flags;
    route_fn *handler;
};

/* NULL: no such path. */
const struct route *route_find(const char *path, size_t n);
/* As metrics name it; "other" for ROUTE_NONE. */
const char *route_path(enum route_id id);

#endif
